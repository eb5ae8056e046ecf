// Plays /stream.mp4 in a <video> and stays at its live edge: Media Source Extensions, fed by hand.

import { Refusal, address, reason } from "./portal.js";

const Source = window.ManagedMediaSource ?? window.MediaSource;
const MOST_BEHIND_S = 1.5; // further back than this is caught up with by a jump
const LITTLE_BEHIND_S = 0.5; // and with a little haste
const EDGE_S = 0.15;
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
    const { buffered, currentTime } = this.video;
    return buffered.length ? Math.max(0, buffered.end(buffered.length - 1) - currentTime) : 0;
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
    let isPlaying = false;
    for (;;) {
      const chunk = await this.#next(reader);
      signal.throwIfAborted();
      await this.#append(buffer, chunk);
      this.#stayLive(buffer);
      if (!isPlaying && this.video.buffered.length) {
        isPlaying = true;
        this.video.play().catch(() => {}); // muted, so it may; a browser that saves power does not
      }
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

  #stayLive() {
    const { video } = this;
    if (!video.buffered.length) return;
    const end = video.buffered.end(video.buffered.length - 1);
    const start = video.buffered.start(video.buffered.length - 1);
    const behind_s = end - video.currentTime;
    if (behind_s > MOST_BEHIND_S || video.currentTime < start) video.currentTime = Math.max(start, end - EDGE_S);
    else video.playbackRate = behind_s > LITTLE_BEHIND_S ? 1.1 : 1;
  }
}

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
