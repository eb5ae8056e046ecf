"use strict";
// Shows the stream, says what the camera does, and never leaves an old picture standing as if it were live.

const STATUS_PERIOD_MS = 1000;
const RETRY_MS = 1500;
const picture = document.getElementById("picture");
const notice = document.getElementById("notice");
const state = document.getElementById("state");
let hasStream = false;
let retry = 0;

function tell(kind, words) {
  state.dataset.state = kind;
  if (state.textContent !== words) state.textContent = words;
}

function cover(words) {
  notice.hidden = !words;
  notice.textContent = words || "";
}

function startStream() {
  clearTimeout(retry);
  if (document.hidden) return;
  hasStream = true;
  // A new address each time: browsers keep a broken stream in their cache of images.
  picture.src = "stream.mjpg?nonce=" + Date.now();
}

function stopStream() {
  clearTimeout(retry);
  hasStream = false;
  picture.removeAttribute("src");
}

picture.addEventListener("load", () => cover(""));
picture.addEventListener("error", () => {
  if (!hasStream) return;
  hasStream = false;
  cover("No picture. Trying again …");
  retry = setTimeout(startStream, RETRY_MS);
});

// A browser has six connections to a host: a hidden tab gives its own back.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) stopStream();
  else { startStream(); askStatus(); }
});

function fact(list, name, value) {
  let row = list.querySelector(`[data-name="${name}"]`);
  if (!row) {
    row = document.createElement("div");
    row.dataset.name = name;
    row.append(document.createElement("dt"), document.createElement("dd"));
    row.firstChild.textContent = name;
    list.append(row);
  }
  if (row.lastChild.textContent !== value) row.lastChild.textContent = value;
}

const number = (value, unit, digits = 0) => value === null ? "unknown" : value.toFixed(digits) + (unit ? " " + unit : "");

function showStatus(status) {
  document.getElementById("name").textContent = status.camera || "Camera";
  document.title = status.camera || "Camera";
  const facts = document.getElementById("facts");
  fact(facts, "Picture", status.width ? `${status.width} × ${status.height}` : "unknown");
  fact(facts, "Frame rate", number(status.fps, "fps", 1));
  fact(facts, "Viewers", String(status.viewers));
  fact(facts, "Exposure", status.exposure_us === null ? "unknown" : number(status.exposure_us / 1000, "ms", 2));
  fact(facts, "Gain", number(status.analogue_gain, "", 2));
  fact(facts, "Light", number(status.lux, "lux"));
  fact(facts, "Colour temperature", number(status.colour_temperature, "K"));
  fact(facts, "Focus", status.lens_position === null ? "unknown" : number(status.lens_position, "dioptres", 2));
  fact(facts, "Restarts", String(status.restarts));
  if (status.last_error) fact(facts, "Last error", status.last_error);
  if (status.state === "recovering") tell("lost", "reconnecting: " + status.last_error);
  else if (status.state === "missing") tell("lost", "camera missing");
  else if (!status.available) tell("lost", status.last_error || "not available");
  else if (status.state === "open" && hasStream) tell("live", "live");
  else tell("wait", status.state);
}

async function askStatus() {
  if (document.hidden) return;
  try {
    const answer = await fetch("v1/camera/status", { signal: AbortSignal.timeout(5000) });
    if (answer.status === 401) throw new Error("nobody is let in without the key");
    if (!answer.ok) throw new Error(`the portal answers ${answer.status}`);
    showStatus(await answer.json());
    if (!hasStream && !retry) startStream();
  } catch (error) {
    const words = error instanceof TypeError || error.name === "TimeoutError" ? "the portal cannot be reached" : error.message;
    tell("lost", words);
    cover("No connection: " + words);
    if (hasStream) stopStream();
    clearTimeout(retry);
    retry = setTimeout(startStream, RETRY_MS);
  }
}

const addresses = document.getElementById("addresses");
for (const [name, path] of [["Stream (MJPEG)", "stream.mjpg"], ["Snapshot (JPEG)", "snapshot.jpg"], ["Status (JSON)", "v1/camera/status"]]) {
  fact(addresses, name, new URL(path, location.href.split("?")[0]).href);
}
document.getElementById("fullscreen").addEventListener("click", () => {
  if (document.fullscreenElement) document.exitFullscreen();
  else document.querySelector("figure").requestFullscreen();
});

startStream();
askStatus();
setInterval(askStatus, STATUS_PERIOD_MS);
