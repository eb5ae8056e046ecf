// Recordings, time-lapses and stills: start, stop, look at, fetch, delete.

import { $, bytes, duration, el, figure, icon, isKnown, isSure, say, write } from "./dom.js";
import { address, ask, isAway, looksOnly, post } from "./portal.js";

const PLACE = "v1/recordings";
const PERIOD_MS = 3000;
const KINDS = { video: "Video", timelapse: "Time-lapse", still: "Still" };
const words = (error) => (isAway(error) ? "The portal cannot be reached." : error.message);

export class Recordings {
  #running = { video: null, timelapse: null };
  #shape = "";
  #asked_ms = -Infinity;
  #hasFolder = false;

  constructor() {
    $("record").addEventListener("click", () => this.#toggle("video"));
    $("record-video").addEventListener("click", () => this.#toggle("video"));
    $("record-timelapse").addEventListener("click", () => this.#toggle("timelapse"));
    $("keep-still").addEventListener("click", () => this.#still());
    $("player").addEventListener("close", () => $("player-stage").replaceChildren());
    $("player-close").addEventListener("click", () => $("player").close());
    for (const button of $("sure").querySelectorAll("button")) button.addEventListener("click", () => $("sure").close(button.value));
  }

  /** Once a second, with the status, which tells what is running. */
  update(status) {
    this.#hasFolder = isKnown(status.recording);
    $("record").hidden = !this.#hasFolder;
    $("recorder").hidden = !this.#hasFolder;
    $("no-recordings").hidden = this.#hasFolder;
    if (!this.#hasFolder) return;
    const before = this.#running;
    this.#running = { video: status.recording.video ?? null, timelapse: status.recording.timelapse ?? null };
    this.#showRunning();
    const hasChanged = ["video", "timelapse"].some((kind) => Boolean(before[kind]) !== Boolean(this.#running[kind]));
    if (hasChanged || ($("recordings").offsetParent && performance.now() - this.#asked_ms > PERIOD_MS)) this.load();
  }

  async load() {
    if (!this.#hasFolder) return;
    this.#asked_ms = performance.now();
    try {
      this.#showList(await ask(PLACE));
    } catch (error) {
      write($("recordings-trouble"), words(error));
      $("recordings-trouble").hidden = false;
    }
  }

  // --- what runs ---------------------------------------------------------------------------------------------------

  #showRunning() {
    const { video, timelapse } = this.#running;
    const told = video ? `${duration(video.elapsed_s)} · ${bytes(video.bytes)}` : "";
    for (const button of [$("record"), $("record-video")]) {
      button.setAttribute("aria-pressed", String(Boolean(video)));
      write(button.querySelector(".words"), video ? "Stop" : "Record");
      write(button.querySelector(".told"), told);
    }
    $("record-timelapse").setAttribute("aria-pressed", String(Boolean(timelapse)));
    write($("record-timelapse").querySelector(".words"), timelapse ? "Stop" : "Start");
    write($("record-timelapse").querySelector(".told"), timelapse ? `${timelapse.stills} pictures · ${duration(timelapse.elapsed_s)}` : "");
    for (const field of $("recorder").querySelectorAll("[data-of]")) field.disabled = Boolean(this.#running[field.dataset.of]);
  }

  async #toggle(kind) {
    const bad = !this.#running[kind] && [...$("recorder").querySelectorAll(`[data-of="${kind}"]`)].find((field) => !field.checkValidity());
    if (bad) return say(`${bad.closest("label").firstChild.data.trim()}: ${bad.validationMessage}`, true); // in its own unit
    const button = kind === "video" ? [$("record"), $("record-video")] : [$("record-timelapse")];
    button.forEach((each) => { each.disabled = true; });
    try {
      if (this.#running[kind]) {
        await post(`${PLACE}/stop`, { kind });
        this.#running[kind] = null;
        say(kind === "video" ? "The recording is kept" : "The time-lapse is kept");
      } else {
        const { recording } = await post(`${PLACE}/start`, { kind, ...this.#wishes(kind) });
        this.#running[kind] = recording;
        say(kind === "video" ? "Recording" : "The time-lapse has begun");
      }
      this.#showRunning();
      this.load();
    } catch (error) {
      say(words(error), true);
    }
    button.forEach((each) => { each.disabled = each.id === "record" && Boolean(looksOnly); });
  }

  /** What the fields say; those that are empty are left to the portal. */
  #wishes(kind) {
    const wishes = {};
    for (const field of $("recorder").querySelectorAll(`[data-of="${kind}"]`)) {
      if (field.type === "checkbox") { if (field.checked) wishes[field.name] = true; }
      else if (field.value !== "") wishes[field.name] = field.valueAsNumber * Number(field.dataset.times ?? 1);
    }
    return wishes;
  }

  async #still() {
    $("keep-still").disabled = true;
    try {
      await post(`${PLACE}/still`, $("still-full").checked ? { full: true } : {});
      say("The still is kept");
      this.load();
    } catch (error) {
      say(words(error), true);
    }
    $("keep-still").disabled = false;
  }

  // --- what there is -----------------------------------------------------------------------------------------------

  #showList({ recordings, used_bytes, max_bytes, free_bytes, last_error }) {
    $("recordings-trouble").hidden = !last_error;
    write($("recordings-trouble"), last_error ?? "");
    const most = max_bytes ?? (isKnown(free_bytes) ? used_bytes + free_bytes : null);
    write($("usage-words"), `${bytes(used_bytes)} used` + (isKnown(max_bytes) ? ` of ${bytes(max_bytes)}` : "") + (isKnown(free_bytes) ? `, ${bytes(free_bytes)} free` : ""));
    $("usage").hidden = !most;
    $("usage").max = most || 1;
    $("usage").value = used_bytes;
    $("recordings-none").hidden = recordings.length > 0;
    const shape = JSON.stringify(recordings.map(({ name, is_running, has_thumbnail }) => [name, is_running, has_thumbnail]));
    if (shape !== this.#shape) {
      this.#shape = shape;
      const list = $("recording-list");
      const focused = document.activeElement, had = focused?.closest?.(".recording");
      const place = [...list.children].indexOf(had);
      list.replaceChildren(...recordings.map((entry) => this.#entry(entry)));
      if (had) {
        // The same button of the same row; of a row that is gone, of the one that took its place.
        const rows = [...list.children];
        const row = rows.find((each) => each.dataset.name === had.dataset.name) ?? rows[place] ?? rows.at(-1);
        const kind = ["thumb", "delete"].find((each) => focused.classList.contains(each));
        (row?.querySelector(`.${kind}:enabled`) ?? row?.querySelector("button:enabled, a") ?? $("recordings")).focus();
      }
    }
    recordings.forEach((entry, place) => write($("recording-list").children[place].querySelector(".facts"), facts(entry)));
  }

  #entry(entry) {
    const { name, kind, began, is_running, has_thumbnail } = entry;
    const when = moment(new Date(began * 1000));
    const what = `${KINDS[kind]}, ${when}`;
    const path = `${PLACE}/${encodeURIComponent(name)}`;
    const picture = has_thumbnail ? el("img", { src: address(`${path}/thumbnail`), alt: "", loading: "lazy", width: 112, height: 63 }) : el("span", { class: "blank" });
    if (!has_thumbnail) picture.append(icon(kind === "still" ? "camera" : "film"));
    const look = el("button", { type: "button", class: "thumb", disabled: is_running, onclick: () => this.#play(entry, what), "aria-label": `${kind === "still" ? "Show" : "Play"}: ${what}` }, picture,
      kind === "still" ? null : el("span", { class: "length" }, is_running ? "●" : lasting(entry.duration_s)));
    return el("li", { class: "recording", "data-name": name }, look,
      el("div", {}, el("p", { class: "when" }, when), el("p", { class: "facts quiet" }, "")),
      el("div", { class: "buttons" },
        is_running ? el("span", { class: "running" }, "running") : el("a", { class: "bare", href: address(`${path}?download=1`), download: name, "aria-label": `Download: ${what}`, title: "Download" }, icon("download")),
        is_running ? null : el("button", { type: "button", class: "bare delete", "aria-label": `Delete: ${what}`, title: "Delete", onclick: () => this.#delete(entry, what) }, icon("trash"))));
  }

  #play({ name, kind }, what) {
    const src = address(`${PLACE}/${encodeURIComponent(name)}`);
    $("player-stage").replaceChildren(kind === "still" ? el("img", { src, alt: what })
      : el("video", { src, controls: true, autoplay: true, playsInline: true, "aria-label": what, onerror: () => say("The browser cannot play this recording; download it instead.", true) }));
    write($("player-title"), what);
    $("player-download").href = `${src}?download=1`;
    $("player-download").download = name;
    $("player").showModal();
  }

  async #delete({ name }, what) {
    if (!(await isSure("Delete this?", `${what}. It cannot be brought back.`, "Delete"))) return;
    try {
      await ask(`${PLACE}/${encodeURIComponent(name)}`, { method: "DELETE" });
      say("Deleted");
    } catch (error) {
      say(words(error), true);
    }
    this.load();
  }
}

const lasting = (seconds) => (seconds < 10 ? figure(seconds, "s", 1) : duration(seconds));

/** The year goes without saying while it lasts. */
function moment(date) {
  const year = date.getFullYear() === new Date().getFullYear() ? {} : { year: "numeric" };
  return date.toLocaleString([], { ...year, month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
}

function facts({ kind, bytes: size, width, height, name }) {
  const shape = isKnown(width) ? `${width} × ${height}` : "";
  return [KINDS[kind] ?? name, shape, bytes(size)].filter(Boolean).join(" · ");
}
