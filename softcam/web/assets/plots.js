// Graphs of the last minutes, the histogram of the image, and the list of events.

import { $, clock, el, exposure, figure, isKnown, write } from "./dom.js";

const KEPT_S = 300;
const MIN_SPAN_S = 60; // a graph that has just started spans one minute, not five
const MAX_EVENTS = 40;
const SHOWN_EVENTS = 12;
const HISTOGRAM_PERIOD_MS = 250;
const SAMPLE = [128, 72];
const BINS = 64;
const REPEAT_MS = 60000; // a repeated event within this time is counted in the same line
const OPENING_MS = 15000; // within this time an opening is attributed to this page's own request

// Name, id, value of a sample, its format, and the smallest range of the vertical axis.
const PLOTS = [
  ["Frame rate (camera)", "fps", (s) => s.status.fps, (v) => figure(v, "fps", 1), 4],
  ["Bandwidth", "bandwidth", (s) => s.bytes_s * 8e-6, (v) => figure(v, "Mbit/s", 1), 1],
  ["Brightness", "lux", (s) => s.status.lux, (v) => figure(v, "lux", v < 10 ? 1 : 0), 20],
  ["Exposure", "exposure", (s) => s.status.exposure_us, (v) => exposure(v), 2000],
  ["Gain", "gain", (s) => s.status.analogue_gain, (v) => figure(v, "×", 2), 0.5],
  ["Focus", "focus", (s) => s.status.lens_position, (v) => figure(v, "dpt", 2), 0.5],
];

export class Plots {
  #samples = [];
  #events = [];
  #previous = null;
  #tiles = [];
  #pointed = null;
  #histogram_ms = 0;
  #requested_ms = -Infinity;

  constructor(picture) {
    this.picture = picture;
    this.small = Object.assign(document.createElement("canvas"), { width: SAMPLE[0], height: SAMPLE[1] });
    this.#tiles = PLOTS.map(([name, id, valueOf, format, minRange]) => {
      const value = el("span", { class: "value" }, "–");
      const canvas = el("canvas", { role: "img" });
      const tile = el("figure", { class: "tile", id: `plot-${id}` }, el("figcaption", {}, el("span", { class: "label" }, name), value), canvas);
      canvas.addEventListener("pointermove", (event) => {
        this.#pointed = event.offsetX / canvas.clientWidth;
        this.draw();
      });
      canvas.addEventListener("pointerleave", () => {
        this.#pointed = null;
        this.draw();
      });
      return { name, valueOf, format, minRange, value, canvas, tile };
    });
    $("plots").append(...this.#tiles.map(({ tile }) => tile));
  }

  /** Called before this page does something that opens or reopens the camera. */
  expectOpening() {
    this.#requested_ms = performance.now();
  }

  /** Adds an event to the list and, unless this page caused it, a mark to every graph. */
  addEvent(text, isError = false, isOwn = false) {
    const last = this.#events[0];
    const isRepeat = last?.text === text && Date.now() - last.at_ms < REPEAT_MS;
    const times = isRepeat ? last.times + 1 : 1;
    // One line, but every mark stays.
    const marks_ms = [...(isRepeat ? last.marks_ms.slice(-MAX_EVENTS) : []), ...(isOwn ? [] : [Date.now()])];
    if (isRepeat) this.#events.shift();
    this.#events.unshift({ at_ms: Date.now(), text, isError, times, marks_ms });
    this.#events.length = Math.min(this.#events.length, MAX_EVENTS);
    $("events").replaceChildren(...this.#events.slice(0, SHOWN_EVENTS).map(({ at_ms, text, isError, times }) =>
      el("li", { class: isError ? "fault" : "" }, el("time", {}, clock(new Date(at_ms))), ` ${text}${times > 1 ? ` (${times} ×)` : ""}`)));
    $("no-events").hidden = true;
  }

  /** Adds the status of one second. */
  add(status, bytes_s) {
    this.#detectEvents(status);
    this.#addSample(status, bytes_s);
  }

  /** Adds a gap while the status is unknown. */
  addGap() {
    this.#addSample({}, NaN);
  }

  #addSample(status, bytes_s) {
    const at_ms = Date.now();
    this.#samples.push({ at_ms, status, bytes_s });
    while (at_ms - this.#samples[0].at_ms > KEPT_S * 1000) this.#samples.shift();
    this.draw();
  }

  #detectEvents(status) {
    const previous = this.#previous;
    this.#previous = status;
    if (!previous) return;
    const reason = status.last_error ? `: ${status.last_error}` : "";
    if (status.uptime_s < previous.uptime_s) this.addEvent("Portal restarted");
    else if (status.restarts > previous.restarts) this.addEvent(`Restarting the stream${reason}`, true);
    else if (status.opens > previous.opens) this.addEvent("Camera opened", false, performance.now() - this.#requested_ms < OPENING_MS);
    if (status.state === "recovering" && previous.state !== "recovering") this.addEvent(`Recovering the camera${reason}`, true);
    if (previous.state === "recovering" && status.state === "open") this.addEvent("Camera recovered");
    if (status.width !== previous.width && status.width && previous.width) this.addEvent(`Resolution changed to ${status.width} × ${status.height}`);
    if (status.scene_mode !== previous.scene_mode && status.scene_mode && previous.scene_mode) this.addEvent(`Scene changed to “${status.scene_mode.replace("_", " ")}”`);
  }

  draw() {
    if (!$("graphs").offsetParent) return;
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const colours = { line: colour("--accent"), grid: colour("--line"), error: colour("--bad"), event: colour("--muted"), text: colour("--text") };
    for (const tile of this.#tiles) this.#drawTile(tile, colours);
  }

  #drawTile({ name, valueOf, format, minRange, value, canvas }, colours) {
    const { context, width, height } = prepare(canvas);
    const now_ms = Date.now();
    const span_s = Math.min(KEPT_S, Math.max(MIN_SPAN_S, (now_ms - (this.#samples[0]?.at_ms ?? now_ms)) / 1000));
    const place = (at_ms) => 1 - (now_ms - at_ms) / (span_s * 1000);
    const points = this.#samples.map((sample) => [place(sample.at_ms), valueOf(sample)]);
    const known = points.filter(([, y]) => isKnown(y) && !Number.isNaN(y));
    const values = known.map(([, y]) => y);
    let low = Math.min(...values), high = Math.max(...values);
    const padding = Math.max(0, minRange - (high - low)) / 2;
    low = Math.max(low >= 0 ? 0 : -Infinity, low - padding);
    high = Math.max(high + padding, low + minRange);
    const toX = (x) => x * width, toY = (y) => height - 3 - ((y - low) / (high - low)) * (height - 6);
    context.strokeStyle = colours.grid;
    context.lineWidth = 1;
    context.beginPath();
    for (let minute = 1; minute < span_s / 60; minute += 1) {
      const x = Math.round(toX(1 - (minute * 60) / span_s)) + 0.5;
      context.moveTo(x, 0);
      context.lineTo(x, height);
    }
    context.stroke();
    for (const { at_ms, isError } of this.#events.flatMap(({ isError, marks_ms }) => marks_ms.map((at_ms) => ({ at_ms, isError })))) {
      const x = toX(place(at_ms));
      context.fillStyle = isError ? colours.error : colours.event;
      context.fillRect(x - 0.75, 0, 1.5, height);
      context.beginPath();
      context.moveTo(x - 4, 0);
      context.lineTo(x + 4, 0);
      context.lineTo(x, 6);
      context.fill();
    }
    if (!known.length) {
      write(value, "–");
      canvas.setAttribute("aria-label", `${name}: unknown`);
      return;
    }
    trace(context, points, toX, toY, height, colours.line);
    const now = known.at(-1) === points.at(-1) ? points.at(-1)[1] : null; // a past value is not shown as the current one
    const spot = this.#pointed === null ? null : known.reduce((best, each) => (Math.abs(each[0] - this.#pointed) < Math.abs(best[0] - this.#pointed) ? each : best));
    if (spot) {
      context.fillStyle = colours.text;
      context.fillRect(toX(spot[0]) - 0.5, 0, 1, height);
      context.beginPath();
      context.arc(toX(spot[0]), toY(spot[1]), 3, 0, 7);
      context.fill();
    }
    write(value, format(spot ? spot[1] : now) + (spot ? ` · ${Math.round((1 - spot[0]) * span_s)} s ago` : ""));
    canvas.setAttribute("aria-label", `${name}: ${isKnown(now) ? `now ${format(now)}` : "unknown now"}; in the last minutes ${format(Math.min(...values))} to ${format(Math.max(...values))}`);
  }

  // --- histogram

  /** Called after each new image; draws the histogram of some of them. */
  onPicture() {
    const now_ms = performance.now();
    if (now_ms - this.#histogram_ms < HISTOGRAM_PERIOD_MS || !$("histogram").offsetParent) return;
    this.#histogram_ms = now_ms;
    const context = (this.context ??= this.small.getContext("2d", { willReadFrequently: true }));
    context.drawImage(this.picture.source, 0, 0, ...SAMPLE);
    const { data } = context.getImageData(0, 0, ...SAMPLE);
    const bins = [0, 1, 2].map(() => new Float32Array(BINS));
    let dark = 0, bright = 0;
    for (let at = 0; at < data.length; at += 4) {
      for (let colour = 0; colour < 3; colour += 1) bins[colour][data[at + colour] >> 2] += 1;
      const brightest = Math.max(data[at], data[at + 1], data[at + 2]);
      if (brightest >= 253) bright += 1;
      else if (brightest <= 3) dark += 1;
    }
    this.#drawHistogram(bins);
    const percent = (count) => `${Math.round((100 * count) / (SAMPLE[0] * SAMPLE[1]))}%`;
    write($("clipped"), `Black ${percent(dark)} · white ${percent(bright)}`);
    $("histogram").setAttribute("aria-label", `Histogram of the image: ${percent(dark)} black, ${percent(bright)} white`);
  }

  #drawHistogram(bins) {
    const { context, width, height } = prepare($("histogram"));
    // The few highest bins are clipped: a single bright area would flatten all others.
    const sorted = bins.flatMap((each) => [...each]).sort((one, other) => other - one);
    const limit = Math.max(1, sorted[6]) * 1.1;
    const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
    context.globalCompositeOperation = isDark ? "screen" : "multiply";
    const colours = isDark ? ["#e5484d", "#30a46c", "#3b82f6"] : ["#ffb3ad", "#a8e6bf", "#b0cdfd"];
    bins.forEach((each, colour) => {
      context.fillStyle = colours[colour];
      context.beginPath();
      context.moveTo(0, height);
      each.forEach((count, bin) => context.lineTo(((bin + 0.5) / BINS) * width, height - Math.min(1, count / limit) * (height - 2)));
      context.lineTo(width, height);
      context.fill();
    });
    context.globalCompositeOperation = "source-over";
  }
}

/** Clears a canvas and sets its resolution to that of the screen. */
function prepare(canvas) {
  const width = canvas.clientWidth, height = canvas.clientHeight, ratio = devicePixelRatio;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** Draws the graph, interrupted where values are unknown, with a light fill below it. */
function trace(context, points, toX, toY, height, colour) {
  let run = [];
  const finish = () => {
    if (run.length) {
      context.beginPath();
      run.forEach(([x, y], place) => (place ? context.lineTo(toX(x), toY(y)) : context.moveTo(toX(x), toY(y))));
      context.strokeStyle = context.fillStyle = colour;
      context.lineWidth = 1.5;
      context.lineJoin = "round";
      context.stroke();
      context.lineTo(toX(run.at(-1)[0]), height);
      context.lineTo(toX(run[0][0]), height);
      context.globalAlpha = 0.12;
      context.fill();
      context.globalAlpha = 1;
    }
    run = [];
  };
  for (const [x, y] of points) {
    if (!isKnown(y) || Number.isNaN(y)) finish();
    else run.push([x, y]);
  }
  finish();
}
