// The picture by WebRTC. The page at /webrtc plays it, in a frame that nobody sees, and hands its stream over: that page
// alone may talk to the media server, and alone knows the server's password.

import { el } from "./dom.js";
import { address } from "./portal.js";

export class Peer {
  #frame = null;

  /** `on.bytes(count)` for all that comes, `on.end(error)` once, unless it was stopped. */
  constructor(video, on) {
    this.video = video;
    this.on = on;
  }

  start() {
    this.stop();
    const frame = (this.#frame = el("iframe", { src: address("webrtc"), title: "Player of WebRTC", hidden: true }));
    frame.addEventListener("stream", ({ detail }) => {
      this.video.srcObject = detail;
      this.video.playbackRate = 1;
      this.video.play().catch(() => {}); // muted, so it may; a browser that saves power does not
    });
    frame.addEventListener("bytes", ({ detail }) => this.on.bytes(detail));
    frame.addEventListener("told", ({ detail }) => {
      if (frame !== this.#frame || detail.state !== "lost") return;
      this.stop();
      this.on.end(new Error(detail.reason));
    });
    document.body.append(frame);
  }

  stop() {
    this.#frame?.remove(); // the player says goodbye to the server
    this.#frame = null;
    if (this.video.srcObject) this.video.srcObject = null;
  }
}
