curl http://<IP_DU_PI>:8000/camera/status

curl -X POST http://<IP_DU_PI>:8000/camera/auto_exposure \
  -H "Content-Type: application/json" \
  -d '{"enabled": true}'

curl -X POST http://<IP_DU_PI>:8000/camera/manual_exposure \
  -H "Content-Type: application/json" \
  -d '{"exposure_us": 20000, "gain": 2.0}'

curl -X POST http://<IP_DU_PI>:8000/camera/awb \
  -H "Content-Type: application/json" \
  -d '{"enabled": false}'

curl -X POST http://<IP_DU_PI>:8000/streaming/stop

curl -X POST http://<IP_DU_PI>:8000/streaming/start
