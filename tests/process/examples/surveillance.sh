# Set day/night auto-detection
curl -X POST http://raspberrypi:8000/v1/camera/day_night_mode \
  -H "Content-Type: application/json" \
  -d '{"mode": "auto", "threshold_lux": 10.0}'

# Apply NoIR IR preset
curl -X POST http://raspberrypi:8000/v1/camera/awb_preset \
  -H "Content-Type: application/json" \
  -d '{"preset": "ir_850nm"}'
