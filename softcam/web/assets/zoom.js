// Zoom, pan and the point of focus, on the picture itself: at once in the browser, and when the hand rests, by the
// camera, whose zoom loses nothing.

import { $, say, write } from "./dom.js";
import { isAway, looksOnly, post } from "./portal.js";

const SMALLEST = 0.02; // of the picture's width: fifty times
const REST_MS = 350; // after the last turn of the wheel
const CLICK_PX = 6; // a hand that moved less did not drag
const TAKEN_OVER_MS = 1500; // the camera's own zoom shows within some frames; after this it is believed
const STEP = 1.25;
const WINDOW = 0.16; // side of the part that a click focuses on
const THUMB = [24, 14];

const WHOLE = Object.freeze({ x: 0, y: 0, width: 1, height: 1 });
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const same = (one, other) => Math.abs(one.x - other.x) + Math.abs(one.y - other.y) + Math.abs(one.width - other.width) < 0.002;

export class Zoom {
  canZoom = false; // the camera itself
  canFocus = false;
  #shown = WHOLE; // what the camera shows, as a part of the picture without zoom
  #wanted = WHOLE; // what is to be seen
  #turned = false; // by a quarter: the camera's x is our y
  #hands = new Map();
  #start = null;
  #resting = 0;
  #handover = null; // the camera was told and does not show it yet
  #ignoreUntil_ms = 0;

  constructor(picture) {
    this.picture = picture;
    this.stage = picture.stage;
    const on = (name, handle, options) => this.stage.addEventListener(name, handle, options);
    on("wheel", (event) => this.#wheel(event), { passive: false });
    on("pointerdown", (event) => this.#down(event));
    on("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) on(name, (event) => this.#up(event));
    on("keydown", (event) => this.#key(event));
    $("zoom-in").addEventListener("click", () => this.#step(STEP * STEP));
    $("zoom-out").addEventListener("click", () => this.#step(1 / STEP / STEP));
    $("zoom-reset").addEventListener("click", () => this.reset());
  }

  reset() {
    this.#wanted = WHOLE;
    this.picture.offset = { x: 0, y: 0 };
    this.picture.lay();
    this.#commit();
  }

  /** What the camera says of itself: its zoom, which another browser may have set, and what it can. */
  update(status, controls) {
    this.#turned = (status.transform?.rotation ?? 0) % 180 !== 0;
    const can = (group, field) => controls?.[group]?.fields[field]?.available === true;
    const couldZoom = this.canZoom;
    this.canZoom = can("roi", "x") && !looksOnly;
    this.canFocus = can("autofocus", "window") && !looksOnly;
    this.stage.classList.toggle("can-focus", this.canFocus);
    if (this.#hands.size || this.#resting || this.#handover || performance.now() < this.#ignoreUntil_ms) return;
    if (this.canZoom && !couldZoom && !same(this.#wanted, this.#shown)) {
      this.#commit(); // a hand that was quicker than the camera
      return;
    }
    if (!this.canZoom && !status.roi) return;
    const shown = status.roi ? this.#turn(status.roi) : WHOLE;
    if (same(shown, this.#shown)) return;
    this.#shown = this.#wanted = shown;
    this.render();
  }

  render() {
    const { frame, layer } = this.picture;
    const scale = this.#shown.width / this.#wanted.width;
    const x = ((this.#shown.x - this.#wanted.x) / this.#wanted.width) * frame.clientWidth;
    const y = ((this.#shown.y - this.#wanted.y) / this.#wanted.height) * frame.clientHeight;
    layer.style.transform = scale === 1 && !x && !y ? "" : `translate(${x}px, ${y}px) scale(${scale})`;
    const factor = 1 / this.#wanted.width;
    write($("zoom-reset"), `${factor.toFixed(1)}×`);
    $("zoom-reset").disabled = factor < 1.005 && !this.picture.offset.x && !this.picture.offset.y;
    this.stage.classList.toggle("zoomed", factor > 1.005 || this.picture.beyond.x + this.picture.beyond.y > 1);
  }

  /** After each picture: whether the camera shows what it was told, so that the browser's own zoom can go. */
  pictureCame() {
    const handover = this.#handover;
    if (!handover) return;
    const isTime = performance.now() > handover.until_ms;
    if (!isTime && handover.look) {
      const asBefore = this.#thumb(within(handover.both, handover.before));
      const asTold = this.#thumb(within(handover.both, handover.told));
      if (difference(asTold, handover.look) >= difference(asBefore, handover.look)) return;
    } else if (!isTime) return;
    this.#handover = null;
    if (same(this.#wanted, handover.wanted)) this.#wanted = handover.told; // else the hand went on meanwhile
    this.#shown = handover.told;
    this.render();
  }

  // --- hands -------------------------------------------------------------------------------------------------------

  #wheel(event) {
    if (isButton(event)) return;
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1;
    this.#zoomAt(Math.exp((-event.deltaY * lines) / 400), event.clientX, event.clientY);
    this.#rest();
  }

  #down(event) {
    if (isButton(event) || event.button > 0) return;
    this.stage.setPointerCapture(event.pointerId);
    this.#hands.set(event.pointerId, { x: event.clientX, y: event.clientY });
    this.#start = this.#hands.size === 1 ? { x: event.clientX, y: event.clientY, isClick: true } : null;
    clearTimeout(this.#resting);
    this.#resting = 0;
  }

  #move(event) {
    const before = this.#hands.get(event.pointerId);
    if (!before) return;
    const after = { x: event.clientX, y: event.clientY };
    if (this.#start?.isClick && Math.hypot(after.x - this.#start.x, after.y - this.#start.y) < CLICK_PX) return;
    if (this.#start) this.#start.isClick = false;
    const other = [...this.#hands].find(([id]) => id !== event.pointerId)?.[1];
    this.#hands.set(event.pointerId, after);
    if (other) {
      const apart = (hand) => Math.hypot(hand.x - other.x, hand.y - other.y) || 1;
      this.#zoomAt(apart(after) / apart(before), (after.x + other.x) / 2, (after.y + other.y) / 2);
      this.#pan((after.x - before.x) / 2, (after.y - before.y) / 2);
    } else this.#pan(after.x - before.x, after.y - before.y);
  }

  #up(event) {
    if (!this.#hands.delete(event.pointerId)) return;
    const isClick = event.type === "pointerup" && this.#start?.isClick;
    this.#start = null;
    if (isClick) this.focusAt(event.clientX, event.clientY);
    else if (!this.#hands.size) this.#commit();
  }

  #key(event) {
    if (event.target !== this.stage || event.ctrlKey || event.metaKey || event.altKey) return;
    const far = 0.1 * this.picture.frame.clientWidth;
    const moves = { ArrowLeft: [far, 0], ArrowRight: [-far, 0], ArrowUp: [0, far], ArrowDown: [0, -far] };
    if (event.key === "+" || event.key === "=") this.#step(STEP);
    else if (event.key === "-") this.#step(1 / STEP);
    else if (event.key === "0" || event.key === "Escape") this.reset();
    else if (event.key === "Enter") {
      const box = this.stage.getBoundingClientRect();
      this.focusAt(box.x + box.width / 2, box.y + box.height / 2);
    } else if (event.key in moves && this.stage.classList.contains("zoomed")) {
      this.#pan(...moves[event.key]);
      this.#rest();
    } else return;
    event.preventDefault();
  }

  #step(factor) {
    const box = this.stage.getBoundingClientRect();
    this.#zoomAt(factor, box.x + box.width / 2, box.y + box.height / 2);
    this.#rest();
  }

  #zoomAt(factor, clientX, clientY) {
    const box = this.picture.frame.getBoundingClientRect();
    const at = { x: clamp((clientX - box.x) / box.width, 0, 1), y: clamp((clientY - box.y) / box.height, 0, 1) };
    const side = clamp(this.#wanted.width / factor, SMALLEST, 1);
    const lost = this.#wanted.width - side;
    this.#wanted = inside({ x: this.#wanted.x + at.x * lost, y: this.#wanted.y + at.y * lost, width: side, height: side });
    this.render();
  }

  /** A picture that is larger than its box is moved in it first; one that is zoomed looks elsewhere. */
  #pan(dx, dy) {
    const { picture } = this;
    const { x, y } = picture.beyond;
    const moved = { x: clamp(picture.offset.x + dx, -x, x), y: clamp(picture.offset.y + dy, -y, y) };
    dx -= moved.x - picture.offset.x;
    dy -= moved.y - picture.offset.y;
    picture.offset = moved;
    picture.lay();
    const wanted = this.#wanted;
    this.#wanted = inside({
      ...wanted,
      x: wanted.x - (dx / picture.frame.clientWidth) * wanted.width,
      y: wanted.y - (dy / picture.frame.clientHeight) * wanted.height,
    });
    this.render();
  }

  // --- the camera --------------------------------------------------------------------------------------------------

  #rest() {
    clearTimeout(this.#resting);
    this.#resting = setTimeout(() => {
      this.#resting = 0;
      this.#commit();
    }, REST_MS);
  }

  async #commit() {
    if (!this.canZoom || this.#handover || same(this.#wanted, this.#shown)) return;
    const wanted = this.#wanted, before = this.#shown;
    const both = overlap(wanted, before);
    const look = both && this.#thumb(within(both, before));
    this.#handover = { wanted, before, told: wanted, look: null, both, until_ms: Infinity };
    try {
      const answer = await post("v1/camera/roi", this.#turnBack(wanted));
      const told = this.#turn(answer);
      const common = overlap(told, before);
      this.#handover = { wanted, before, told, look: common && both && same(common, both) ? look : null, both, until_ms: performance.now() + TAKEN_OVER_MS };
      if (this.picture.way !== "mjpeg") this.#handover.until_ms += TAKEN_OVER_MS;
      this.#ignoreUntil_ms = performance.now() + 2 * TAKEN_OVER_MS;
      setTimeout(() => {
        this.pictureCame();
        if (!this.#hands.size && !this.#resting) this.#commit(); // what the hand did meanwhile
      }, this.#handover.until_ms - performance.now() + 50);
    } catch (error) {
      this.#handover = null;
      this.#wanted = before;
      this.render();
      say(isAway(error) ? "The zoom did not reach the camera." : `No zoom: ${error.message}`, true);
    }
  }

  /** Focus on what is there; a ring shows where, and how it ended. */
  async focusAt(clientX, clientY) {
    if (!this.canFocus || !this.picture.isShown) return;
    const box = this.picture.frame.getBoundingClientRect();
    const x = (clientX - box.x) / box.width, y = (clientY - box.y) / box.height;
    if (x < 0 || y < 0 || x > 1 || y > 1) return;
    const ring = $("ring");
    const here = this.stage.getBoundingClientRect();
    ring.style.left = `${clientX - here.x}px`;
    ring.style.top = `${clientY - here.y}px`;
    ring.hidden = false;
    ring.className = "busy";
    const part = inside({ x: x - WINDOW / 2, y: y - WINDOW / 2, width: WINDOW, height: WINDOW });
    const window = this.#turnBack({ x: part.x, y: part.y, width: part.width, height: part.height });
    try {
      const answer = await post("v1/camera/autofocus", { window, trigger: true });
      ring.className = answer.focused ? "good" : "bad";
      say(answer.focused ? "In focus" : "Nothing there to focus on", false);
    } catch (error) {
      ring.className = "bad";
      say(isAway(error) ? "The wish to focus did not reach the camera." : error.message.replace(/^trigger: /, ""), true);
    }
    setTimeout(() => { ring.hidden = true; }, 1400);
  }

  #thumb(part) {
    const { source } = this.picture;
    const width = source.videoWidth || source.width, height = source.videoHeight || source.height;
    const canvas = (this.canvas ??= Object.assign(document.createElement("canvas"), { width: THUMB[0], height: THUMB[1] }));
    const context = (this.context ??= canvas.getContext("2d", { willReadFrequently: true }));
    context.drawImage(source, part.x * width, part.y * height, part.width * width, part.height * height, 0, 0, ...THUMB);
    return context.getImageData(0, 0, ...THUMB).data;
  }

  // A quarter turn clockwise is the viewer's doing; the camera's own picture lies as it was.
  #turn({ x, y, width, height }) {
    return this.#turned ? { x: 1 - y - height, y: x, width: height, height: width } : { x, y, width, height };
  }

  #turnBack({ x, y, width, height }) {
    const part = this.#turned ? { x: y, y: 1 - x - width, width: height, height: width } : { x, y, width, height };
    for (const side of Object.keys(part)) part[side] = clamp(Math.round(part[side] * 1e5) / 1e5, 0, 1);
    return part;
  }
}

const isButton = (event) => event.target.closest("button, a, summary, .menu, iframe") !== null;

const inside = (part) => ({ ...part, x: clamp(part.x, 0, 1 - part.width), y: clamp(part.y, 0, 1 - part.height) });

/** `part`, as a part of `whole`. */
const within = (part, whole) => ({
  x: (part.x - whole.x) / whole.width, y: (part.y - whole.y) / whole.height,
  width: part.width / whole.width, height: part.height / whole.height,
});

function overlap(one, other) {
  const x = Math.max(one.x, other.x), y = Math.max(one.y, other.y);
  const width = Math.min(one.x + one.width, other.x + other.width) - x;
  const height = Math.min(one.y + one.height, other.y + other.height) - y;
  return width > 0.01 && height > 0.01 ? { x, y, width, height } : null;
}

function difference(one, other) {
  let sum = 0;
  for (let at = 0; at < one.length; at += 1) sum += Math.abs(one[at] - other[at]);
  return sum;
}
