// The page's beginning: puts the parts together, asks for the status once a second, and says in words what goes on. No
// old picture is ever left standing as if it were live.

import { Controls } from "./controls.js";
import { $, clock, exposure, figure, fileStamp, isKnown, keep, recall, save, say, write } from "./dom.js";
import { OLD_MS, Picture } from "./picture.js";
import { Plots } from "./plots.js";
import { Refusal, address, ask, isAway, looksOnly, reason } from "./portal.js";
import { Recordings } from "./recordings.js";
import { Share } from "./links.js";
import { Wall } from "./wall.js";
import { HAS_WEBRTC } from "./transports.js";
import { Zoom } from "./zoom.js";

const STATUS_PERIOD_MS = 1000; // it is also what brings a broken stream back
const CONTROLS_PERIOD_MS = 2000;
const AGE_PERIOD_MS = 200;
const SILENT_MS = 2000;
const STILL_LIMIT_MS = 40000; // until a snapshot begins to come: long exposures take thrice their time
const KEY_LIMIT_MS = 60000; // for who has to look the key up
const TROUBLE_MS = 60000; // for so long a trouble that is over is still told
const OPENING = {
  closed: "camera is off", opening: "opening the camera", open: "waiting for a picture",
  lingering: "waiting for a picture", closing: "closing the camera",
};

const picture = new Picture({
  picture: () => {
    zoom.pictureCame();
    plots.pictureCame();
    if (lastStatus && isRight(lastStatus)) judge(lastStatus);
  },
  way: showWay,
  fit: () => zoom.render(),
});
const zoom = new Zoom(picture);
const plots = new Plots(picture);
const controls = new Controls(() => askStatus(), () => plots.expectOpening());
const recordings = new Recordings();
const share = new Share();
const wall = new Wall(() => {
  if (wall.isShown) picture.stop();
  else picture.start();
  askStatus();
});

let lastStatus = null; // of the last answer; null while there is none
let isAsking = false;
let wasAway = false; // the portal could not be reached
let parting = ""; // the trouble that the portal told last, and may have left with
let isOut = false; // nobody is let in
let version = null;
let trouble = null; // the last one: its words, and when it was first seen
let controls_ms = -Infinity;
let asking = 0;

// --- the state in words ----------------------------------------------------------------------------------------------

function tell(kind, words) {
  if ($("state").dataset.state !== kind) $("state").dataset.state = kind;
  write($("state"), words);
}

/** Words over the picture; and whether what is seen of it counts for nothing. */
function cover(words, isDead = false) {
  $("notice").hidden = !words;
  write($("notice"), words);
  picture.stage.classList.toggle("dead", isDead);
}

function lose(words, why) {
  tell("lost", words);
  cover(why, true);
}

const isRight = (status) => status.available && status.state !== "recovering" && status.state !== "missing";

function judge(status) {
  if (document.hidden) return;
  if (wall.isShown) tell(isRight(status) ? "live" : "lost", isRight(status) ? "all cameras" : "no camera here");
  else if (status.state === "recovering") {
    tell("lost", "reconnecting");
    cover(""); // the stream itself says why, in a picture of its own
  } else if (!isRight(status)) lose(status.state === "missing" ? "camera missing" : "no camera", `${absenceOf(status)}.`);
  else if (picture.isShown) {
    // The rate sinks while no pictures come: what a frame takes says better how long to wait for one.
    const frame_ms = status.frame_duration_us ? status.frame_duration_us / 1000 : 1000 / (status.fps || 1);
    const isOld = picture.age_ms > Math.max(OLD_MS, 2.5 * frame_ms);
    tell(isOld ? "wait" : "live", isOld ? "no new picture" : "live");
    cover("");
  } else {
    tell("wait", OPENING[status.state] ?? status.state);
    cover(picture.way === "webrtc" && picture.fault ? `No WebRTC: ${picture.fault.message} Trying again …` : `${$("state").textContent} …`);
  }
}

/** The age of what is seen, several times a second: it is the one thing that must not wait for an answer. */
function showAge() {
  const { age_ms } = picture;
  const isOld = age_ms > OLD_MS;
  $("age").hidden = !isOld;
  if (isOld) write($("age"), `${(age_ms / 1000).toFixed(age_ms < 10000 ? 1 : 0)} s old`);
  picture.stage.classList.toggle("old", isOld);
  if (lastStatus && isOld && isRight(lastStatus)) judge(lastStatus);
}

/** Why there is no camera. */
const absenceOf = ({ state, last_error }) =>
  state === "missing" ? "The camera is missing" : `No picture: ${last_error || "the camera is not available"}`;

function troubleOf(status) {
  if (status.state !== "recovering" && !isRight(status) && status.last_error) return absenceOf(status);
  return status.state === "recovering" || picture.age_ms > SILENT_MS ? "The camera gave no more pictures" : "";
}

/** Nothing is known: what was true is no fact any more. */
function forget() {
  lastStatus = null;
  picture.stop();
  for (const fact of document.querySelectorAll("#facts dd")) write(fact, "–");
  document.body.classList.add("away");
}

function showFacts(status) {
  write($("name"), status.camera || "Camera");
  document.title = status.camera || "Camera";
  const facts = {
    size: isKnown(status.width) ? `${status.width} × ${status.height}` : "–",
    rate: picture.isShown ? `${picture.fps.toFixed(1)} fps` : "–",
    line: picture.isShown ? figure(picture.bytes_s * 8e-6, "Mbit/s", 1) : "–",
    time: exposure(status.exposure_us), gain: figure(status.analogue_gain, "×", 1),
    light: figure(status.lux, "lux", status.lux < 10 ? 1 : 0), colour: figure(status.colour_temperature, "K", 0),
    viewers: String(status.viewers),
  };
  for (const [name, value] of Object.entries(facts)) write($(`fact-${name}`), value);
  showTrouble(status);
  if (version && version !== status.version) $("newer").hidden = false;
  version ??= status.version;
}

/** What went wrong while the page looked on, while it lasts and a minute longer; what was before is no news. */
function showTrouble({ last_error, restarts, state, backend }) {
  const lasts = state === "recovering" || state === "missing";
  const words = last_error && backend ? last_error + (restarts ? ` (${restarts} restart${restarts > 1 ? "s" : ""})` : "") : "";
  if (words !== trouble?.words) trouble = { words, date: new Date(), until_ms: trouble || lasts ? performance.now() + TROUBLE_MS : 0 };
  const isShown = words && (lasts || performance.now() < trouble.until_ms);
  $("last-error").hidden = !isShown;
  write($("last-error"), isShown ? `${clock(trouble.date)} ${words}` : "");
}

/** Takes away what cannot work: all changes for who may only look, and all but the kept recordings without a camera. */
function lock(hasNone) {
  const isShut = hasNone || Boolean(looksOnly);
  for (const part of document.querySelectorAll("fieldset.changes")) part.disabled = isShut;
  if (isShut || document.body.classList.contains("shut")) $("record").disabled = isShut;
  document.body.classList.toggle("shut", isShut);
  for (const link of [$("snapshot"), $("full")]) link.setAttribute("aria-disabled", String(hasNone));
  document.body.classList.toggle("looks", Boolean(looksOnly));
  $("looks").hidden = !looksOnly;
  write($("looks"), looksOnly ? `${looksOnly[0].toUpperCase()}${looksOnly.slice(1)}.` : "");
}

document.addEventListener("looksonly", () => lock(Boolean(lastStatus) && isOff(lastStatus)));

/** A camera that is switched off gives no stream until the portal is started anew. */
const isOff = (status) => !status.backend;

// --- asking ----------------------------------------------------------------------------------------------------------

/**
 * A portal that comes back may want another key: sent none, the browser does not ask for it at every try. Who then wants
 * one may be a proxy, with nobody behind it yet.
 */
async function fetchStatus() {
  const path = "v1/camera/status";
  try {
    return await ask(path, { credentials: wasAway ? "omit" : "same-origin" });
  } catch (error) {
    if (error.status !== 401 || !wasAway) throw error;
    return ask(path, { patience_ms: KEY_LIMIT_MS }); // with the key that the browser knows; for another one it asks
  }
}

async function askStatus() {
  if (document.hidden || isAsking || isOut) return;
  isAsking = true;
  try {
    const status = await fetchStatus();
    if (wasAway) plots.mark("The portal is back");
    wasAway = false;
    lastStatus = status;
    document.body.classList.remove("away");
    picture.judge(status.fps, status.state === "open");
    picture.turn(status.transform?.rotation ?? 0);
    zoom.update(status, controls.groups);
    controls.update(status);
    recordings.update(status);
    share.update(status);
    showFacts(status);
    lock(isOff(status));
    plots.add(status, picture.isShown ? picture.bytes_s : NaN);
    judge(status);
    parting = troubleOf(status);
    if (!wall.isShown && !isOff(status)) picture.start();
    askControls(status);
  } catch (error) {
    if (error.status === 401) keepOut();
    else {
      if (isAway(error) && !wasAway) plots.mark("The portal cannot be reached", true);
      wasAway = isAway(error);
      forget();
      plots.gap();
      // A portal whose camera is gone leaves, and comes back with it.
      const away = `${parting ? `${parting}; now the` : "The"} portal cannot be reached. Trying again …`;
      lose("no connection", wasAway ? away : error.message);
    }
  } finally {
    isAsking = false;
  }
}

/** Now and then, while they are to be seen; and until the camera has said what it can. */
async function askControls(status) {
  const isWanted = $("controls").offsetParent || !controls.isKnown;
  const period_ms = controls.isKnown ? CONTROLS_PERIOD_MS : 0;
  if (!isWanted || !status.backend || performance.now() - controls_ms < period_ms) return;
  controls_ms = performance.now();
  await controls.load().then((groups) => zoom.update(status, groups), () => {});
}

function keepOut() {
  isOut = true;
  forget();
  clearInterval(asking);
  lose("no key", "Nobody is let in without the key. Load the page again to give it.");
}

// --- the bar below the picture ---------------------------------------------------------------------------------------

async function takeSnapshot(event, query, suffix) {
  event.preventDefault();
  const button = event.currentTarget;
  if (button.classList.contains("busy") || button.getAttribute("aria-disabled") === "true") return;
  button.classList.add("busy");
  plots.expectOpening();
  const patience = new AbortController();
  const limit = setTimeout(() => patience.abort(new Error("the portal takes too long.")), STILL_LIMIT_MS);
  try {
    const answer = await fetch(address(`snapshot.jpg${query}`), { cache: "no-store", signal: patience.signal });
    clearTimeout(limit); // how long twelve million pixels take to come is the line's business
    if (!answer.ok) throw new Refusal(answer.status, await reason(answer));
    const href = URL.createObjectURL(await answer.blob());
    save(href, `snapshot-${fileStamp()}${suffix}.jpg`);
    setTimeout(() => URL.revokeObjectURL(href), 60000);
    picture.stage.classList.remove("flash");
    void picture.stage.offsetWidth; // begins the animation anew
    picture.stage.classList.add("flash");
  } catch (error) {
    say(`No snapshot: ${isAway(error) ? "the portal cannot be reached." : error.message}`, true);
  }
  button.classList.remove("busy");
}

$("snapshot").addEventListener("click", (event) => takeSnapshot(event, "", ""));
$("full").addEventListener("click", (event) => takeSnapshot(event, "?full=1", "-full"));

function showWay() {
  for (const radio of document.querySelectorAll("[name=way]")) radio.checked = radio.value === picture.choice;
  const way = { mp4: "MP4", webrtc: "WebRTC" }[picture.way] ?? (picture.query ? "MJPEG, small" : "MJPEG");
  write($("way-now"), picture.choice === "auto" ? `now ${way}` : "");
}

$("way-webrtc").hidden = !HAS_WEBRTC;
$("about-webrtc").hidden = HAS_WEBRTC;
for (const radio of document.querySelectorAll("[name=way]")) radio.addEventListener("change", () => picture.choose(radio.value));
for (const radio of document.querySelectorAll("[name=fit]")) {
  radio.checked = radio.value === picture.fit;
  radio.addEventListener("change", () => picture.setFit(radio.value));
}
$("turn").addEventListener("click", () => controls.set("transform", { rotation: ((lastStatus?.transform?.rotation ?? 0) + 90) % 360 }));
for (const side of ["hflip", "vflip"]) {
  $(side).addEventListener("click", () => controls.set("transform", { [side]: !lastStatus?.transform?.[side] }));
}
if (document.fullscreenEnabled) { // not on an iPhone
  $("fullscreen").hidden = false;
  $("fullscreen").addEventListener("click", () => (document.fullscreenElement ? document.exitFullscreen() : picture.stage.requestFullscreen()));
}
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
});
document.addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" && document.querySelector("details.menu[open]");
  if (!menu) return;
  menu.open = false;
  menu.querySelector("summary").focus();
});

// --- the panels ------------------------------------------------------------------------------------------------------

const tabs = [...document.querySelectorAll("[role=tab]")];

function choose(tab) {
  for (const each of tabs) {
    const isChosen = each === tab;
    each.setAttribute("aria-selected", String(isChosen));
    each.tabIndex = isChosen ? 0 : -1;
    $(each.getAttribute("aria-controls")).hidden = !isChosen;
  }
  keep("panel", tab.id);
  // The tabs stay in sight on a phone: what was chosen begins right below them, however far the other panel was scrolled.
  const above_px = $("tabs").getBoundingClientRect().bottom - $(tab.getAttribute("aria-controls")).getBoundingClientRect().top;
  if (above_px > 1) scrollBy(0, -above_px);
  if (tab.id === "tab-recordings") recordings.load();
  plots.draw();
}

for (const tab of tabs) {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", (event) => {
    const shown = tabs.filter((each) => each.offsetParent);
    const place = shown.indexOf(tab);
    const next = { ArrowRight: shown[place + 1] ?? shown[0], ArrowLeft: shown.at(place - 1), Home: shown[0], End: shown.at(-1) }[event.key];
    if (!next) return;
    event.preventDefault();
    choose(next);
    next.focus();
  });
}
// On a wide screen the curves lie below the picture, and their tab is gone.
const wide = matchMedia("(min-width: 75rem)");
function settle() {
  const chosen = tabs.find((tab) => tab.id === recall("panel", "tab-controls")) ?? tabs[0];
  choose(wide.matches && chosen.id === "tab-graphs" ? tabs[0] : chosen);
}
wide.addEventListener("change", settle);
settle();

// On a phone the picture stays in sight, and the tabs right below it.
new ResizeObserver(([entry]) => $("main").style.setProperty("--top", `${entry.target.offsetHeight}px`)).observe($("top"));

// --- beginning and end -----------------------------------------------------------------------------------------------

// A browser has six connections to a host: a hidden tab gives its own back.
document.addEventListener("visibilitychange", () => {
  if (isOut) return;
  if (document.hidden) {
    picture.stop();
    tell("wait", "paused");
    cover("paused", true);
  } else {
    plots.expectOpening();
    if (!wall.isShown) picture.start();
    askStatus();
  }
});
// A page that comes back out of the browser's store has none of its connections any more.
window.addEventListener("pagehide", () => picture.stop());
window.addEventListener("pageshow", (event) => event.persisted && askStatus());

showWay();
if (document.hidden) picture.stop();
else picture.start();
plots.expectOpening();
askStatus();
asking = setInterval(askStatus, STATUS_PERIOD_MS);
setInterval(showAge, AGE_PERIOD_MS);
wall.load();
