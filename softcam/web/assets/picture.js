// The live picture: its transport (MJPEG, MP4 or HLS, WebRTC, at last snapshots), its layout in the stage, and its age.

import { $, loadChoice, notify, storeChoice } from "./dom.js";
import { MjpegStream } from "./mjpeg.js";
import { Mp4Stream, canPlay } from "./mp4.js";
import { NativeHls, canPlayHls } from "./native-hls.js";
import { Peer } from "./peer.js";
import { HttpError, isUnreachable } from "./portal.js";
import { PERIOD_MS, SnapshotStream } from "./snapshots.js";
import { HAS_WEBRTC } from "./transports.js";

const STALE_MS = 1000; // an older image shows its age
const NO_IMAGE_MS = 8000; // a transport without an image for this long, although the camera is available, is replaced
const STALL_MS = 15000; // a stream without data for this long, although the camera is available, is reconnected
const SLOW_MS = 8000; // the line is too slow if for this long less than half of the frames arrive
// For each way to show the picture: transport, query, name. HLS takes the place of MP4 where the browser has no MSE.
const WAYS = {
  mjpeg: ["mjpeg", "", "MJPEG"], webrtc: ["webrtc", "", "WebRTC"],
  mp4: canPlay() || !canPlayHls() ? ["mp4", "", "MP4"] : ["hls", "", "HLS"],
  small: ["mjpeg", "?width=640&quality=60", "MJPEG, reduced"], snapshots: ["snapshots", "", "snapshots"],
};
// For a slow line: H.264 needs a tenth of MJPEG's bandwidth; if it is not available, smaller JPEGs follow.
const ORDER = ["mjpeg", ...(HAS_WEBRTC ? ["webrtc"] : []), ...(canPlay() || canPlayHls() ? ["mp4"] : []), "small"];

export class Picture {
  fps = 0; // received
  bytes_s = 0;
  error = null; // why the stream ended, until the next image
  #stream = null;
  #pending = null; // the newest part, waiting for the decoder
  #isDecoding = false;
  #shown_ms = 0;
  #lag_ms = 0;
  #minDelay_ms = Infinity;
  #counts = { pictures: 0, bytes: 0, since_ms: performance.now() };
  #slow_ms = 0;
  #waited_ms = 0; // for the first image of the stream, while the camera is open
  #failed = new Set(); // the ways that showed no image
  #isRejected = false; // the portal accepts no further stream
  #rotation = 0;

  /** Calls `on.picture()` after each image; `on.transport()` and `on.layout()` after changes. */
  constructor(on) {
    this.on = on;
    this.stage = $("stage");
    this.frame = $("frame");
    this.layer = $("layer");
    this.canvas = $("picture");
    this.video = $("video");
    this.initial = $("initial-image"); // a snapshot: WebKit never closes the connection of a stream in an <img>
    this.initial.addEventListener("load", () => this.layout());
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.choice = loadChoice("way", "auto"); // the stored key of earlier versions
    this.fit = loadChoice("fit", "fit");
    if (!ORDER.includes(this.choice)) this.choice = "auto";
    this.way = this.#preferred;
    this.offset = { x: 0, y: 0 }; // of an image larger than the stage, from the centre
    new ResizeObserver(() => this.layout()).observe(this.stage);
    if (this.video.requestVideoFrameCallback) {
      const each = () => {
        if (this.#isVideo) this.#onImage();
        this.video.requestVideoFrameCallback(each);
      };
      this.video.requestVideoFrameCallback(each);
    } else this.video.addEventListener("timeupdate", () => this.#isVideo && this.#onImage());
    this.video.addEventListener("resize", () => this.layout());
  }

  get isRequested() {
    return this.#stream !== null;
  }

  get transport() {
    return WAYS[this.way][0];
  }

  /** The name of the current way. */
  get label() {
    return WAYS[this.way][2];
  }

  /** From this age on, the image is marked as old. */
  get stale_ms() {
    return this.transport === "snapshots" ? 2 * PERIOD_MS : STALE_MS;
  }

  /** Whether an image of the current stream has been shown. */
  get isShown() {
    return this.#shown_ms > 0;
  }

  /** The age of the shown image in milliseconds, without the minimum latency of the transport. */
  get age_ms() {
    if (!this.isShown) return 0;
    const behind_ms = this.transport === "mp4" ? this.#mp4.behind_s * 1000 : Math.max(0, this.#lag_ms);
    return performance.now() - this.#shown_ms + behind_ms;
  }

  /** The element with the current image, for drawImage(). */
  get source() {
    return this.#isVideo ? this.video : this.canvas;
  }

  /** Whether <video> shows the stream, and not the canvas. */
  get #isVideo() {
    return ["mp4", "hls", "webrtc"].includes(this.transport);
  }

  get #preferred() {
    return this.choice === "auto" ? ORDER[0] : this.choice;
  }

  get size() {
    const size = this.#isVideo ? [this.video.videoWidth, this.video.videoHeight] : [this.canvas.width, this.canvas.height];
    if (!this.isShown || !size[0]) return [this.initial.naturalWidth || 16, this.initial.naturalHeight || 9];
    return this.#isVideo && this.#rotation ? size.reverse() : size;
  }

  /** Rotates the video by a quarter turn: unlike JPEG, H.264 has no EXIF orientation. */
  rotate(degrees) {
    const rotation = degrees % 180 ? 90 : 0;
    if (rotation === this.#rotation) return;
    this.#rotation = rotation;
    this.layout();
  }

  start() {
    if (this.#stream || document.hidden) return;
    this.#counts = { pictures: 0, bytes: 0, since_ms: performance.now() };
    this.#minDelay_ms = Infinity;
    this.#lag_ms = this.#waited_ms = 0;
    if (this.#isVideo) {
      this.#stream = { mp4: this.#mp4, hls: this.#hls, webrtc: this.#peer }[this.transport];
      this.#stream.start();
      return;
    }
    const Stream = this.transport === "mjpeg" ? MjpegStream : SnapshotStream;
    const stream = (this.#stream = new Stream({
      part: (body, timestamp_s) => stream === this.#stream && this.#onPart(body, timestamp_s),
      end: (error) => stream === this.#stream && this.#onEnd(error),
    }));
    const query = WAYS[this.way][1];
    // A new URL each time: browsers cache broken streams.
    stream.start(this.transport === "mjpeg" ? `${query}${query ? "&" : "?"}nonce=${Date.now()}` : this.#isRejected);
  }

  stop() {
    this.#stream?.stop();
    this.#stream = this.#pending = null;
    this.#shown_ms = this.fps = this.bytes_s = 0;
  }

  /** The user's choice: `auto` or one of ORDER. */
  choose(choice) {
    this.choice = choice;
    storeChoice("way", choice);
    this.#slow_ms = 0;
    this.error = null;
    this.#isRejected = false;
    this.#failed.clear();
    this.#switchTo(this.#preferred);
  }

  /**
   * Called once a second: measures the received rate and decides whether the transport keeps up with `cameraFps`.
   * `isReady`: the camera delivers frames on request.
   */
  update(cameraFps, isReady) {
    const now_ms = performance.now();
    const { pictures, bytes, since_ms } = this.#counts;
    const elapsed_s = (now_ms - since_ms) / 1000;
    this.#counts = { pictures: 0, bytes: 0, since_ms: now_ms };
    this.fps = this.fps ? 0.6 * this.fps + 0.4 * (pictures / elapsed_s) : pictures / elapsed_s;
    this.bytes_s = bytes / elapsed_s;
    if (!isReady) return;
    if (!this.isShown) {
      this.#waited_ms += this.#stream ? elapsed_s * 1000 : 0;
      if (this.#isRejected && this.transport === "mjpeg") this.#switchTo("snapshots");
      else if (this.#isRejected) this.#replace(this.error.message);
      else if (this.#waited_ms > Math.max(NO_IMAGE_MS, 4000 / (cameraFps || 1))) this.#replace("no image arrived");
      return;
    }
    if (this.#stream && !bytes && now_ms - this.#shown_ms > STALL_MS) {
      this.stop();
      return;
    }
    const isSlow = this.age_ms > 2000 || this.fps < Math.min(8, (cameraFps ?? 0) / 2);
    this.#slow_ms = isSlow && bytes && this.transport !== "snapshots" ? this.#slow_ms + elapsed_s * 1000 : 0;
    if (this.choice === "auto" && this.#slow_ms > SLOW_MS) this.#switchToNext();
  }

  // --- layout

  setFit(fit) {
    this.fit = fit;
    storeChoice("fit", fit);
    this.offset = { x: 0, y: 0 };
    this.layout();
  }

  /** How far the image extends beyond the stage, on each side. */
  get overflow() {
    return {
      x: Math.max(0, (this.frame.clientWidth - this.stage.clientWidth) / 2),
      y: Math.max(0, (this.frame.clientHeight - this.stage.clientHeight) / 2),
    };
  }

  layout() {
    const [width, height] = this.size;
    this.stage.style.setProperty("--ratio", `${width} / ${height}`);
    const stage = this.stage.getBoundingClientRect();
    const scales = { x: stage.width / width, y: stage.height / height };
    const scale = { fit: Math.min(scales.x, scales.y), fill: Math.max(scales.x, scales.y), real: 1 / devicePixelRatio }[this.fit];
    if (!(scale > 0)) return;
    const style = this.frame.style;
    style.width = `${width * scale}px`;
    style.height = `${height * scale}px`;
    const { x, y } = this.overflow;
    this.offset.x = Math.min(x, Math.max(-x, this.offset.x));
    this.offset.y = Math.min(y, Math.max(-y, this.offset.y));
    style.transform = `translate(calc(-50% + ${this.offset.x}px), calc(-50% + ${this.offset.y}px))`;
    const isRotated = this.#isVideo && this.#rotation;
    Object.assign(this.video.style, isRotated
      ? { width: `${height * scale}px`, height: `${width * scale}px`, transform: `translate(${width * scale}px) rotate(90deg)` }
      : { width: "", height: "", transform: "" });
    this.on.layout();
  }

  // --- transports

  #mp4 = new Mp4Stream($("video"), {
    bytes: (count) => { this.#counts.bytes += count; },
    end: (error) => this.#stream === this.#mp4 && this.#onEnd(error),
  });

  #hls = new NativeHls($("video"), { end: (error) => this.#stream === this.#hls && this.#onEnd(error) });

  #peer = new Peer($("video"), {
    bytes: (count) => { this.#counts.bytes += count; },
    end: (error) => this.#stream === this.#peer && this.#onEnd(error),
  });

  #onPart(body, timestamp_s) {
    this.#counts.bytes += body.length;
    this.#pending = { body, timestamp_s };
    if (!this.#isDecoding) this.#decode();
  }

  async #decode() {
    this.#isDecoding = true;
    while (this.#pending) {
      const { body, timestamp_s } = this.#pending; // the newest; parts that arrived during decoding are dropped
      const stream = this.#stream;
      this.#pending = null;
      try {
        const bitmap = await createImageBitmap(new Blob([body], { type: "image/jpeg" }));
        if (stream === this.#stream && stream !== null) this.#draw(bitmap, timestamp_s);
        bitmap.close();
      } catch { /* a damaged JPEG is skipped */ }
    }
    this.#isDecoding = false;
  }

  #draw(bitmap, timestamp_s) {
    const { canvas } = this;
    const isNewSize = canvas.width !== bitmap.width || canvas.height !== bitmap.height;
    if (isNewSize) {
      canvas.width = bitmap.width;
      canvas.height = bitmap.height;
    }
    this.context.drawImage(bitmap, 0, 0);
    if (timestamp_s) {
      // The clocks of browser and portal may differ: the lag is measured against the smallest delay.
      const delay_ms = Date.now() - timestamp_s * 1000;
      this.#minDelay_ms = Math.min(this.#minDelay_ms, delay_ms);
      this.#lag_ms = delay_ms - this.#minDelay_ms;
    }
    this.#onImage();
    if (isNewSize) this.layout();
  }

  #onImage() {
    const isFirst = !this.isShown;
    this.#shown_ms = performance.now();
    this.#counts.pictures += 1;
    if (this.transport !== "snapshots") {
      this.error = null;
      this.#isRejected = false;
    }
    if (isFirst) {
      this.#counts = { pictures: 0, bytes: 0, since_ms: this.#shown_ms }; // the time until the first image is not part of the rate
      this.stage.dataset.transport = this.transport;
      this.layout();
    }
    this.on.picture();
  }

  /** A stream that ended is reconnected with the next status, or replaced if the portal rejected it. */
  #onEnd(error) {
    this.stop();
    if (this.transport === "snapshots") {
      if (!error) this.#switchTo(this.#preferred); // the portal accepts a stream again
      return;
    }
    this.error = error;
    const isPortals = error instanceof HttpError && !isUnreachable(error) && error.status !== 401;
    this.#isRejected = isPortals && error.status === 503;
    if (this.transport === "webrtc" ? this.choice === "auto" : this.transport === "mp4" && isPortals && !this.#isRejected) this.#replace(error.message);
  }

  #switchTo(way) {
    if (way === this.way && this.isRequested) return;
    this.stop();
    this.way = way;
    this.start();
    this.on.transport();
  }

  /** After the slow way, the next one of ORDER. */
  #switchToNext() {
    this.#slow_ms = 0;
    const next = ORDER.slice(ORDER.indexOf(this.way) + 1).find((way) => !this.#failed.has(way));
    if (next) this.#switchTo(next);
  }

  /** After a way that showed no image, the next one that has not failed, at last snapshots. */
  #replace(reason) {
    this.#failed.add(this.way);
    const failed = this.label, at = ORDER.indexOf(this.way) + 1;
    const next = [...ORDER.slice(at), ...ORDER.slice(0, at)].find((way) => !this.#failed.has(way)) ?? "snapshots";
    this.error ??= new Error(reason);
    this.#isRejected = false;
    if (this.choice !== "auto") notify(`${failed} failed: ${reason}`, true);
    this.#switchTo(next);
  }
}
