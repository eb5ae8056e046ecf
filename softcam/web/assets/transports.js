// What this portal was set up with, as it fills in here.

/** Whether a server shows the picture by WebRTC. */
export const HAS_WEBRTC = "{{has_webrtc}}" === "yes";
