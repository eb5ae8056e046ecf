// Plays /stream.m3u8 in a <video> that can do so by itself: H.264 on iPhones without Media Source Extensions.

import { address } from "./portal.js";

export const canPlayHls = () => document.createElement("video").canPlayType("application/vnd.apple.mpegurl") !== "";

export class NativeHls {
  #abort = null;

  /** Calls `on.end(error)` once, unless stopped before; the browser does not report received data. */
  constructor(video, on) {
    this.video = video;
    this.on = on;
  }

  start() {
    this.stop();
    const { video } = this, { signal } = (this.#abort = new AbortController());
    video.addEventListener("error", () => {
      const { message } = video.error;
      this.stop();
      this.on.end(new Error(message || "The browser cannot play the stream."));
    }, { signal });
    video.src = address("stream.m3u8");
    video.playbackRate = 1;
    video.play().catch(() => {}); // muted video may autoplay, except in power-saving modes
  }

  stop() {
    if (!this.#abort) return;
    this.#abort.abort();
    this.#abort = null;
    this.video.removeAttribute("src");
    this.video.load();
  }
}
