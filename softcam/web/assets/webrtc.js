// Plays a WebRTC stream from the media server named in the page. WHEP: the offer by POST, the answer in the response,
// DELETE at the end. Reconnects after any error and shows the reason. In a hidden frame of the main page it shows
// nothing: it dispatches the stream, received bytes and state changes as events to the frame element (peer.js).
"use strict";
(() => {
  const GATHER_MS = 1000; // for ICE candidates; later ones are sent by trickle ICE
  const FIRST_FRAME_MS = 10_000;
  const STALL_MS = 5000; // without a frame
  const STATS_PERIOD_MS = 1000;
  const FIRST_STATS_MS = 200; // until the first frame
  const RETRY_PAUSES_MS = [500, 1000, 2000, 3000];
  const MAX_DETAIL = 200; // characters of the server's own words
  const { whep, authorization } = document.body.dataset;
  const video = document.getElementById("video");
  const stateText = document.getElementById("state");
  const notice = document.getElementById("notice");
  const frame = window.frameElement;
  let session = null;
  let retries = 0;
  let timer = 0;

  class ConnectionError extends Error {}

  function show(state, text, reason) {
    stateText.dataset.state = state;
    stateText.textContent = text;
    notice.textContent = reason;
    notice.hidden = state === "live";
    notifyFrame("state", { state, reason });
  }

  function notifyFrame(name, detail) {
    frame?.dispatchEvent(new CustomEvent(name, { detail }));
  }

  function request(url, method, contentType, body, more = {}) {
    const headers = { ...more };
    if (contentType) headers["Content-Type"] = contentType;
    if (authorization) headers.Authorization = authorization;
    return fetch(url, { method, headers, body, cache: "no-store", keepalive: method === "DELETE" });
  }

  /** Why the server rejected the offer, with its own words. */
  async function rejection(answer) {
    const reason = reasonOf(answer.status), detail = await detailOf(answer).catch(() => "");
    return detail ? `${reason}: ${detail}.` : `${reason}.`;
  }

  function reasonOf(status) {
    switch (status) {
      case 401: case 403:
        if (authorization) return "The media server rejected the user name or password";
        return status === 401 ? "The media server requires a user name and password" : "The media server denied access";
      case 404: return "The media server has no stream at this address";
      case 405: return "The media server has no WHEP endpoint at this address";
      default: return `The media server returned status ${status}`;
    }
  }

  async function detailOf(answer) {
    const type = answer.headers.get("Content-Type") || "", body = await answer.text();
    let text = "";
    if (type.startsWith("text/plain")) text = body;
    else if (/^application\/(problem\+)?json/.test(type)) {
      const { error, detail, message, title } = JSON.parse(body);
      text = String(error ?? detail ?? message ?? title ?? "");
    }
    return text.replace(/\s+/g, " ").trim().slice(0, MAX_DETAIL).replace(/\.$/, "");
  }

  /** Why there was no answer that this page may read; a browser does not say. */
  async function silence() {
    const { host, origin, protocol } = new URL(whep);
    if (location.protocol === "https:" && protocol === "http:") {
      return `This page is opened over HTTPS, so the browser blocks ${origin}: the media server needs HTTPS too.`;
    }
    try {
      await fetch(`${origin}/`, { mode: "no-cors", cache: "no-store" });
    } catch {
      return `No response from ${host}.`;
    }
    return `${host} does not permit requests from this page (CORS).`;
  }

  function gathered(peer) {
    return new Promise((resolve) => {
      const limit = setTimeout(resolve, GATHER_MS);
      const check = () => {
        if (peer.iceGatheringState !== "complete") return;
        clearTimeout(limit);
        resolve();
      };
      peer.addEventListener("icegatheringstatechange", check);
      check();
    });
  }

  class Session {
    constructor() {
      this.peer = new RTCPeerConnection();
      this.location = null; // the session's URL
      this.tag = "*";
      this.late = []; // candidates found after the offer
      this.isEnded = false;
      this.frames = 0;
      this.bytes = 0;
      this.lastFrameAt = performance.now();
      this.limitMs = FIRST_FRAME_MS;
      this.statsTimer = setInterval(() => this.checkStats(), FIRST_STATS_MS);
      this.peer.addTransceiver("video", { direction: "recvonly" });
      this.peer.addEventListener("track", ({ track }) => {
        const stream = new MediaStream([track]);
        if (frame) notifyFrame("stream", stream);
        else video.srcObject = stream;
      });
      this.peer.addEventListener("connectionstatechange", () => {
        if (this.peer.connectionState === "failed") this.fail("The connection to the media server was lost.");
      });
    }

    /** Notice that the server ends the session: that closes the transport, but the connection remains connected. */
    watchTransport() {
      const { transport } = this.peer.getReceivers()[0];
      transport?.addEventListener("statechange", () => {
        if (transport.state !== "closed" || this.isEnded) return;
        this.location = null; // nothing is left to delete
        this.fail("The media server ended the session.", "ended");
      });
    }

    async connect() {
      const peer = this.peer;
      await peer.setLocalDescription();
      await gathered(peer);
      const offer = peer.localDescription.sdp;
      peer.addEventListener("icecandidate", ({ candidate }) => {
        if (candidate && candidate.candidate) this.send(candidate);
      });
      let answer;
      try {
        answer = await request(whep, "POST", "application/sdp", offer);
      } catch {
        throw new ConnectionError(await silence());
      }
      if (answer.status !== 201 && answer.status !== 200) throw new ConnectionError(await rejection(answer));
      const location = answer.headers.get("Location");
      this.location = location && new URL(location, whep).href;
      this.tag = answer.headers.get("ETag") || "*";
      if (this.isEnded) this.end(); // the page was closed in the meantime
      if (this.isEnded) return;
      await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
      this.watchTransport();
      this.late.splice(0).forEach((candidate) => this.send(candidate));
    }

    send(candidate) { // trickle ICE (RFC 8840)
      if (!this.location) {
        this.late.push(candidate);
        return;
      }
      const own = this.peer.localDescription.sdp;
      const lines = [
        /^a=ice-ufrag:.*$/m.exec(own)[0].trim(),
        /^a=ice-pwd:.*$/m.exec(own)[0].trim(),
        "m=video 9 UDP/TLS/RTP/SAVPF 0",
        `a=mid:${candidate.sdpMid}`,
        `a=${candidate.candidate}`,
      ];
      const body = `${lines.join("\r\n")}\r\n`;
      request(this.location, "PATCH", "application/trickle-ice-sdpfrag", body, { "If-Match": this.tag }).catch(() => {});
    }

    async checkStats() {
      const { frames, bytes } = await this.received();
      const now = performance.now();
      if (this.isEnded) return;
      notifyFrame("bytes", bytes - this.bytes);
      this.bytes = bytes;
      if (frames !== this.frames) {
        this.frames = frames;
        this.lastFrameAt = now;
        if (this.limitMs !== STALL_MS) {
          this.limitMs = STALL_MS;
          clearInterval(this.statsTimer);
          this.statsTimer = setInterval(() => this.checkStats(), STATS_PERIOD_MS);
        }
        if (frame || video.videoWidth > 0) {
          retries = 0;
          if (!frame) document.getElementById("frame").style.setProperty("--ratio", video.videoWidth / video.videoHeight);
          show("live", "Live", "");
        }
      } else if (now - this.lastFrameAt > this.limitMs) {
        this.fail(this.limitMs === STALL_MS ? "The stream stalled." : "No video received.");
      }
    }

    async received() {
      let frames = 0, bytes = 0;
      (await this.peer.getStats()).forEach((report) => {
        if (report.type === "inbound-rtp") [frames, bytes] = [report.framesDecoded || 0, report.bytesReceived || 0];
      });
      return { frames, bytes };
    }

    /** `state` is "ended" if the server ended the session: it may offer a new one at once, for example in another size. */
    fail(reason, state = "lost") {
      if (this.isEnded) return;
      this.end();
      const pauseMs = RETRY_PAUSES_MS[Math.min(retries, RETRY_PAUSES_MS.length - 1)];
      retries += 1;
      show(state, "Retrying", reason);
      timer = setTimeout(play, pauseMs);
    }

    end() {
      this.isEnded = true;
      clearInterval(this.statsTimer);
      this.peer.close();
      if (this.location) request(this.location, "DELETE").catch(() => {});
      this.location = null;
    }
  }

  async function play() {
    clearTimeout(timer);
    const current = new Session();
    session = current;
    if (retries === 0) show("connecting", "Connecting", "Connecting …");
    try {
      await current.connect();
    } catch (error) {
      current.fail(error instanceof ConnectionError ? error.message : `Invalid response of the media server (${error.message}).`);
    }
  }

  function endSession() {
    clearTimeout(timer);
    if (session) session.end();
  }

  document.getElementById("full").addEventListener("click", () => {
    document.getElementById("frame").requestFullscreen().catch(() => {});
  });
  window.addEventListener("pagehide", endSession);
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) play();
  });
  if (!window.RTCPeerConnection) show("lost", "Not supported", "This browser does not support WebRTC.");
  else play();
})();
