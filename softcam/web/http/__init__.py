"""HTTP itself: connections, requests, responses, routing, authentication; nothing about cameras."""
