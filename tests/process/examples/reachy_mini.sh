curl -s http://localhost:8000/api/camera/status
curl -o frame.jpg 'http://reachy-mini.local:8000/api/camera/frame?quality=80'
