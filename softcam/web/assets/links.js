// URLs for other programs, and publishing of H.264 to an RTSP server.

import { $, copy, duration, el, icon, isKnown, notify, write } from "./dom.js";
import { address, errorText, postJson } from "./portal.js";

// For each program: the names of its settings, and their values.
const PROGRAMS = [
  ["OctoPrint, Mainsail, Fluidd", [["Stream URL", "stream.mjpg"], ["Snapshot URL", "snapshot.jpg"]]],
  ["Home Assistant (MJPEG IP Camera)", [["MJPEG URL", "stream.mjpg"], ["Still image URL", "snapshot.jpg"]]],
  ["VLC, mpv, ffplay", [["Open network", "stream.mjpg"], ["RTSP", "rtsp"]]],
  ["Frigate, go2rtc", [["Source", "rtsp"], ["Source", "stream.mjpg"]]],
  ["Browsers and web pages", [["H.264", "stream.mp4"], ["WebRTC", "webrtc"]]],
  ["iPhones, televisions", [["HLS", "stream.m3u8"]]],
  ["Scripts", [["Status", "v1/camera/status"], ["Metrics", "metrics"], ["API documentation", "docs"]]],
];
const STATES = { off: "Off", connecting: "Connecting", waiting: "Waiting for the camera", publishing: "Publishing", failed: "Failed" };

export class Links {
  #rtsp = undefined;
  #isBusy = false;

  constructor() {
    $("publish").addEventListener("change", () => this.#publish($("publish").checked));
    $("local-only").hidden = !["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
  }

  update(status) {
    const publishing = status.publishing ?? null;
    $("publishing").hidden = !publishing;
    $("no-publishing").hidden = Boolean(publishing);
    const rtsp = reachable(status.rtsp?.url ?? publishing?.url ?? null);
    if (rtsp !== this.#rtsp) {
      this.#rtsp = rtsp;
      this.#draw();
    }
    if (!publishing) return;
    if (!this.#isBusy) $("publish").checked = status.streaming;
    const since = publishing.state === "publishing" && isKnown(publishing.since) ? ` for ${duration(Date.now() / 1000 - publishing.since)}` : "";
    const reconnects = publishing.reconnects ? `, ${publishing.reconnects} reconnects` : "";
    $("publish-state").dataset.state = publishing.state;
    write($("publish-state"), (STATES[publishing.state] ?? publishing.state) + since + reconnects);
    $("publish-error").hidden = !publishing.last_error;
    write($("publish-error"), publishing.last_error ?? "");
  }

  async #publish(isOn) {
    this.#isBusy = true;
    try {
      await postJson(`v1/streaming/${isOn ? "start" : "stop"}`);
      notify(isOn ? "Publishing started" : "Publishing stopped");
    } catch (error) {
      $("publish").checked = !isOn;
      notify(errorText(error), true);
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
      el("button", { type: "button", class: "icon-button", title: "Copy", "aria-label": `Copy: ${program}, ${name}`, onclick: () => copy(href) }, icon("copy")));
  }
}

/** The portal may know a server on its machine as localhost; other machines need the host name of this page. */
const reachable = (url) => url && url.replace(/^(\w+:\/\/)(localhost|127\.0\.0\.1|\[::1\])(?=[:/]|$)/i, `$1${location.hostname}`);
