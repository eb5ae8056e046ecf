// The WebRTC transport. The page at /webrtc plays the stream in a hidden frame and passes it on: only that page may
// connect to the media server, and only it knows the server's password.

import { el } from "./dom.js";
import { address } from "./portal.js";

export class Peer {
  #frame = null;

  /** Calls `on.bytes(count)` for received data and `on.end(error)` once, unless stopped before. */
  constructor(video, on) {
    this.video = video;
    this.on = on;
  }

  start() {
    this.stop();
    const frame = (this.#frame = el("iframe", { src: address("webrtc"), title: "WebRTC player", hidden: true }));
    frame.addEventListener("stream", ({ detail }) => {
      this.video.srcObject = detail;
      this.video.playbackRate = 1;
      this.video.play().catch(() => {}); // muted video may autoplay, except in power-saving modes
    });
    frame.addEventListener("bytes", ({ detail }) => this.on.bytes(detail));
    frame.addEventListener("state", ({ detail }) => {
      if (frame !== this.#frame || detail.state !== "lost") return; // after "ended" the player tries again, once
      this.stop();
      this.on.end(new Error(detail.reason));
    });
    document.body.append(frame);
  }

  stop() {
    this.#frame?.remove(); // the player ends its session
    this.#frame = null;
    if (this.video.srcObject) this.video.srcObject = null;
  }
}
