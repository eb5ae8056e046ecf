// The live picture: which way it comes (MJPEG, MP4, WebRTC), how it lies in its box, how old it is.

import { $, keep, recall, say } from "./dom.js";
import { MjpegStream } from "./mjpeg.js";
import { Movie, canPlay } from "./mp4.js";
import { Peer } from "./peer.js";
import { Refusal, isAway } from "./portal.js";
import { HAS_WEBRTC } from "./transports.js";

export const OLD_MS = 1000; // a picture older than this says so
const SILENT_MS = 15000; // a stream that sends nothing for so long, while the camera does, is asked for anew
const SLOW_LIMIT_MS = 8000; // for so long less than half of the camera's pictures come: the line is too slow
const SAVING = "?width=640&quality=60";
const CHOICES = { auto: ["mjpeg", ""], mjpeg: ["mjpeg", ""], small: ["mjpeg", SAVING], mp4: ["mp4", ""], webrtc: ["webrtc", ""] };

export class Picture {
  fps = 0; // as they come here
  bytes_s = 0;
  fault = null; // why the stream ended, until the next picture
  #stream = null;
  #pending = null; // the newest part that waits for the decoder
  #isDecoding = false;
  #came_ms = 0;
  #lag_ms = 0;
  #leastDelay_ms = Infinity;
  #counts = { pictures: 0, bytes: 0, since_ms: performance.now() };
  #slow_ms = 0;
  #turned = 0;

  /** `on.picture()` after each new picture, `on.way()` when another way was taken, `on.fit()` when it lies anew. */
  constructor(on) {
    this.on = on;
    this.stage = $("stage");
    this.frame = $("frame");
    this.layer = $("layer");
    this.canvas = $("picture");
    this.video = $("movie");
    this.first = $("first");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.choice = recall("way", "auto");
    this.fit = recall("fit", "fit");
    if (!(this.choice in CHOICES) || (this.choice === "webrtc" && !HAS_WEBRTC) || (this.choice === "mp4" && !canPlay())) this.choice = "auto";
    [this.way, this.query] = CHOICES[this.choice];
    this.offset = { x: 0, y: 0 }; // of a picture that is larger than its box, from the middle
    new ResizeObserver(() => this.lay()).observe(this.stage);
    if (this.video.requestVideoFrameCallback) {
      const each = () => {
        if (this.#isFilm) this.#arrived();
        this.video.requestVideoFrameCallback(each);
      };
      this.video.requestVideoFrameCallback(each);
    } else this.video.addEventListener("timeupdate", () => this.#isFilm && this.#arrived());
    this.video.addEventListener("resize", () => this.lay());
  }

  get isAsked() {
    return this.#stream !== null;
  }

  /** Whether a picture of this stream was shown. */
  get isShown() {
    return this.#came_ms > 0;
  }

  /** Milliseconds since what is shown was new; what the way itself takes at its best does not count. */
  get age_ms() {
    if (!this.isShown) return 0;
    const behind_ms = this.way === "mp4" ? this.#movie.behind_s * 1000 : Math.max(0, this.#lag_ms);
    return performance.now() - this.#came_ms + behind_ms;
  }

  /** What can be drawn: the picture as it is shown now. */
  get source() {
    return this.#isFilm ? this.video : this.canvas;
  }

  /** Whether <video> shows it, and not the canvas. */
  get #isFilm() {
    return this.way !== "mjpeg";
  }

  get size() {
    const size = this.#isFilm ? [this.video.videoWidth, this.video.videoHeight] : [this.canvas.width, this.canvas.height];
    if (!this.isShown || !size[0]) return [this.first.naturalWidth || 16, this.first.naturalHeight || 9];
    return this.#isFilm && this.#turned ? size.reverse() : size;
  }

  /** A quarter turn that the stream itself does not bear: H.264 knows no EXIF. */
  turn(degrees) {
    const turned = degrees % 180 ? 90 : 0;
    if (turned === this.#turned) return;
    this.#turned = turned;
    this.lay();
  }

  start() {
    if (this.#stream || document.hidden) return;
    this.#counts = { pictures: 0, bytes: 0, since_ms: performance.now() };
    this.#leastDelay_ms = Infinity;
    this.#lag_ms = 0;
    if (this.#isFilm) {
      this.#stream = this.way === "mp4" ? this.#movie : this.#peer;
      this.#stream.start();
    } else {
      const stream = (this.#stream = new MjpegStream({
        part: (body, timestamp_s) => stream === this.#stream && this.#part(body, timestamp_s),
        end: (error) => stream === this.#stream && this.#ended(error),
      }));
      // A new address each time: browsers keep broken streams.
      stream.start(this.query + (this.query ? "&" : "?") + "nonce=" + Date.now());
    }
  }

  stop() {
    this.#stream?.stop();
    this.#stream = this.#pending = null;
    this.#came_ms = this.fps = this.bytes_s = 0;
    this.first.removeAttribute("src");
  }

  /** By hand: one of CHOICES. */
  choose(choice) {
    this.choice = choice;
    keep("way", choice);
    this.#slow_ms = 0;
    this.fault = null;
    this.#take(...CHOICES[choice]);
  }

  /** Once a second: what came since; and whether this way does, with `cameraFps` as what could come. */
  judge(cameraFps, isOpen) {
    const now_ms = performance.now();
    const { pictures, bytes, since_ms } = this.#counts;
    const passed_s = (now_ms - since_ms) / 1000;
    this.#counts = { pictures: 0, bytes: 0, since_ms: now_ms };
    this.fps = this.fps ? 0.6 * this.fps + 0.4 * (pictures / passed_s) : pictures / passed_s;
    this.bytes_s = bytes / passed_s;
    if (!isOpen || !this.isShown) return;
    if (this.#stream && !bytes && now_ms - this.#came_ms > SILENT_MS) {
      this.stop();
      return;
    }
    const isSlow = this.age_ms > 2000 || this.fps < Math.min(8, (cameraFps ?? 0) / 2);
    this.#slow_ms = isSlow && bytes ? this.#slow_ms + passed_s * 1000 : 0;
    if (this.choice === "auto" && this.#slow_ms > SLOW_LIMIT_MS) this.#takeNext();
  }

  // --- how it lies -------------------------------------------------------------------------------------------------

  setFit(fit) {
    this.fit = fit;
    keep("fit", fit);
    this.offset = { x: 0, y: 0 };
    this.lay();
  }

  /** How far the picture reaches beyond its box, on each side. */
  get beyond() {
    return {
      x: Math.max(0, (this.frame.clientWidth - this.stage.clientWidth) / 2),
      y: Math.max(0, (this.frame.clientHeight - this.stage.clientHeight) / 2),
    };
  }

  lay() {
    const [width, height] = this.size;
    this.stage.style.setProperty("--ratio", `${width} / ${height}`);
    const room = this.stage.getBoundingClientRect();
    const scales = { x: room.width / width, y: room.height / height };
    const scale = { fit: Math.min(scales.x, scales.y), fill: Math.max(scales.x, scales.y), real: 1 / devicePixelRatio }[this.fit];
    if (!(scale > 0)) return;
    const style = this.frame.style;
    style.width = `${width * scale}px`;
    style.height = `${height * scale}px`;
    const { x, y } = this.beyond;
    this.offset.x = Math.min(x, Math.max(-x, this.offset.x));
    this.offset.y = Math.min(y, Math.max(-y, this.offset.y));
    style.transform = `translate(calc(-50% + ${this.offset.x}px), calc(-50% + ${this.offset.y}px))`;
    const turned = this.#isFilm && this.#turned;
    Object.assign(this.video.style, turned
      ? { width: `${height * scale}px`, height: `${width * scale}px`, transform: `translate(${width * scale}px) rotate(90deg)` }
      : { width: "", height: "", transform: "" });
    this.on.fit();
  }

  // --- how it comes ------------------------------------------------------------------------------------------------

  #movie = new Movie($("movie"), {
    bytes: (count) => { this.#counts.bytes += count; },
    end: (error) => this.#stream === this.#movie && this.#ended(error),
  });

  #peer = new Peer($("movie"), {
    bytes: (count) => { this.#counts.bytes += count; },
    end: (error) => this.#stream === this.#peer && this.#ended(error),
  });

  #part(body, timestamp_s) {
    this.#counts.bytes += body.length;
    this.#pending = { body, timestamp_s };
    if (!this.#isDecoding) this.#decode();
  }

  async #decode() {
    this.#isDecoding = true;
    while (this.#pending) {
      const { body, timestamp_s } = this.#pending; // the newest: those that came while it was busy are lost
      const stream = this.#stream;
      this.#pending = null;
      try {
        const bitmap = await createImageBitmap(new Blob([body], { type: "image/jpeg" }));
        if (stream === this.#stream && stream !== null) this.#draw(bitmap, timestamp_s);
        bitmap.close();
      } catch { /* a damaged picture: the next one will do */ }
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
      // The clocks here and there may differ: what is late is what takes longer than the quickest did.
      const delay_ms = Date.now() - timestamp_s * 1000;
      this.#leastDelay_ms = Math.min(this.#leastDelay_ms, delay_ms);
      this.#lag_ms = delay_ms - this.#leastDelay_ms;
    }
    this.#arrived();
    if (isNewSize) this.lay();
  }

  #arrived() {
    const isFirst = !this.isShown;
    this.#came_ms = performance.now();
    this.#counts.pictures += 1;
    this.fault = null;
    if (isFirst) {
      this.#counts = { pictures: 0, bytes: 0, since_ms: this.#came_ms }; // the time until the first says nothing of rates
      this.stage.dataset.way = this.way;
      this.first.removeAttribute("src");
      this.lay();
    }
    this.on.picture();
  }

  /** A stream that ended is asked for again with the next status, but not one that cannot be had. */
  #ended(error) {
    this.stop();
    this.fault = error;
    const isRefused = error instanceof Refusal && !isAway(error) && error.status !== 401 && error.status !== 503;
    if (this.choice === "auto" && (this.way === "webrtc" || (this.way === "mp4" && isRefused))) this.#takeNext();
    else if (this.way === "mp4" && isRefused) {
      say(`No MP4: ${error.message}`, true);
      this.#take(...CHOICES.mjpeg);
    }
  }

  #take(way, query) {
    if (way === this.way && query === this.query && this.isAsked) return;
    this.stop();
    this.way = way;
    this.query = query;
    this.start();
    this.on.way();
  }

  /** For a line that is too slow: H.264 takes a tenth of MJPEG, and where it cannot be had, smaller pictures do. */
  #takeNext() {
    this.#slow_ms = 0;
    const { mjpeg, webrtc, mp4, small } = CHOICES;
    const ways = [mjpeg, ...(HAS_WEBRTC ? [webrtc] : []), ...(canPlay() ? [mp4] : []), small];
    const next = ways[ways.findIndex(([way, query]) => way === this.way && query === this.query) + 1];
    if (next) this.#take(...next);
  }
}
