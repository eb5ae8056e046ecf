// Plays /stream.mp4 in a <video> and stays at its live edge: Media Source Extensions, fed by hand.

import { Refusal, address, reason } from "./portal.js";

const Source = window.ManagedMediaSource ?? window.MediaSource;
const LEAST_SPARE_S = 0.05; // how long before its time a frame comes at the least, where the line and the browser are quick
const MOST_SPARE_S = 1;
const LOOK_MS = 1000; // how often the pace is judged
const MOST_HASTE = 0.1; // a tenth quicker or slower than the camera is not seen
const FAR_S = 0.5; // further back than this is caught up with by a jump
const JUMP_PAUSE_MS = 5000; // where one jump does not help, the next would not either
const KEPT_S = 10; // behind what is shown
const LONGEST_BEGINNING = 1 << 20;

export const canPlay = () => Boolean(Source && window.fetch);

export class Movie {
  #abort = null;

  /** `on.bytes(count)` for all that comes, `on.end(error)` once, unless it was stopped. */
  constructor(video, on) {
    this.video = video;
    this.on = on;
  }

  /** How far what is shown is behind what has come. */
  get behind_s() {
    return Math.max(0, endOf(this.video) - this.video.currentTime);
  }

  async start() {
    this.stop();
    const abort = (this.#abort = new AbortController());
    let error = new Error("The stream ended.");
    try {
      await this.#play(abort.signal);
    } catch (fault) {
      error = fault;
    }
    if (!abort.signal.aborted) {
      this.stop();
      this.on.end(error);
    }
  }

  stop() {
    this.#abort?.abort();
    if (this.video.src) {
      URL.revokeObjectURL(this.video.src);
      this.video.removeAttribute("src");
      this.video.load();
    }
  }

  async #play(signal) {
    const answer = await fetch(address("stream.mp4"), { cache: "no-store", signal });
    if (!answer.ok) throw new Refusal(answer.status, await reason(answer));
    const reader = answer.body.getReader();
    let beginning = new Uint8Array(0), codec = null;
    while (!(codec = codecOf(beginning))) {
      if (beginning.length > LONGEST_BEGINNING) throw new Error("The stream is no H.264.");
      beginning = joined([beginning, await this.#next(reader)]);
    }
    const type = `video/mp4; codecs="${codec}"`;
    if (!Source.isTypeSupported(type)) throw new Refusal(415, "This browser plays no H.264.");
    const source = new Source();
    const opened = new Promise((resolve) => source.addEventListener("sourceopen", resolve, { once: true }));
    this.video.disableRemotePlayback = true; // without it an iPhone refuses
    this.video.src = URL.createObjectURL(source);
    await opened;
    signal.throwIfAborted();
    const buffer = source.addSourceBuffer(type);
    await this.#append(buffer, beginning);
    const edge = new Edge(this.video, signal);
    for (;;) {
      const chunk = await this.#next(reader);
      signal.throwIfAborted();
      const { behind_s } = this, end_s = endOf(this.video);
      await this.#append(buffer, chunk);
      signal.throwIfAborted();
      edge.came(behind_s, endOf(this.video) - end_s);
    }
  }

  async #next(reader) {
    const { done, value } = await reader.read();
    if (done) throw new Error("The stream ended.");
    this.on.bytes(value.length);
    return value;
  }

  async #append(buffer, data) {
    await settled(buffer, () => buffer.appendBuffer(data));
    const { currentTime, buffered } = this.video;
    if (buffered.length && buffered.start(0) < currentTime - 2 * KEPT_S) {
      await settled(buffer, () => buffer.remove(0, currentTime - KEPT_S));
    }
  }
}

/**
 * Keeps a film as close behind what comes as it can be without running dry. What counts is the frame that came latest
 * for its time in each look: it is to have a little to spare. So how often frames come makes no difference, and a line
 * or a browser that stumbles gets more by itself. Where that is not enough and the film stood, there is more to spare
 * from then on, and slowly less again.
 */
class Edge {
  #spare_s = LEAST_SPARE_S;
  #isBegun = false;
  #isDry = false;
  #jumped_ms = -Infinity;
  #since_ms = 0;
  #least_s = Infinity; // that was still to be shown when the next frame came
  #frame_s = Infinity; // from one frame to the next

  constructor(video, signal) {
    this.video = video;
    video.addEventListener("waiting", () => { this.#isDry ||= this.#isBegun && !video.seeking; }, { signal });
  }

  /** After each piece of film: how far behind the end we were before it, and how much further the end is now. */
  came(behind_s, more_s) {
    const { video } = this;
    if (!(more_s > 0)) return; // not yet a whole frame
    const { buffered } = video, start_s = buffered.start(buffered.length - 1);
    if (video.currentTime < start_s - 0.01) this.#jump(start_s); // the beginning, and where the camera left something out
    else if (video.seeking) this.#lookAnew();
    else if (!this.#isBegun) this.#begin(behind_s - more_s);
    else {
      this.#least_s = Math.min(this.#least_s, behind_s);
      this.#frame_s = Math.min(this.#frame_s, more_s);
      if (performance.now() - this.#since_ms > LOOK_MS) this.#judge();
    }
  }

  /** The first frame is seen at once; it moves when there is enough to spare. */
  #begin(spare_s) {
    if (spare_s < this.#spare_s) return;
    this.#isBegun = true;
    this.#lookAnew();
    this.video.play().catch(() => {}); // muted, so it may; a browser that saves power does not
  }

  #judge() {
    const { video } = this;
    this.#spare_s = this.#isDry ? Math.min(MOST_SPARE_S, this.#spare_s * 1.5) : Math.max(LEAST_SPARE_S, this.#spare_s * 0.99);
    // The end is where the last frame ends, if it lasts as long as it says: twice as long as the next takes to come.
    const late_s = this.#least_s - this.#frame_s - this.#spare_s;
    if (late_s > FAR_S && (video.paused || performance.now() - this.#jumped_ms > JUMP_PAUSE_MS)) {
      if (!video.paused) this.#jumped_ms = performance.now();
      this.#jump(video.currentTime + late_s);
    } else {
      const isLittle = Math.abs(late_s) < (video.playbackRate === 1 ? 0.03 : 0.01);
      video.playbackRate = isLittle ? 1 : 1 + Math.min(MOST_HASTE, Math.max(-MOST_HASTE, late_s / 2));
    }
    this.#lookAnew();
  }

  #jump(to_s) {
    this.video.currentTime = to_s;
    this.video.playbackRate = 1;
    this.#lookAnew();
  }

  #lookAnew() {
    this.#since_ms = performance.now();
    this.#least_s = this.#frame_s = Infinity;
    this.#isDry = false;
  }
}

const endOf = ({ buffered }) => (buffered.length ? buffered.end(buffered.length - 1) : 0);

function settled(buffer, work) {
  return new Promise((resolve, reject) => {
    buffer.onupdateend = resolve;
    buffer.onerror = () => reject(new Error("The browser cannot read the video."));
    work();
  });
}

function joined(parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** "avc1.42c01f", from the box avcC (ISO 14496-15), once it has come. */
function codecOf(bytes) {
  for (let at = 0; at + 8 <= bytes.length; at += 1) {
    if (bytes[at] === 0x61 && bytes[at + 1] === 0x76 && bytes[at + 2] === 0x63 && bytes[at + 3] === 0x43) {
      return "avc1." + [...bytes.subarray(at + 5, at + 8)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    }
  }
  return null;
}
