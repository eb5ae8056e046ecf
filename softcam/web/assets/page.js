// The entry point of the page: assembles the modules, polls the status once a second, and shows the state. An outdated
// image is always marked as such.

import { Controls } from "./controls.js";
import { $, clock, exposure, figure, fileStamp, isKnown, loadChoice, notify, save, storeChoice, write } from "./dom.js";
import { Picture } from "./picture.js";
import { PERIOD_MS } from "./snapshots.js";
import { Log } from "./log.js";
import { Machine } from "./machine.js";
import { Plots } from "./plots.js";
import { HttpError, address, errorDetail, errorText, getJson, isUnreachable, readOnlyReason } from "./portal.js";
import { Presets } from "./presets.js";
import { Recordings } from "./recordings.js";
import { Links } from "./links.js";
import { Wall } from "./wall.js";
import { HAS_WEBRTC } from "./transports.js";
import { Zoom } from "./zoom.js";

const STATUS_PERIOD_MS = 1000; // also the interval at which a broken stream is reconnected
const CONTROLS_PERIOD_MS = 2000;
const AGE_PERIOD_MS = 200;
const STALL_MS = 2000;
const SNAPSHOT_TIMEOUT_MS = 40000; // until the response starts: long exposures take three times as long
const PASSWORD_TIMEOUT_MS = 60000; // while the browser asks for the key
const FILE_STEM = $("snapshot").download.replace(/\.jpg$/, "");
const ERROR_SHOWN_MS = 60000; // an error is shown for this long after it is over
const OPENING = {
  closed: "Camera closed", opening: "Opening the camera", open: "Waiting for an image",
  lingering: "Waiting for an image", closing: "Closing the camera",
};

const picture = new Picture({
  picture: () => {
    zoom.onPicture();
    plots.onPicture();
    if (lastStatus && isAvailable(lastStatus)) updateState(lastStatus);
  },
  transport: showTransport,
  layout: () => zoom.render(),
});
const zoom = new Zoom(picture);
const plots = new Plots(picture);
const controls = new Controls(() => updateStatus(), () => plots.expectOpening());
const recordings = new Recordings();
const links = new Links();
const log = new Log();
const machine = new Machine();
const presets = new Presets(() => {
  controls.load().then(updateStatus, () => {});
}, () => plots.expectOpening());
const wall = new Wall(() => {
  if (wall.isShown) picture.stop();
  else picture.start();
  updateStatus();
});

let lastStatus = null; // of the last response; null while the portal cannot be reached
let isUpdating = false;
let wasUnreachable = false;
let lastProblem = ""; // reported by the portal before it became unreachable
let isUnauthorized = false;
let version = null;
let shownError = null; // the last error: its text, and when it was first seen
let controls_ms = -Infinity;
let statusTimer = 0;

// --- state

function showState(kind, text) {
  if ($("state").dataset.state !== kind) $("state").dataset.state = kind;
  write($("state"), text);
}

/** Shows a text over the picture; `isUnavailable` if the picture is not valid. */
function showNotice(text, isUnavailable = false) {
  $("notice").hidden = !text;
  write($("notice"), text);
  picture.stage.classList.toggle("unavailable", isUnavailable);
}

function showLost(text, reason) {
  showState("lost", text);
  showNotice(reason, true);
}

const isAvailable = (status) => status.available && status.state !== "recovering" && status.state !== "missing";

/** From this age on, the image is marked as old: a long exposure is not a stall. */
function staleAfter(status) {
  // The measured rate drops while no frames arrive; the frame duration is the better reference.
  const frame_ms = status.frame_duration_us ? status.frame_duration_us / 1000 : 1000 / (status.fps || 1);
  return Math.max(picture.stale_ms, 2.5 * frame_ms);
}

function updateState(status) {
  if (document.hidden) return;
  if (wall.isShown) showState(isAvailable(status) ? "live" : "lost", isAvailable(status) ? "All cameras" : "Camera unavailable");
  else if (status.state === "recovering") {
    showState("lost", "Recovering the camera");
    showNotice("Reconnecting to the camera …", true); // the stream says so too, in an image that is too small on a phone
  } else if (!isAvailable(status)) showLost(status.state === "missing" ? "Camera missing" : "Camera unavailable", `${problemOf(status)}.`);
  else if (picture.isShown) {
    const isStale = picture.age_ms > staleAfter(status);
    const live = picture.transport === "snapshots" ? "Snapshots" : "Live";
    showState(isStale ? "wait" : "live", isStale ? "No new image" : live);
    showNotice("");
  } else {
    showState("wait", OPENING[status.state] ?? status.state);
    showNotice(picture.transport === "webrtc" && picture.error ? `WebRTC failed: ${picture.error.message} Retrying …` : `${$("state").textContent} …`);
  }
}

/** Shows the age of the picture; several times a second, independent of any response of the portal. */
function showAge() {
  const { age_ms } = picture;
  const isStale = age_ms > (lastStatus ? staleAfter(lastStatus) : picture.stale_ms);
  $("age").hidden = !isStale;
  if (isStale) write($("age"), `${(age_ms / 1000).toFixed(age_ms < 10000 ? 1 : 0)} s old`);
  picture.stage.classList.toggle("stale", isStale);
  if (lastStatus && isStale && isAvailable(lastStatus)) updateState(lastStatus);
}

/** Why the camera is unavailable. */
const problemOf = ({ state, last_error }) =>
  state === "missing" ? "The camera is missing" : `No image: ${last_error || "the camera is not available"}`;

function currentProblem(status) {
  if (status.state !== "recovering" && !isAvailable(status) && status.last_error) return problemOf(status);
  return status.state === "recovering" || picture.age_ms > Math.max(STALL_MS, staleAfter(status)) ? "The camera delivers no images" : "";
}

/** Clears all values: they may have changed. */
function clearStatus() {
  lastStatus = null;
  picture.stop();
  machine.clear();
  for (const fact of document.querySelectorAll("#facts dd")) write(fact, "–");
  document.body.classList.add("offline");
}

function showFacts(status) {
  write($("name"), status.name);
  $("name").title = status.camera ?? "";
  document.title = status.name;
  const facts = {
    size: isKnown(status.width) ? `${status.width} × ${status.height}` : "–",
    fps: picture.isShown ? `${picture.fps.toFixed(1)} fps` : "–",
    bandwidth: picture.isShown && picture.transport !== "hls" ? figure(picture.bytes_s * 8e-6, "Mbit/s", 1) : "–",
    exposure: exposure(status.exposure_us), gain: figure(status.analogue_gain, "×", 1),
    brightness: figure(status.lux, "lux", status.lux < 10 ? 1 : 0), colour: figure(status.colour_temperature, "K", 0),
    viewers: String(status.viewers),
  };
  for (const [name, value] of Object.entries(facts)) write($(`fact-${name}`), value);
  showError(status);
  if (version && version !== status.version) $("updated").hidden = false;
  version ??= status.version;
}

/** Shows an error that occurred while the page is open, while it lasts and for one more minute. */
function showError({ last_error, restarts, state, backend }) {
  if (picture.transport === "snapshots") {
    $("last-error").hidden = false;
    write($("last-error"), `Snapshots every ${PERIOD_MS / 1000} s in place of the stream: ${picture.error?.message}`);
    shownError = null;
    return;
  }
  const isLasting = state === "recovering" || state === "missing";
  const text = last_error && backend ? last_error + (restarts ? ` (${restarts} restart${restarts > 1 ? "s" : ""})` : "") : "";
  if (text !== shownError?.text) shownError = { text, date: new Date(), until_ms: shownError || isLasting ? performance.now() + ERROR_SHOWN_MS : 0 };
  const isShown = text && (isLasting || performance.now() < shownError.until_ms);
  $("last-error").hidden = !isShown;
  write($("last-error"), isShown ? `${clock(shownError.date)} ${text}` : "");
}

/** Disables what cannot work: all changes for a read-only client, and all but saved recordings without a camera. */
function lock(isDisabled) {
  const isLocked = isDisabled || Boolean(readOnlyReason);
  for (const part of document.querySelectorAll("fieldset.changes")) part.disabled = isLocked;
  if (isLocked || document.body.classList.contains("locked")) $("record").disabled = isLocked;
  document.body.classList.toggle("locked", isLocked);
  for (const link of [$("snapshot"), $("full")]) link.setAttribute("aria-disabled", String(isDisabled));
  document.body.classList.toggle("read-only", Boolean(readOnlyReason));
  $("read-only").hidden = !readOnlyReason;
  write($("read-only"), readOnlyReason ? `${readOnlyReason[0].toUpperCase()}${readOnlyReason.slice(1)}.` : "");
}

document.addEventListener("readonly", () => lock(Boolean(lastStatus) && isCameraDisabled(lastStatus)));

/** A camera that is disabled by configuration stays so until the portal is restarted. */
const isCameraDisabled = (status) => !status.backend;

// --- status

/**
 * While the portal cannot be reached, requests are sent without credentials: otherwise the browser could ask for the
 * password at every retry, since a proxy responds with 401 before the portal is back.
 */
async function fetchStatus() {
  const path = "v1/camera/status";
  try {
    return await getJson(path, { credentials: wasUnreachable ? "omit" : "same-origin" });
  } catch (error) {
    if (error.status !== 401 || !wasUnreachable) throw error;
    return getJson(path, { timeout_ms: PASSWORD_TIMEOUT_MS }); // with the stored key; the browser asks if it is wrong
  }
}

async function updateStatus() {
  if (document.hidden || isUpdating || isUnauthorized) return;
  isUpdating = true;
  try {
    const status = await fetchStatus();
    if (wasUnreachable) plots.addEvent("Connection to the portal restored");
    wasUnreachable = false;
    lastStatus = status;
    document.body.classList.remove("offline");
    picture.update(status.fps, isAvailable(status) && status.state !== "opening");
    picture.rotate(status.transform?.rotation ?? 0);
    zoom.update(status, controls.groups);
    controls.update(status);
    recordings.update(status);
    links.update(status);
    machine.update();
    showFacts(status);
    lock(isCameraDisabled(status));
    plots.add(status, picture.isShown ? picture.bytes_s : NaN);
    updateState(status);
    lastProblem = currentProblem(status) || (picture.isShown ? "" : lastProblem);
    if (!wall.isShown && !isCameraDisabled(status)) picture.start();
    updateControls(status);
  } catch (error) {
    if (error.status === 401) showUnauthorized();
    else {
      if (isUnreachable(error) && !wasUnreachable) plots.addEvent("Connection to the portal lost", true);
      wasUnreachable = isUnreachable(error);
      clearStatus();
      plots.addGap();
      // A portal whose camera is missing exits, and is started again with it.
      const problem = lastProblem ? `${lastProblem}. ` : "";
      showLost("No connection", wasUnreachable ? `${problem}The portal cannot be reached. Retrying …` : error.message);
    }
  } finally {
    isUpdating = false;
  }
}

/** Loads the controls periodically while they are visible, and until the camera's capabilities are known. */
async function updateControls(status) {
  const isNeeded = $("controls").offsetParent || !controls.isKnown;
  const period_ms = controls.isKnown ? CONTROLS_PERIOD_MS : 0;
  if (!isNeeded || !status.backend || performance.now() - controls_ms < period_ms) return;
  controls_ms = performance.now();
  await controls.load().then((groups) => zoom.update(status, groups), () => {});
  presets.update();
}

function showUnauthorized() {
  isUnauthorized = true;
  clearStatus();
  clearInterval(statusTimer);
  showLost("Key required", "Authentication required. Reload the page to enter the key.");
}

// --- actions

async function takeSnapshot(event, query, suffix) {
  event.preventDefault();
  const button = event.currentTarget;
  if (button.classList.contains("busy") || button.getAttribute("aria-disabled") === "true") return;
  button.classList.add("busy");
  plots.expectOpening();
  const timeout = new AbortController();
  const timer = setTimeout(() => timeout.abort(new Error("timed out waiting for the portal.")), SNAPSHOT_TIMEOUT_MS);
  try {
    const response = await fetch(address(`snapshot.jpg${query}`), { cache: "no-store", signal: timeout.signal });
    clearTimeout(timer); // the download itself may take long on a slow line
    if (!response.ok) throw new HttpError(response.status, await errorDetail(response));
    const href = URL.createObjectURL(await response.blob());
    save(href, `${FILE_STEM}-${fileStamp()}${suffix}.jpg`);
    setTimeout(() => URL.revokeObjectURL(href), 60000);
    picture.stage.classList.remove("flash");
    void picture.stage.offsetWidth; // restarts the animation
    picture.stage.classList.add("flash");
  } catch (error) {
    notify(`Snapshot failed: ${errorText(error)}`, true);
  }
  button.classList.remove("busy");
}

$("snapshot").addEventListener("click", (event) => takeSnapshot(event, "", ""));
$("full").addEventListener("click", (event) => takeSnapshot(event, "?full=1", "-full"));

function showTransport() {
  for (const radio of document.querySelectorAll("[name=transport]")) radio.checked = radio.value === picture.choice;
  write($("transport-now"), picture.choice === picture.way ? "" : `now ${picture.label}`);
}

$("transport-webrtc").hidden = !HAS_WEBRTC;
$("about-webrtc").hidden = HAS_WEBRTC;
for (const radio of document.querySelectorAll("[name=transport]")) radio.addEventListener("change", () => picture.choose(radio.value));
for (const radio of document.querySelectorAll("[name=fit]")) {
  radio.checked = radio.value === picture.fit;
  radio.addEventListener("change", () => picture.setFit(radio.value));
}
$("rotate").addEventListener("click", () => controls.set("transform", { rotation: ((lastStatus?.transform?.rotation ?? 0) + 90) % 360 }));
for (const side of ["hflip", "vflip"]) {
  $(side).addEventListener("click", () => controls.set("transform", { [side]: !lastStatus?.transform?.[side] }));
}
if (document.fullscreenEnabled) { // not supported on iPhones
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

// --- panels

const tabs = [...document.querySelectorAll("[role=tab]")];

function selectTab(tab) {
  for (const each of tabs) {
    const isSelected = each === tab;
    each.setAttribute("aria-selected", String(isSelected));
    each.tabIndex = isSelected ? 0 : -1;
    $(each.getAttribute("aria-controls")).hidden = !isSelected;
  }
  storeChoice("panel", tab.id);
  // On a phone the tabs stay visible: scroll so that the selected panel starts right below them.
  const above_px = $("tabs").getBoundingClientRect().bottom - $(tab.getAttribute("aria-controls")).getBoundingClientRect().top;
  if (above_px > 1) scrollBy(0, -above_px);
  if (tab.id === "tab-recordings") recordings.load();
  if (tab.id === "tab-log") log.open();
  else log.close();
  plots.draw();
}

for (const tab of tabs) {
  tab.addEventListener("click", () => selectTab(tab));
  tab.addEventListener("keydown", (event) => {
    const shown = tabs.filter((each) => each.offsetParent);
    const index = shown.indexOf(tab);
    const next = { ArrowRight: shown[index + 1] ?? shown[0], ArrowLeft: shown.at(index - 1), Home: shown[0], End: shown.at(-1) }[event.key];
    if (!next) return;
    event.preventDefault();
    selectTab(next);
    next.focus();
  });
}
// On a wide screen the graphs are below the picture and have no tab.
const wide = matchMedia("(min-width: 75rem)");
function selectInitialTab() {
  const stored = tabs.find((tab) => tab.id === loadChoice("panel", "tab-controls")) ?? tabs[0];
  selectTab(wide.matches && stored.id === "tab-graphs" ? tabs[0] : stored);
}
wide.addEventListener("change", selectInitialTab);
selectInitialTab();

// On a phone the picture stays visible, with the tabs right below it.
new ResizeObserver(([entry]) => $("main").style.setProperty("--top", `${entry.target.offsetHeight}px`)).observe($("top"));

// --- start and end

// A browser opens at most six connections to a host: a hidden tab releases its stream.
document.addEventListener("visibilitychange", () => {
  if (isUnauthorized) return;
  if (document.hidden) {
    picture.stop();
    log.close();
    showState("wait", "Paused");
    showNotice("Paused", true);
  } else {
    plots.expectOpening();
    if (!wall.isShown) picture.start();
    if ($("log").offsetParent) log.open();
    updateStatus();
  }
});
// A page restored from the back/forward cache has no connections.
window.addEventListener("pagehide", () => {
  picture.stop();
  log.close();
});
window.addEventListener("pageshow", (event) => event.persisted && updateStatus());

showTransport();
if (document.hidden) picture.stop();
else picture.start();
plots.expectOpening();
updateStatus();
statusTimer = setInterval(updateStatus, STATUS_PERIOD_MS);
setInterval(showAge, AGE_PERIOD_MS);
wall.load();
