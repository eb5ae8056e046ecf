curl http://localhost:8000/health
curl http://localhost:8000/camera/status
curl -X POST http://localhost:8000/camera/start
curl -o frame.jpg http://localhost:8000/frame
curl -X POST http://localhost:8000/camera/stop
