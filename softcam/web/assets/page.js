"use strict";
// Shows the stream, says what the camera does, and never leaves an old picture standing as if it were live.

// Without a user and a password: fetch() refuses an address that bears them, and the browser sends them by itself.
const HERE = location.origin + location.pathname;
const STATUS_PERIOD_MS = 1000; // it is also what brings a broken stream back
const STATUS_LIMIT_MS = 5000;
const picture = document.getElementById("picture");
const frame = document.getElementById("frame");
const notice = document.getElementById("notice");
const state = document.getElementById("state");
const facts = document.getElementById("facts");
let isAsked = false; // the stream was asked for, and has not failed
let isShown = false; // a picture of it has come
let isAsking = false; // for the status
let isAway = false; // the portal could not be reached

const STATES = {
  closed: "camera is off", opening: "opening the camera", open: "waiting for a picture",
  lingering: "waiting for a picture", closing: "closing the camera",
};

function tell(kind, words) {
  state.dataset.state = kind;
  if (state.textContent !== words) state.textContent = words;
}

function cover(words) {
  notice.hidden = !words;
  if (words && notice.textContent !== words) notice.textContent = words;
}

function startStream() {
  if (document.hidden || isAsked) return;
  isAsked = true;
  // A new address each time: browsers keep a broken stream in their cache of images.
  picture.src = "stream.mjpg?nonce=" + Date.now();
}

function stopStream() {
  isAsked = isShown = false;
  picture.removeAttribute("src");
}

picture.addEventListener("load", () => {
  if (!isAsked) return;
  isShown = true;
  cover("");
});
picture.addEventListener("error", () => {
  if (isAsked) stopStream();
});

// A browser has six connections to a host: a hidden tab gives its own back.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    stopStream();
    tell("wait", "paused");
  } else {
    startStream();
    askStatus();
  }
});

function row(list, name) {
  let found = [...list.children].find((each) => each.firstChild.textContent === name);
  if (!found) {
    found = document.createElement("div");
    found.append(document.createElement("dt"), document.createElement("dd"));
    found.firstChild.textContent = name;
    list.append(found);
  }
  return found;
}

function fact(name, value) {
  const detail = row(facts, name).lastChild;
  if (detail.textContent !== value) detail.textContent = value;
}

function number(value, unit, digits = 0) {
  return value === null || value === undefined ? "–" : value.toFixed(digits) + (unit ? "\u00a0" + unit : "");
}

function showFacts(status) {
  document.getElementById("name").textContent = document.title = status.camera || "Camera";
  if (status.width) frame.style.setProperty("--ratio", `${status.width} / ${status.height}`);
  fact("Picture", status.width ? `${status.width} × ${status.height}` : "–");
  fact("Frame rate", number(status.fps, "fps", 1));
  fact("Viewers", String(status.viewers));
  fact("Exposure", number(status.exposure_us === null ? null : status.exposure_us / 1000, "ms", 2));
  fact("Gain", number(status.analogue_gain, "", 2));
  fact("Light", number(status.lux, "lux"));
  fact("Colour", number(status.colour_temperature, "K"));
  fact("Focus", number(status.lens_position, "dioptres", 2));
  fact("Restarts", String(status.restarts));
  const error = row(facts, "Last error");
  error.className = "wide";
  error.hidden = !status.last_error;
  error.lastChild.textContent = status.last_error || "";
}

function showState(status) {
  if (status.state === "recovering") tell("lost", "reconnecting"); // the stream itself says why
  else if (status.state === "missing") lose("camera missing", "The camera is missing.");
  else if (!status.available) lose("no camera", `No picture: ${status.last_error || "the camera is not available"}.`);
  else if (isShown && status.state === "open") tell("live", "live");
  else {
    tell("wait", STATES[status.state] || status.state);
    if (!isShown) cover(`${state.textContent} …`);
  }
}

function lose(words, reason) {
  tell("lost", words);
  cover(reason);
}

async function askStatus() {
  if (document.hidden || isAsking) return;
  isAsking = true;
  try {
    const answer = await fetch(new URL("v1/camera/status", HERE), {
      cache: "no-store",
      // A portal that comes back may want another key; sent none, the browser does not ask for it at every try.
      credentials: isAway ? "omit" : "same-origin",
      signal: AbortSignal.timeout(STATUS_LIMIT_MS),
    });
    if (answer.status === 401) {
      keepOut();
      return;
    }
    if (!answer.ok) throw new Error(`The portal answers with ${answer.status}.`);
    const status = await answer.json();
    isAway = false;
    facts.classList.remove("old");
    showFacts(status);
    showState(status);
    startStream();
  } catch (error) {
    // fetch() throws these two for a connection that fails and for an answer that does not come.
    isAway = error instanceof TypeError || error.name === "TimeoutError";
    stopStream();
    facts.classList.add("old");
    lose("no connection", isAway ? "The portal cannot be reached. Trying again …" : error.message);
  } finally {
    isAsking = false;
  }
}

function keepOut() {
  stopStream();
  if (isAway) {
    location.reload(); // with the key that the browser knows; for another one it asks here, once
    return;
  }
  clearInterval(asking);
  lose("no key", "Nobody is let in without the key. Load the page again to give it.");
}

const ADDRESSES = [
  ["Stream (MJPEG)", "stream.mjpg"], ["Snapshot (JPEG)", "snapshot.jpg"], ["Status (JSON)", "v1/camera/status"],
];
for (const [name, path] of ADDRESSES) {
  const link = document.createElement("a");
  link.href = link.textContent = new URL(path, HERE).href;
  row(document.getElementById("addresses"), name).lastChild.append(link);
}

if (document.fullscreenEnabled) { // not on an iPhone
  const button = document.getElementById("fullscreen");
  button.hidden = false;
  button.addEventListener("click", () => frame.requestFullscreen());
  frame.addEventListener("click", () => document.fullscreenElement && document.exitFullscreen());
}

startStream();
askStatus();
const asking = setInterval(askStatus, STATUS_PERIOD_MS);
