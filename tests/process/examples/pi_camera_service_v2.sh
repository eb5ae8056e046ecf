# Get status with v2.0 metadata
curl http://raspberrypi:8000/v1/camera/status

# Set autofocus to continuous mode
curl -X POST http://raspberrypi:8000/v1/camera/autofocus_mode \
  -H "Content-Type: application/json" \
  -d '{"mode": "continuous"}'

# Capture a snapshot
curl -X POST http://raspberrypi:8000/v1/camera/snapshot \
  -H "Content-Type: application/json" \
  -d '{"width": 1920, "height": 1080}' \
  | jq -r '.image_base64' | base64 -d > snapshot.jpg

# Set manual white balance (NoIR daylight preset)
curl -X POST http://raspberrypi:8000/v1/camera/awb_preset \
  -H "Content-Type: application/json" \
  -d '{"preset": "daylight_noir"}'

# Adjust image processing
curl -X POST http://raspberrypi:8000/v1/camera/image_processing \
  -H "Content-Type: application/json" \
  -d '{"brightness": 0.1, "contrast": 1.2, "sharpness": 10.0}'

# Set ROI (center crop)
curl -X POST http://raspberrypi:8000/v1/camera/roi \
  -H "Content-Type: application/json" \
  -d '{"x": 0.25, "y": 0.25, "width": 0.5, "height": 0.5}'

# With authentication (if CAMERA_API_KEY is set)
curl -H "X-API-Key: your-key" \
  http://raspberrypi:8000/v1/camera/status
