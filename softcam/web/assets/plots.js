// Curves of the last minutes, the histogram of the picture, and what happened meanwhile; each a small canvas.

import { $, clock, el, exposure, figure, isKnown, write } from "./dom.js";

const KEPT_S = 300;
const LEAST_S = 60; // a curve that has just begun is not drawn on the width of five minutes
const MOST_EVENTS = 40;
const SHOWN_EVENTS = 12;
const HISTOGRAM_PERIOD_MS = 250;
const SAMPLE = [128, 72];
const BINS = 64;
const SAME_MS = 60000; // what happens again so soon is counted in its line
const OPENING_MS = 15000; // an opening that comes so soon after this page asked for one is its own

// Name, id, what of a sample, how it is told, and the least span that is worth a whole plot's height.
const PLOTS = [
  ["Frame rate", "fps", (s) => s.status.fps, (v) => figure(v, "fps", 1), 4],
  ["Line", "bandwidth", (s) => s.bytes_s * 8e-6, (v) => figure(v, "Mbit/s", 1), 1],
  ["Light", "lux", (s) => s.status.lux, (v) => figure(v, "lux", v < 10 ? 1 : 0), 20],
  ["Exposure", "exposure", (s) => s.status.exposure_us, (v) => exposure(v), 2000],
  ["Gain", "gain", (s) => s.status.analogue_gain, (v) => figure(v, "×", 2), 0.5],
  ["Focus", "focus", (s) => s.status.lens_position, (v) => figure(v, "dpt", 2), 0.5],
];

export class Plots {
  #samples = [];
  #events = [];
  #before = null;
  #tiles = [];
  #pointed = null;
  #drawn_ms = 0;
  #asked_ms = -Infinity;

  constructor(picture) {
    this.picture = picture;
    this.small = Object.assign(document.createElement("canvas"), { width: SAMPLE[0], height: SAMPLE[1] });
    this.#tiles = PLOTS.map(([name, id, of, told, least]) => {
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
      return { name, of, told, least, value, canvas, tile };
    });
    $("plots").append(...this.#tiles.map(({ tile }) => tile));
  }

  /** This page does something that opens the camera, or opens it anew. */
  expectOpening() {
    this.#asked_ms = performance.now();
  }

  /** Something worth a line, and unless this page did it, a mark on every plot. */
  mark(words, isFault = false, isOwn = false) {
    const last = this.#events[0];
    const isAgain = last?.words === words && Date.now() - last.at_ms < SAME_MS;
    const times = isAgain ? last.times + 1 : 1;
    // One line, but the marks stay where they were.
    const marks_ms = [...(isAgain ? last.marks_ms.slice(-MOST_EVENTS) : []), ...(isOwn ? [] : [Date.now()])];
    if (isAgain) this.#events.shift();
    this.#events.unshift({ at_ms: Date.now(), words, isFault, times, marks_ms });
    this.#events.length = Math.min(this.#events.length, MOST_EVENTS);
    $("events").replaceChildren(...this.#events.slice(0, SHOWN_EVENTS).map(({ at_ms, words, isFault, times }) =>
      el("li", { class: isFault ? "fault" : "" }, el("time", {}, clock(new Date(at_ms))), ` ${words}${times > 1 ? ` (${times} ×)` : ""}`)));
    $("no-events").hidden = true;
  }

  /** One second's worth. */
  add(status, bytes_s) {
    this.#notice(status);
    this.#keep(status, bytes_s);
  }

  /** Nothing is known: a gap. */
  gap() {
    this.#keep({}, NaN);
  }

  #keep(status, bytes_s) {
    const at_ms = Date.now();
    this.#samples.push({ at_ms, status, bytes_s });
    while (at_ms - this.#samples[0].at_ms > KEPT_S * 1000) this.#samples.shift();
    this.draw();
  }

  #notice(status) {
    const before = this.#before;
    this.#before = status;
    if (!before) return;
    const why = status.last_error ? `: ${status.last_error}` : "";
    if (status.uptime_s < before.uptime_s) this.mark("The portal was started anew");
    else if (status.restarts > before.restarts) this.mark(`The watchdog brought the camera back${why}`, true);
    else if (status.opens > before.opens) this.mark("The camera was opened", false, performance.now() - this.#asked_ms < OPENING_MS);
    if (status.state === "recovering" && before.state !== "recovering") this.mark(`Reconnecting${why}`, true);
    if (status.width !== before.width && status.width && before.width) this.mark(`The picture is ${status.width} × ${status.height} now`);
    if (status.scene_mode !== before.scene_mode && status.scene_mode && before.scene_mode) this.mark(`The scene is “${status.scene_mode.replace("_", " ")}” now`);
  }

  draw() {
    if (!$("graphs").offsetParent) return;
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const colours = { line: colour("--accent"), grid: colour("--line"), fault: colour("--bad"), event: colour("--quiet"), text: colour("--text") };
    for (const tile of this.#tiles) this.#drawOne(tile, colours);
  }

  #drawOne({ name, of, told, least, value, canvas }, colours) {
    const { context, width, height } = prepared(canvas);
    const now_ms = Date.now();
    const span_s = Math.min(KEPT_S, Math.max(LEAST_S, (now_ms - (this.#samples[0]?.at_ms ?? now_ms)) / 1000));
    const place = (at_ms) => 1 - (now_ms - at_ms) / (span_s * 1000);
    const points = this.#samples.map((sample) => [place(sample.at_ms), of(sample)]);
    const known = points.filter(([, y]) => isKnown(y) && !Number.isNaN(y));
    const values = known.map(([, y]) => y);
    let low = Math.min(...values), high = Math.max(...values);
    const lack = Math.max(0, least - (high - low)) / 2;
    low = Math.max(low >= 0 ? 0 : -Infinity, low - lack);
    high = Math.max(high + lack, low + least);
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
    for (const { at_ms, isFault } of this.#events.flatMap(({ isFault, marks_ms }) => marks_ms.map((at_ms) => ({ at_ms, isFault })))) {
      const x = toX(place(at_ms));
      context.fillStyle = isFault ? colours.fault : colours.event;
      context.fillRect(x - 0.75, 0, 1.5, height);
      context.beginPath();
      context.moveTo(x - 4, 0);
      context.lineTo(x + 4, 0);
      context.lineTo(x, 6);
      context.fill();
    }
    if (!known.length) {
      write(value, "–");
      canvas.setAttribute("aria-label", `${name}: not known`);
      return;
    }
    trace(context, points, toX, toY, height, colours.line);
    const now = known.at(-1) === points.at(-1) ? points.at(-1)[1] : null; // what was known once is no fact of now
    const spot = this.#pointed === null ? null : known.reduce((best, each) => (Math.abs(each[0] - this.#pointed) < Math.abs(best[0] - this.#pointed) ? each : best));
    if (spot) {
      context.fillStyle = colours.text;
      context.fillRect(toX(spot[0]) - 0.5, 0, 1, height);
      context.beginPath();
      context.arc(toX(spot[0]), toY(spot[1]), 3, 0, 7);
      context.fill();
    }
    write(value, told(spot ? spot[1] : now) + (spot ? ` · ${Math.round((1 - spot[0]) * span_s)} s ago` : ""));
    canvas.setAttribute("aria-label", `${name}: ${isKnown(now) ? `now ${told(now)}` : "not known now"}; in the last minutes ${told(Math.min(...values))} to ${told(Math.max(...values))}`);
  }

  // --- histogram ---------------------------------------------------------------------------------------------------

  /** After a picture; some of them are looked at. */
  pictureCame() {
    const now_ms = performance.now();
    if (now_ms - this.#drawn_ms < HISTOGRAM_PERIOD_MS || !$("histogram").offsetParent) return;
    this.#drawn_ms = now_ms;
    const context = (this.context ??= this.small.getContext("2d", { willReadFrequently: true }));
    context.drawImage(this.picture.source, 0, 0, ...SAMPLE);
    const { data } = context.getImageData(0, 0, ...SAMPLE);
    const bins = [0, 1, 2].map(() => new Float32Array(BINS));
    let dark = 0, bright = 0;
    for (let at = 0; at < data.length; at += 4) {
      for (let colour = 0; colour < 3; colour += 1) bins[colour][data[at + colour] >> 2] += 1;
      const most = Math.max(data[at], data[at + 1], data[at + 2]);
      if (most >= 253) bright += 1;
      else if (most <= 3) dark += 1;
    }
    this.#drawHistogram(bins);
    const percent = (count) => `${Math.round((100 * count) / (SAMPLE[0] * SAMPLE[1]))}%`;
    write($("clipped"), `black ${percent(dark)} · white ${percent(bright)}`);
    $("histogram").setAttribute("aria-label", `Histogram of the picture: ${percent(dark)} black, ${percent(bright)} white`);
  }

  #drawHistogram(bins) {
    const { context, width, height } = prepared($("histogram"));
    // The highest few bins are cut off: one bright wall would flatten all the rest.
    const sorted = bins.flatMap((each) => [...each]).sort((one, other) => other - one);
    const most = Math.max(1, sorted[6]) * 1.1;
    const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
    context.globalCompositeOperation = isDark ? "screen" : "multiply";
    const colours = isDark ? ["#e5484d", "#30a46c", "#3b82f6"] : ["#ffb3ad", "#a8e6bf", "#b0cdfd"];
    bins.forEach((each, colour) => {
      context.fillStyle = colours[colour];
      context.beginPath();
      context.moveTo(0, height);
      each.forEach((count, bin) => context.lineTo(((bin + 0.5) / BINS) * width, height - Math.min(1, count / most) * (height - 2)));
      context.lineTo(width, height);
      context.fill();
    });
    context.globalCompositeOperation = "source-over";
  }
}

/** An empty canvas of the size that it has on the page, sharp on every screen. */
function prepared(canvas) {
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

/** The curve, broken where nothing is known, and a breath of colour below it. */
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
