// The transports that this portal is configured for; the portal fills in the value.

/** Whether a media server delivers the stream over WebRTC. */
export const HAS_WEBRTC = "{{has_webrtc}}" === "yes";
