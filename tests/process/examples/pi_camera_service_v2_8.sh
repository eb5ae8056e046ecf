camera=http://raspberrypi:8000/v1/camera
system=http://raspberrypi:8000/v1/system

# NAME [BODY]: prints the answer, or a line that begins with "unsupported" for what this camera does not have
set_camera() {
  if [ $# -eq 1 ]; then
    answer=$(curl -X POST "$camera/$1") || true
  else
    answer=$(curl -X POST "$camera/$1" -H "Content-Type: application/json" -d "$2") || true
  fi
  case $answer in
    *'"detail":'*'this camera '*) echo "unsupported $1" ;;
    *) echo "$answer" | grep '"status":"ok"' || { echo "$1 $2: $answer" >&2; return 1; } ;;
  esac
}

is_supported() { ! grep -q '^unsupported'; }

for ev in -8 1.5 0.5; do
  set_camera exposure_value "{\"ev\": $ev}"
done
for mode in off fast high_quality minimal zsl; do
  set_camera noise_reduction "{\"mode\": \"$mode\"}"
done
for mode in normal highlight shadows custom; do
  set_camera ae_constraint_mode "{\"mode\": \"$mode\"}"
done
for mode in normal short long custom; do
  set_camera ae_exposure_mode "{\"mode\": \"$mode\"}"
done
for mode in auto tungsten fluorescent indoor daylight cloudy custom; do
  set_camera awb_mode "{\"mode\": \"$mode\"}"
done
set_camera resolution '{"width": 1280, "height": 720}'
set_camera resolution '{"width": 640, "height": 360, "restart_streaming": true}'
set_camera framerate '{"framerate": 1000}' | grep '"clamped":true'
set_camera framerate '{"framerate": 30}' | grep '"applied_framerate":30.0,.*"resolution":"640x360","clamped":false'

# no body, no Content-Type
set_camera autofocus_trigger

# what cannot be set is null
curl "$camera/capabilities" >capabilities.json
curl "$camera/status" | jq -e --slurpfile known capabilities.json '$known[0] as $can |
  .exposure_value == (if $can.exposure_value_range then 0.5 else null end) and
  .noise_reduction_mode == $can.supported_noise_reduction_modes[-1:][0] and
  .ae_constraint_mode == $can.supported_ae_constraint_modes[-1:][0] and
  .ae_exposure_mode == $can.supported_ae_exposure_modes[-1:][0] and
  (.current_limits.frame_duration_us | .min == .max and (.min - 33333 | fabs) <= 1) and
  (.current_limits.effective_exposure_limit_us == null) == ($can.exposure_limits_us == null) and
  .is_wide_camera == $can.is_wide_camera and .fov_mode == "scale" and
  (.bitrate_mbps * 1000 | round) == (.bitrate_bps / 1000 | round)'
jq -e '.sensor_model != "" and (.sensor_resolution | .width >= 640 and .height >= 360) and
  all(.exposure_limits_us, .gain_limits, .lens_position_limits, .exposure_value_range; . == null or .min < .max) and
  (.features | index("exposure_value_compensation") != null) == (.exposure_value_range != null) and
  all(.supported_resolutions[], .framerate_limits_by_resolution[]; .label != "") and
  .current_framerate == 30 and .max_framerate_for_current_resolution >= 30 and
  all(.recommended_resolutions[]; .sensor_mode | startswith("mode_")) and
  (.sensor_modes == null or (.sensor_modes.mode_0.max_fps > 0))' capabilities.json

for mode in crop scale; do
  set_camera fov_mode "{\"mode\": \"$mode\"}" | tee answer
  if is_supported <answer; then
    grep "\"mode\":\"$mode\",\"description\":" answer
    curl "$camera/fov_mode" | grep "\"mode\":\"$mode\",\"description\":"
  fi
done
set_camera resolution '{"width": 1280, "height": 720, "fov_mode": "crop"}' | tee answer
if is_supported <answer; then
  curl "$camera/status" | grep '"fov_mode":"crop"'
fi
set_camera resolution '{"width": 640, "height": 360, "fov_mode": "scale"}'

# null: what this machine does not have
curl "$system/status" | jq -e 'def percent: . >= 0 and . <= 100;
  (.temperature == null or (.temperature | .cpu_c > -40 and (.status | IN("normal", "warm", "hot", "critical")))) and
  (.cpu | .cores >= 1 and (.usage_percent == null or (.usage_percent | percent)) and
    all(.load_average["1min", "5min", "15min"]; . >= 0)) and
  (.memory | .total_mb > .available_mb and .used_mb > 0 and (.percent | percent)) and
  (.network == null or (.network | .bytes_sent >= 0 and .bytes_received >= 0 and (.interface | length > 0) and
    (.wifi == null or (.wifi | .signal_dbm < 0 and (.status | IN("excellent", "good", "fair", "weak")))))) and
  (.disk | .total_gb > 0 and (.percent | percent)) and
  (.uptime | .system_seconds >= .service_seconds and .service_seconds > 0) and
  (.throttled == null or all(.throttled | .now, .since_boot;
    keys == ["frequency_capped", "soft_temperature_limit", "throttled", "under_voltage"]))'

curl "$system/logs" | grep '"status":"ok"' | jq -e '(.logs | length) == .total_lines and .total_lines <= 100 and
  .service != "" and any(.logs[]; contains("POST /v1/camera/resolution"))'
curl "$system/logs?lines=2&level=INFO&search=post%20/V1/camera" | jq -e '.total_lines == 2 and
  all(.logs[]; contains("INFO") and contains("POST /v1/camera"))'
curl "$system/logs?lines=10000&level=CRITICAL" | jq -e '.logs == []'

for url in "$camera/status" "$camera/capabilities" "$camera/fov_mode" "$system/status" "$system/logs"; do
  curl "$url" | grep '"status":"ok"'
done

# as an EventSource reads it
curl -N --max-time 60 "$system/logs/stream?level=info&search=framerate" >events &
follower=$!
until grep '^data: .*POST /v1/camera/framerate' events; do
  kill -0 $follower
  set_camera framerate '{"framerate": 30}'
  sleep 0.2
done
kill $follower
