// Zoom, pan and click to focus on the live picture: at once in the browser, then, when the pointer rests, by the camera,
// whose zoom uses the full resolution of the sensor.

import { $, notify, write } from "./dom.js";
import { errorText, postJson, readOnlyReason } from "./portal.js";

const MIN_WIDTH = 0.02; // of the whole image: zoom factor 50
const REST_MS = 350; // after the last wheel event
const CLICK_PX = 6; // a pointer that moved less was not dragged
const HANDOVER_MS = 1500; // the camera's zoom is visible within a few frames; after this time it is assumed
const STEP = 1.25;
const FOCUS_SIZE = 0.16; // side of the focus window of a click
const THUMB = [24, 14];

const WHOLE = Object.freeze({ x: 0, y: 0, width: 1, height: 1 });
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const same = (one, other) => Math.abs(one.x - other.x) + Math.abs(one.y - other.y) + Math.abs(one.width - other.width) < 0.002;

export class Zoom {
  canZoom = false; // whether the camera supports zoom
  canFocus = false;
  #shown = WHOLE; // region that the camera delivers, as a part of the image without zoom
  #requested = WHOLE; // region to be shown
  #isRotated = false; // by a quarter turn: the camera's x axis is the page's y axis
  #pointers = new Map();
  #press = null;
  #restTimer = 0;
  #handover = null; // a zoom that was sent to the camera and is not visible yet
  #ignoreStatusUntil_ms = 0;

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
    this.#requested = WHOLE;
    this.picture.offset = { x: 0, y: 0 };
    this.picture.layout();
    this.#commit();
  }

  /** Called with each status: the camera's zoom, which another browser may have set, and its capabilities. */
  update(status, controls) {
    this.#isRotated = (status.transform?.rotation ?? 0) % 180 !== 0;
    const can = (group, field) => controls?.[group]?.fields[field]?.available === true;
    const couldZoom = this.canZoom;
    this.canZoom = can("roi", "x") && !readOnlyReason;
    this.canFocus = can("autofocus", "window") && !readOnlyReason;
    this.stage.classList.toggle("can-focus", this.canFocus);
    if (this.#pointers.size || this.#restTimer || this.#handover || performance.now() < this.#ignoreStatusUntil_ms) return;
    if (this.canZoom && !couldZoom && !same(this.#requested, this.#shown)) {
      this.#commit(); // a zoom from before the capabilities were known
      return;
    }
    if (!this.canZoom && !status.roi) return;
    const shown = status.roi ? this.#rotate(status.roi) : WHOLE;
    if (same(shown, this.#shown)) return;
    this.#shown = this.#requested = shown;
    this.render();
  }

  render() {
    const { frame, layer } = this.picture;
    const scale = this.#shown.width / this.#requested.width;
    const x = ((this.#shown.x - this.#requested.x) / this.#requested.width) * frame.clientWidth;
    const y = ((this.#shown.y - this.#requested.y) / this.#requested.height) * frame.clientHeight;
    layer.style.transform = scale === 1 && !x && !y ? "" : `translate(${x}px, ${y}px) scale(${scale})`;
    const factor = 1 / this.#requested.width;
    write($("zoom-reset"), `${factor.toFixed(1)}×`);
    $("zoom-reset").disabled = factor < 1.005 && !this.picture.offset.x && !this.picture.offset.y;
    this.stage.classList.toggle("zoomed", factor > 1.005 || this.picture.overflow.x + this.picture.overflow.y > 1);
  }

  /** Called after each image: once the camera delivers the requested region, the browser's zoom is removed. */
  onPicture() {
    const handover = this.#handover;
    if (!handover) return;
    const isOver = performance.now() > handover.until_ms;
    if (!isOver && handover.thumb) {
      const ifOld = this.#thumb(within(handover.both, handover.before));
      const ifNew = this.#thumb(within(handover.both, handover.accepted));
      if (difference(ifNew, handover.thumb) >= difference(ifOld, handover.thumb)) return;
    } else if (!isOver) return;
    this.#handover = null;
    if (same(this.#requested, handover.requested)) this.#requested = handover.accepted; // otherwise the user zoomed on in the meantime
    this.#shown = handover.accepted;
    this.render();
  }

  // --- pointer and keyboard

  #wheel(event) {
    if (isButton(event)) return;
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1;
    this.#zoomAt(Math.exp((-event.deltaY * lines) / 400), event.clientX, event.clientY);
    this.#commitLater();
  }

  #down(event) {
    if (isButton(event) || event.button > 0) return;
    this.stage.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    this.#press = this.#pointers.size === 1 ? { x: event.clientX, y: event.clientY, isClick: true } : null;
    clearTimeout(this.#restTimer);
    this.#restTimer = 0;
  }

  #move(event) {
    const before = this.#pointers.get(event.pointerId);
    if (!before) return;
    const after = { x: event.clientX, y: event.clientY };
    if (this.#press?.isClick && Math.hypot(after.x - this.#press.x, after.y - this.#press.y) < CLICK_PX) return;
    if (this.#press) this.#press.isClick = false;
    const other = [...this.#pointers].find(([id]) => id !== event.pointerId)?.[1];
    this.#pointers.set(event.pointerId, after);
    if (other) {
      const distance = (pointer) => Math.hypot(pointer.x - other.x, pointer.y - other.y) || 1;
      this.#zoomAt(distance(after) / distance(before), (after.x + other.x) / 2, (after.y + other.y) / 2);
      this.#pan((after.x - before.x) / 2, (after.y - before.y) / 2);
    } else this.#pan(after.x - before.x, after.y - before.y);
  }

  #up(event) {
    if (!this.#pointers.delete(event.pointerId)) return;
    const isClick = event.type === "pointerup" && this.#press?.isClick;
    this.#press = null;
    if (isClick) this.focusAt(event.clientX, event.clientY);
    else if (!this.#pointers.size) this.#commit();
  }

  #key(event) {
    if (event.target !== this.stage || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = 0.1 * this.picture.frame.clientWidth;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (event.key === "+" || event.key === "=") this.#step(STEP);
    else if (event.key === "-") this.#step(1 / STEP);
    else if (event.key === "0" || event.key === "Escape") this.reset();
    else if (event.key === "Enter") {
      const box = this.stage.getBoundingClientRect();
      this.focusAt(box.x + box.width / 2, box.y + box.height / 2);
    } else if (event.key in moves && this.stage.classList.contains("zoomed")) {
      this.#pan(...moves[event.key]);
      this.#commitLater();
    } else return;
    event.preventDefault();
  }

  #step(factor) {
    const box = this.stage.getBoundingClientRect();
    this.#zoomAt(factor, box.x + box.width / 2, box.y + box.height / 2);
    this.#commitLater();
  }

  #zoomAt(factor, clientX, clientY) {
    const box = this.picture.frame.getBoundingClientRect();
    const at = { x: clamp((clientX - box.x) / box.width, 0, 1), y: clamp((clientY - box.y) / box.height, 0, 1) };
    const side = clamp(this.#requested.width / factor, MIN_WIDTH, 1);
    const margin = this.#requested.width - side;
    this.#requested = inside({ x: this.#requested.x + at.x * margin, y: this.#requested.y + at.y * margin, width: side, height: side });
    this.render();
  }

  /** Moves an image that is larger than the stage first, then the zoomed region. */
  #pan(dx, dy) {
    const { picture } = this;
    const { x, y } = picture.overflow;
    const moved = { x: clamp(picture.offset.x + dx, -x, x), y: clamp(picture.offset.y + dy, -y, y) };
    dx -= moved.x - picture.offset.x;
    dy -= moved.y - picture.offset.y;
    picture.offset = moved;
    picture.layout();
    const requested = this.#requested;
    this.#requested = inside({
      ...requested,
      x: requested.x - (dx / picture.frame.clientWidth) * requested.width,
      y: requested.y - (dy / picture.frame.clientHeight) * requested.height,
    });
    this.render();
  }

  // --- the camera

  #commitLater() {
    clearTimeout(this.#restTimer);
    this.#restTimer = setTimeout(() => {
      this.#restTimer = 0;
      this.#commit();
    }, REST_MS);
  }

  async #commit() {
    if (!this.canZoom || this.#handover || same(this.#requested, this.#shown)) return;
    const requested = this.#requested, before = this.#shown;
    const both = overlap(requested, before);
    const thumb = both && this.#thumb(within(both, before));
    this.#handover = { requested, before, accepted: requested, thumb: null, both, until_ms: Infinity };
    try {
      const answer = await postJson("v1/camera/roi", this.#rotateBack(requested));
      const accepted = this.#rotate(answer);
      const common = overlap(accepted, before);
      this.#handover = { requested, before, accepted, thumb: common && both && same(common, both) ? thumb : null, both, until_ms: performance.now() + HANDOVER_MS };
      if (this.picture.transport !== "mjpeg") this.#handover.until_ms += HANDOVER_MS;
      this.#ignoreStatusUntil_ms = performance.now() + 2 * HANDOVER_MS;
      setTimeout(() => {
        this.onPicture();
        if (!this.#pointers.size && !this.#restTimer) this.#commit(); // what the user did in the meantime
      }, this.#handover.until_ms - performance.now() + 50);
    } catch (error) {
      this.#handover = null;
      this.#requested = before;
      this.render();
      notify(`Zoom failed: ${errorText(error)}`, true);
    }
  }

  /** Focuses on a point; a ring shows where, and whether it succeeded. */
  async focusAt(clientX, clientY) {
    if (!this.canFocus || !this.picture.isShown) return;
    const box = this.picture.frame.getBoundingClientRect();
    const x = (clientX - box.x) / box.width, y = (clientY - box.y) / box.height;
    if (x < 0 || y < 0 || x > 1 || y > 1) return;
    const ring = $("focus-ring");
    const here = this.stage.getBoundingClientRect();
    ring.style.left = `${clientX - here.x}px`;
    ring.style.top = `${clientY - here.y}px`;
    ring.hidden = false;
    ring.className = "busy";
    const part = inside({ x: x - FOCUS_SIZE / 2, y: y - FOCUS_SIZE / 2, width: FOCUS_SIZE, height: FOCUS_SIZE });
    const window = this.#rotateBack({ x: part.x, y: part.y, width: part.width, height: part.height });
    try {
      const answer = await postJson("v1/camera/autofocus", { window, trigger: true });
      ring.className = answer.focused ? "good" : "bad";
      notify(answer.focused ? "In focus" : "Autofocus found nothing to focus on there");
    } catch (error) {
      ring.className = "bad";
      notify(`Autofocus failed: ${errorText(error).replace(/^trigger: /, "")}`, true);
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

  // The image is rotated clockwise for display; the camera's regions refer to the image without rotation.
  #rotate({ x, y, width, height }) {
    return this.#isRotated ? { x: 1 - y - height, y: x, width: height, height: width } : { x, y, width, height };
  }

  #rotateBack({ x, y, width, height }) {
    const part = this.#isRotated ? { x: y, y: 1 - x - width, width: height, height: width } : { x, y, width, height };
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
