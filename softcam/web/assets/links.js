// For other programs: their addresses to copy, and H.264 to an RTSP server on and off.

import { $, copy, duration, el, icon, isKnown, say, write } from "./dom.js";
import { address, isAway, post } from "./portal.js";

// For each program: the names of its own settings, and what goes there.
const PROGRAMS = [
  ["OctoPrint, Mainsail, Fluidd", [["Stream URL", "stream.mjpg"], ["Snapshot URL", "snapshot.jpg"]]],
  ["Home Assistant (MJPEG IP Camera)", [["MJPEG URL", "stream.mjpg"], ["Still image URL", "snapshot.jpg"]]],
  ["VLC, mpv, ffplay", [["Open network", "stream.mjpg"], ["RTSP", "rtsp"]]],
  ["Frigate, go2rtc", [["Source", "rtsp"], ["Source", "stream.mjpg"]]],
  ["Browsers and web pages", [["H.264", "stream.mp4"], ["WebRTC", "webrtc"]]],
  ["Scripts", [["Status", "v1/camera/status"], ["Metrics", "metrics"], ["The API described", "docs"]]],
];
const STATES = { off: "off", connecting: "connecting", publishing: "on the air", failed: "failed" };

export class Share {
  #rtsp = undefined;
  #isBusy = false;

  constructor() {
    $("publish").addEventListener("change", () => this.#publish($("publish").checked));
    $("only-here").hidden = !["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
  }

  update(status) {
    const publishing = status.publishing ?? null;
    $("publishing").hidden = !publishing;
    $("no-publishing").hidden = Boolean(publishing);
    const rtsp = fromHere(publishing?.url ?? null);
    if (rtsp !== this.#rtsp) {
      this.#rtsp = rtsp;
      this.#draw();
    }
    if (!publishing) return;
    if (!this.#isBusy) $("publish").checked = status.streaming;
    const since = publishing.state === "publishing" && isKnown(publishing.since) ? ` for ${duration(Date.now() / 1000 - publishing.since)}` : "";
    const again = publishing.reconnects ? `, ${publishing.reconnects} × reconnected` : "";
    $("publish-state").dataset.state = publishing.state;
    write($("publish-state"), (STATES[publishing.state] ?? publishing.state) + since + again);
    $("publish-error").hidden = !publishing.last_error || publishing.state === "publishing";
    write($("publish-error"), publishing.last_error ?? "");
  }

  async #publish(isWanted) {
    this.#isBusy = true;
    try {
      await post(`v1/streaming/${isWanted ? "start" : "stop"}`);
      say(isWanted ? "Publishing" : "Publishing has stopped");
    } catch (error) {
      $("publish").checked = !isWanted;
      say(isAway(error) ? "The portal cannot be reached." : error.message, true);
    }
    this.#isBusy = false;
  }

  #draw() {
    $("programs").replaceChildren(...PROGRAMS.map(([program, rows]) => el("section", { class: "program" }, el("h3", {}, program),
      ...rows.filter(([, path]) => path !== "rtsp" || this.#rtsp).map(([name, path]) => this.#row(program, name, path)))));
  }

  #row(program, name, path) {
    const href = path === "rtsp" ? this.#rtsp : address(path);
    return el("div", { class: "address" }, el("span", { class: "label" }, name), el("a", { href, target: "_blank", rel: "noreferrer" }, href),
      el("button", { type: "button", class: "bare", title: "Copy", "aria-label": `Copy: ${program}, ${name}`, onclick: () => copy(href) }, icon("copy")));
  }
}

/** A server on the portal's own machine is localhost to the portal; elsewhere it goes by the name that the page has. */
const fromHere = (url) => url && url.replace(/^(\w+:\/\/)(localhost|127\.0\.0\.1|\[::1\])(?=[:/]|$)/i, `$1${location.hostname}`);
