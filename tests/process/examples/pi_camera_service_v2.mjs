const BASE_URL = "http://raspberrypi:8000";
const headers = {
  "Content-Type": "application/json",
  "X-API-Key": "your-key"  // If auth enabled
};

// Get enhanced status
const response = await fetch(`${BASE_URL}/v1/camera/status`, { headers });
const status = await response.json();
console.log(`Autofocus: ${status.autofocus_mode}, Scene: ${status.scene_mode}`);

// Set autofocus mode
await fetch(`${BASE_URL}/v1/camera/autofocus_mode`, {
  method: "POST",
  headers,
  body: JSON.stringify({ mode: "continuous" })
});

// Capture snapshot
const snapshotRes = await fetch(`${BASE_URL}/v1/camera/snapshot`, {
  method: "POST",
  headers,
  body: JSON.stringify({ width: 1920, height: 1080 })
});
const { image_base64 } = await snapshotRes.json();
// Convert base64 to blob for download or display
const blob = await fetch(`data:image/jpeg;base64,${image_base64}`).then(r => r.blob());

// Set manual AWB
await fetch(`${BASE_URL}/v1/camera/manual_awb`, {
  method: "POST",
  headers,
  body: JSON.stringify({ red_gain: 1.5, blue_gain: 1.8 })
});
