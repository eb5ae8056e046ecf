// Plays /stream.mp4 in a <video> through Media Source Extensions and stays at the live edge.

import { HttpError, address, errorDetail } from "./portal.js";

const Source = window.ManagedMediaSource ?? window.MediaSource;
const MIN_MARGIN_S = 0.05; // how long before its presentation time a frame arrives at least, on a fast line
const MAX_MARGIN_S = 1;
const INTERVAL_MS = 1000; // between adjustments of the playback rate
const MAX_RATE_CHANGE = 0.1; // ten percent faster or slower is not noticeable
const SEEK_THRESHOLD_S = 0.5; // a larger delay is removed by seeking
const SEEK_PAUSE_MS = 5000; // between two seeks
const KEPT_S = 10; // of media behind the current position
const MAX_INIT_BYTES = 1 << 20;

export const canPlay = () => Boolean(Source && window.fetch);

export class Mp4Stream {
  #abort = null;

  /** Calls `on.bytes(count)` for received data and `on.end(error)` once, unless stopped before. */
  constructor(video, on) {
    this.video = video;
    this.on = on;
  }

  /** The delay between the current position and the end of the buffer. */
  get behind_s() {
    return Math.max(0, endOf(this.video) - this.video.currentTime);
  }

  async start() {
    this.stop();
    const abort = (this.#abort = new AbortController());
    let error = new Error("The stream ended.");
    try {
      await this.#play(abort.signal);
    } catch (failure) {
      error = failure;
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
    const response = await fetch(address("stream.mp4"), { cache: "no-store", signal });
    if (!response.ok) throw new HttpError(response.status, await errorDetail(response));
    const reader = response.body.getReader();
    let init = new Uint8Array(0), codec = null;
    while (!(codec = codecOf(init))) {
      if (init.length > MAX_INIT_BYTES) throw new Error("The stream is not H.264.");
      init = join([init, await this.#next(reader)]);
    }
    const type = `video/mp4; codecs="${codec}"`;
    if (!Source.isTypeSupported(type)) throw new HttpError(415, "This browser cannot play H.264.");
    const source = new Source();
    const opened = new Promise((resolve) => source.addEventListener("sourceopen", resolve, { once: true }));
    this.video.disableRemotePlayback = true; // required on iPhones
    this.video.src = URL.createObjectURL(source);
    await opened;
    signal.throwIfAborted();
    const buffer = source.addSourceBuffer(type);
    await this.#append(buffer, init);
    const edge = new LiveEdge(this.video, signal);
    for (;;) {
      const chunk = await this.#next(reader);
      signal.throwIfAborted();
      const { behind_s } = this, end_s = endOf(this.video);
      await this.#append(buffer, chunk);
      signal.throwIfAborted();
      edge.onAppended(behind_s, endOf(this.video) - end_s);
    }
  }

  async #next(reader) {
    const { done, value } = await reader.read();
    if (done) throw new Error("The stream ended.");
    this.on.bytes(value.length);
    return value;
  }

  async #append(buffer, data) {
    await updated(buffer, () => buffer.appendBuffer(data));
    const { currentTime, buffered } = this.video;
    if (buffered.length && buffered.start(0) < currentTime - 2 * KEPT_S) {
      await updated(buffer, () => buffer.remove(0, currentTime - KEPT_S));
    }
  }
}

/**
 * Keeps the playback position as close to the live edge as possible without stalling. In each interval, the frame that
 * arrived latest relative to its presentation time must still have a small margin. So the frame rate does not matter,
 * and jitter of the line or the browser increases the delay. After a stall the margin grows, then shrinks slowly.
 */
class LiveEdge {
  #margin_s = MIN_MARGIN_S;
  #isPlaying = false;
  #hasStalled = false;
  #sought_ms = -Infinity;
  #interval_ms = 0;
  #minLead_s = Infinity; // smallest buffered duration when a frame arrived
  #frame_s = Infinity; // shortest frame duration

  constructor(video, signal) {
    this.video = video;
    video.addEventListener("waiting", () => { this.#hasStalled ||= this.#isPlaying && !video.seeking; }, { signal });
  }

  /** After appended data: the delay before it, and by how much the end of the buffer moved. */
  onAppended(behind_s, more_s) {
    const { video } = this;
    if (!(more_s > 0)) return; // no complete frame yet
    const { buffered } = video, start_s = buffered.start(buffered.length - 1);
    if (video.currentTime < start_s - 0.01) this.#seek(start_s); // at the start, and at gaps of the stream
    else if (video.seeking) this.#startInterval();
    else if (!this.#isPlaying) this.#play(behind_s - more_s);
    else {
      this.#minLead_s = Math.min(this.#minLead_s, behind_s);
      this.#frame_s = Math.min(this.#frame_s, more_s);
      if (performance.now() - this.#interval_ms > INTERVAL_MS) this.#adjust();
    }
  }

  /** The first frame is shown at once; playback starts when the margin is reached. */
  #play(margin_s) {
    if (margin_s < this.#margin_s) return;
    this.#isPlaying = true;
    this.#startInterval();
    this.video.play().catch(() => {}); // muted video may autoplay, except in power-saving modes
  }

  #adjust() {
    const { video } = this;
    this.#margin_s = this.#hasStalled ? Math.min(MAX_MARGIN_S, this.#margin_s * 1.5) : Math.max(MIN_MARGIN_S, this.#margin_s * 0.99);
    // The buffer ends with the last frame, whose stated duration is twice the frame interval.
    const late_s = this.#minLead_s - this.#frame_s - this.#margin_s;
    if (late_s > SEEK_THRESHOLD_S && (video.paused || performance.now() - this.#sought_ms > SEEK_PAUSE_MS)) {
      if (!video.paused) this.#sought_ms = performance.now();
      this.#seek(video.currentTime + late_s);
    } else {
      const isSmall = Math.abs(late_s) < (video.playbackRate === 1 ? 0.03 : 0.01);
      video.playbackRate = isSmall ? 1 : 1 + Math.min(MAX_RATE_CHANGE, Math.max(-MAX_RATE_CHANGE, late_s / 2));
    }
    this.#startInterval();
  }

  #seek(to_s) {
    this.video.currentTime = to_s;
    this.video.playbackRate = 1;
    this.#startInterval();
  }

  #startInterval() {
    this.#interval_ms = performance.now();
    this.#minLead_s = this.#frame_s = Infinity;
    this.#hasStalled = false;
  }
}

const endOf = ({ buffered }) => (buffered.length ? buffered.end(buffered.length - 1) : 0);

function updated(buffer, update) {
  return new Promise((resolve, reject) => {
    buffer.onupdateend = resolve;
    buffer.onerror = () => reject(new Error("The browser cannot decode the video."));
    update();
  });
}

function join(parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** The codec string, such as "avc1.42c01f", from the avcC box (ISO 14496-15); null until it has arrived. */
function codecOf(bytes) {
  for (let at = 0; at + 8 <= bytes.length; at += 1) {
    if (bytes[at] === 0x61 && bytes[at + 1] === 0x76 && bytes[at + 2] === 0x63 && bytes[at + 3] === 0x43) {
      return "avc1." + [...bytes.subarray(at + 5, at + 8)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    }
  }
  return null;
}
