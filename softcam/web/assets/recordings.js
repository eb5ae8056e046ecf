// Recordings, time-lapses and photos: start, stop, show, download, delete.

import { $, bytes, confirmed, duration, el, figure, icon, isKnown, notify, write } from "./dom.js";
import { address, errorText, getJson, postJson, readOnlyReason } from "./portal.js";

const PATH = "v1/recordings";
const PERIOD_MS = 3000;
const PAGE = 100, MOST = 1000; // recordings
const DAY_S = 86400;
const KINDS = { video: "Video", timelapse: "Time-lapse", still: "Photo" };

export class Recordings {
  #running = { video: null, timelapse: null };
  #shape = "";
  #loaded_ms = -Infinity;
  #hasFolder = false;
  #limit = PAGE;

  constructor() {
    $("record").addEventListener("click", () => this.#toggle("video"));
    $("record-video").addEventListener("click", () => this.#toggle("video"));
    $("record-timelapse").addEventListener("click", () => this.#toggle("timelapse"));
    $("save-photo").addEventListener("click", () => this.#savePhoto());
    for (const field of [$("shown-kind"), $("shown-day")]) field.addEventListener("change", () => this.#select(PAGE));
    $("show-older").addEventListener("click", () => this.#select(Math.min(this.#limit + PAGE, MOST)));
    $("player").addEventListener("close", () => $("player-stage").replaceChildren());
    $("player-close").addEventListener("click", () => $("player").close());
  }

  /** Called once a second with the status, which contains the running recordings. */
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
    if (hasChanged || ($("recordings").offsetParent && performance.now() - this.#loaded_ms > PERIOD_MS)) this.load();
  }

  async load() {
    if (!this.#hasFolder) return;
    this.#loaded_ms = performance.now();
    try {
      const query = this.#query();
      const content = await getJson(`${PATH}?${query}`);
      if (query === this.#query()) this.#showList(content);
    } catch (error) {
      write($("recordings-error"), errorText(error));
      $("recordings-error").hidden = false;
    }
  }

  // --- recording

  #showRunning() {
    const { video, timelapse } = this.#running;
    for (const id of ["record", "record-video"]) showButton($(id), "Record", video, (run) => `${duration(run.elapsed_s)} · ${bytes(run.bytes)}`);
    showButton($("record-timelapse"), "Start", timelapse, (run) => `${run.stills} photos · ${duration(run.elapsed_s)}`);
    const paused = [["Recording", video], ["Time-lapse", timelapse]].filter(([, running]) => running?.paused);
    $("recording-paused").hidden = !paused.length;
    write($("recording-paused"), paused.map(([kind, running]) => `${kind} paused: ${running.paused}`).join("\n"));
    const resumed = [video, timelapse].find((running) => isKnown(running?.interrupted));
    $("recordings-resumed").hidden = !resumed;
    write($("recordings-resumed"), resumed ? `Resumed after a restart; interrupted ${formatDate(new Date(resumed.interrupted * 1000))}` : "");
    for (const field of $("recorder").querySelectorAll("[data-of]")) field.disabled = Boolean(this.#running[field.dataset.of]);
  }

  async #toggle(kind) {
    const invalid = !this.#running[kind] && [...$("recorder").querySelectorAll(`[data-of="${kind}"]`)].find((field) => !field.checkValidity());
    if (invalid) return notify(`${invalid.closest("label").firstChild.data.trim()}: ${invalid.validationMessage}`, true); // in the unit of the field
    const button = kind === "video" ? [$("record"), $("record-video")] : [$("record-timelapse")];
    button.forEach((each) => { each.disabled = true; });
    try {
      if (this.#running[kind]) {
        await postJson(`${PATH}/stop`, { kind });
        this.#running[kind] = null;
        notify(kind === "video" ? "Recording saved" : "Time-lapse saved");
      } else {
        const { recording } = await postJson(`${PATH}/start`, { kind, ...this.#options(kind) });
        this.#running[kind] = recording;
        notify(kind === "video" ? "Recording started" : "Time-lapse started");
      }
      this.#showRunning();
      this.load();
    } catch (error) {
      notify(errorText(error), true);
    }
    button.forEach((each) => { each.disabled = each.id === "record" && Boolean(readOnlyReason); });
  }

  /** The values of the fields; the portal has defaults for empty ones. */
  #options(kind) {
    const options = {};
    for (const field of $("recorder").querySelectorAll(`[data-of="${kind}"]`)) {
      if (field.type === "checkbox") { if (field.checked) options[field.name] = true; }
      else if (field.value !== "") options[field.name] = field.valueAsNumber * Number(field.dataset.times ?? 1);
    }
    return options;
  }

  async #savePhoto() {
    $("save-photo").disabled = true;
    try {
      await postJson(`${PATH}/still`, $("photo-full").checked ? { full: true } : {});
      notify("Photo saved");
      this.load();
    } catch (error) {
      notify(errorText(error), true);
    }
    $("save-photo").disabled = false;
  }

  #select(limit) {
    this.#limit = limit;
    this.load();
  }

  /** Days are local ones. */
  #query() {
    const query = new URLSearchParams({ limit: this.#limit });
    if ($("shown-kind").value) query.set("kind", $("shown-kind").value);
    const day = $("shown-day").value;
    if (day) {
      const after_s = new Date(`${day}T00:00`).getTime() / 1000;
      const next = new Date((after_s + 1.5 * DAY_S) * 1000).setHours(0, 0, 0, 0); // a day has 23 to 25 hours
      query.set("after", Math.max(0, after_s));
      query.set("before", Math.max(0, next / 1000));
    }
    return String(query);
  }

  // --- list

  #showList({ recordings, total, used_bytes, max_bytes, free_bytes, last_error }) {
    $("recordings-error").hidden = !last_error;
    write($("recordings-error"), last_error ?? "");
    const capacity = max_bytes ?? (isKnown(free_bytes) ? used_bytes + free_bytes : null);
    write($("usage-text"), `${bytes(used_bytes)} used` + (isKnown(max_bytes) ? ` of ${bytes(max_bytes)}` : "") + (isKnown(free_bytes) ? `, ${bytes(free_bytes)} free` : ""));
    $("usage").hidden = !capacity;
    $("usage").max = capacity || 1;
    $("usage").value = used_bytes;
    $("recordings-empty").hidden = recordings.length > 0;
    write($("recordings-empty"), $("shown-kind").value || $("shown-day").value ? "No recordings of this kind and day." : "No recordings yet.");
    $("show-older").hidden = recordings.length >= Math.min(total, MOST);
    const shape = JSON.stringify(recordings.map(({ name, is_running, has_thumbnail, keep }) => [name, is_running, has_thumbnail, keep]));
    if (shape !== this.#shape) {
      this.#shape = shape;
      const list = $("recording-list");
      const focused = document.activeElement, had = focused?.closest?.(".recording");
      const place = [...list.querySelectorAll(".recording")].indexOf(had);
      list.replaceChildren(...this.#byDay(recordings));
      if (had) {
        // Focus the same button of the same row, or of the row that took its place.
        const rows = [...list.querySelectorAll(".recording")];
        const row = rows.find((each) => each.dataset.name === had.dataset.name) ?? rows[place] ?? rows.at(-1);
        const kind = ["thumb", "keep", "delete"].find((each) => focused.classList.contains(each));
        (row?.querySelector(`.${kind}:enabled`) ?? row?.querySelector("button:enabled, a") ?? $("recordings")).focus();
      }
    }
    const texts = $("recording-list").querySelectorAll(".facts");
    recordings.forEach((entry, place) => write(texts[place], facts(entry)));
  }

  /** The rows, with a heading before the first one of each day if there are several days. */
  #byDay(recordings) {
    const days = recordings.map(({ began }) => formatDay(new Date(began * 1000)));
    const hasDays = days.some((day) => day !== days[0]);
    return recordings.flatMap((entry, place) => {
      const row = this.#entry(entry);
      return hasDays && days[place] !== days[place - 1] ? [el("li", { class: "day" }, days[place]), row] : [row];
    });
  }

  #entry(entry) {
    const { name, kind, began, is_running, has_thumbnail, keep } = entry;
    const when = formatDate(new Date(began * 1000));
    const what = `${KINDS[kind]}, ${when}`;
    const path = `${PATH}/${encodeURIComponent(name)}`;
    const picture = has_thumbnail ? el("img", { src: address(`${path}/thumbnail`), alt: "", loading: "lazy", width: 112, height: 63 }) : el("span", { class: "blank" });
    if (!has_thumbnail) picture.append(icon(kind === "still" ? "camera" : "film"));
    const thumbnail = el("button", { type: "button", class: "thumb", disabled: is_running, onclick: () => this.#play(entry, what), "aria-label": `${kind === "still" ? "Show" : "Play"}: ${what}` }, picture,
      kind === "still" ? null : el("span", { class: "length" }, is_running ? "●" : formatLength(entry.duration_s)));
    return el("li", { class: "recording", "data-name": name }, thumbnail,
      el("div", {}, el("p", { class: "when" }, when), el("p", { class: "facts muted" }, "")),
      el("div", { class: "buttons" },
        is_running ? el("span", { class: "running" }, "Recording") : el("a", { class: "icon-button", href: address(`${path}?download=1`), download: name, "aria-label": `Download: ${what}`, title: "Download" }, icon("download")),
        el("button", { type: "button", class: "icon-button keep", "aria-pressed": String(keep), "aria-label": `Keep: ${what}`, title: "Keep: not deleted to free space", onclick: () => this.#keep(entry) }, icon("keep")),
        is_running ? null : el("button", { type: "button", class: "icon-button delete", "aria-label": `Delete: ${what}`, title: "Delete", onclick: () => this.#delete(entry, what) }, icon("trash"))));
  }

  #play({ name, kind }, what) {
    const src = address(`${PATH}/${encodeURIComponent(name)}`);
    $("player-stage").replaceChildren(kind === "still" ? el("img", { src, alt: what })
      : el("video", { src, controls: true, autoplay: true, playsInline: true, "aria-label": what, onerror: () => notify("This browser cannot play the recording. Download it instead.", true) }));
    write($("player-title"), what);
    $("player-download").href = `${src}?download=1`;
    $("player-download").download = name;
    $("player").showModal();
  }

  async #keep({ name, keep }) {
    try {
      await postJson(`${PATH}/${encodeURIComponent(name)}/keep`, { keep: !keep });
    } catch (error) {
      notify(errorText(error), true);
    }
    this.load();
  }

  async #delete({ name }, what) {
    if (!(await confirmed("Delete this recording?", `${what}. This cannot be undone.`, "Delete"))) return;
    try {
      await getJson(`${PATH}/${encodeURIComponent(name)}`, { method: "DELETE" });
      notify("Deleted");
    } catch (error) {
      notify(errorText(error), true);
    }
    this.load();
  }
}

/** Shows on a button whether a recording runs, and what `describe` returns for it, or that it is paused. */
function showButton(button, start, running, describe) {
  button.setAttribute("aria-pressed", String(Boolean(running)));
  button.classList.toggle("paused", Boolean(running?.paused));
  write(button.querySelector(".text"), running ? "Stop" : start);
  write(button.querySelector(".detail"), !running ? "" : running.paused ? "Paused" : describe(running));
}

const formatLength = (seconds) => (seconds < 10 ? figure(seconds, "s", 1) : duration(seconds));

/** Date and time, without the year if it is the current one. */
function formatDate(date) {
  const year = date.getFullYear() === new Date().getFullYear() ? {} : { year: "numeric" };
  return date.toLocaleString([], { ...year, month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
}

const formatDay = (date) => date.toLocaleDateString([], { weekday: "long", year: "numeric", month: "long", day: "numeric" });

function facts({ kind, bytes: size, width, height, name }) {
  const shape = isKnown(width) ? `${width} × ${height}` : "";
  return [KINDS[kind] ?? name, shape, bytes(size)].filter(Boolean).join(" · ");
}
