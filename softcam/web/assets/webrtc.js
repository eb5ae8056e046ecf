// Plays a stream by WebRTC from the server that the page names: WHEP, one offer by POST, one answer, DELETE at the end.
// Tries again and again, whatever went wrong, and says what that was. In a frame of the page with the live picture it
// shows nothing itself: the frame's element hears of the stream, its bytes and its troubles (peer.js).
"use strict";
(() => {
  const GATHER_MS = 1000; // then the offer goes out, and what is found later follows
  const FIRST_PICTURE_MS = 10_000;
  const SILENCE_MS = 5000; // without a frame
  const LOOK_MS = 1000;
  const PAUSES_MS = [500, 1000, 2000, 3000];
  const { whep, authorization } = document.body.dataset;
  const video = document.getElementById("video");
  const stateText = document.getElementById("state");
  const notice = document.getElementById("notice");
  const frame = window.frameElement;
  let session = null;
  let tries = 0;
  let timer = 0;

  class Trouble extends Error {}

  function show(state, words, reason) {
    stateText.dataset.state = state;
    stateText.textContent = words;
    notice.textContent = reason;
    notice.hidden = state === "live";
    tell("told", { state, reason });
  }

  function tell(name, detail) {
    frame?.dispatchEvent(new CustomEvent(name, { detail }));
  }

  function ask(url, method, contentType, body, more = {}) {
    const headers = { ...more };
    if (contentType) headers["Content-Type"] = contentType;
    if (authorization) headers.Authorization = authorization;
    return fetch(url, { method, headers, body, cache: "no-store", keepalive: method === "DELETE" });
  }

  function reasonOf(status) {
    switch (status) {
      case 401: case 403: return "The server wants a user and a password, or others than it was given.";
      case 404: return "Nothing is published at the server just now.";
      case 405: return "The server does not speak WHEP at this address.";
      default: return `The server answers ${status}.`;
    }
  }

  function gathered(peer) {
    return new Promise((resolve) => {
      const limit = setTimeout(resolve, GATHER_MS);
      const look = () => {
        if (peer.iceGatheringState !== "complete") return;
        clearTimeout(limit);
        resolve();
      };
      peer.addEventListener("icegatheringstatechange", look);
      look();
    });
  }

  class Session {
    constructor() {
      this.peer = new RTCPeerConnection();
      this.place = null; // where the server keeps the session
      this.tag = "*";
      this.late = []; // candidates that were found after the offer
      this.isOver = false;
      this.frames = 0;
      this.bytes = 0;
      this.movedAt = performance.now();
      this.limitMs = FIRST_PICTURE_MS;
      this.looking = setInterval(() => this.look(), LOOK_MS);
      this.peer.addTransceiver("video", { direction: "recvonly" });
      this.peer.addEventListener("track", ({ track }) => {
        const stream = new MediaStream([track]);
        if (frame) tell("stream", stream);
        else video.srcObject = stream;
      });
      this.peer.addEventListener("connectionstatechange", () => {
        if (this.peer.connectionState === "failed") this.fail("The connection to the server is lost.");
      });
    }

    async begin() {
      const peer = this.peer;
      await peer.setLocalDescription();
      await gathered(peer);
      const offer = peer.localDescription.sdp;
      peer.addEventListener("icecandidate", ({ candidate }) => {
        if (candidate && candidate.candidate) this.send(candidate);
      });
      let answer;
      try {
        answer = await ask(whep, "POST", "application/sdp", offer);
      } catch {
        throw new Trouble(`No answer from ${new URL(whep).host}.`);
      }
      if (answer.status !== 201 && answer.status !== 200) throw new Trouble(reasonOf(answer.status));
      const place = answer.headers.get("Location");
      this.place = place && new URL(place, whep).href;
      this.tag = answer.headers.get("ETag") || "*";
      if (this.isOver) this.end(); // the page was left meanwhile
      if (this.isOver) return;
      await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
      this.late.splice(0).forEach((candidate) => this.send(candidate));
    }

    send(candidate) { // trickle ICE (RFC 8840)
      if (!this.place) {
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
      ask(this.place, "PATCH", "application/trickle-ice-sdpfrag", body, { "If-Match": this.tag }).catch(() => {});
    }

    async look() {
      const { frames, bytes } = await this.received();
      const now = performance.now();
      if (this.isOver) return;
      tell("bytes", bytes - this.bytes);
      this.bytes = bytes;
      if (frames !== this.frames) {
        this.frames = frames;
        this.movedAt = now;
        this.limitMs = SILENCE_MS;
        if (frame || video.videoWidth > 0) {
          tries = 0;
          if (!frame) document.getElementById("frame").style.setProperty("--ratio", video.videoWidth / video.videoHeight);
          show("live", "live", "");
        }
      } else if (now - this.movedAt > this.limitMs) {
        this.fail(this.limitMs === SILENCE_MS ? "The picture stands still." : "No picture comes.");
      }
    }

    async received() {
      let frames = 0, bytes = 0;
      (await this.peer.getStats()).forEach((report) => {
        if (report.type === "inbound-rtp") [frames, bytes] = [report.framesDecoded || 0, report.bytesReceived || 0];
      });
      return { frames, bytes };
    }

    fail(reason) {
      if (this.isOver) return;
      this.end();
      const pauseMs = PAUSES_MS[Math.min(tries, PAUSES_MS.length - 1)];
      tries += 1;
      show("lost", "trying again", reason);
      timer = setTimeout(play, pauseMs);
    }

    end() {
      this.isOver = true;
      clearInterval(this.looking);
      this.peer.close();
      if (this.place) ask(this.place, "DELETE").catch(() => {});
      this.place = null;
    }
  }

  async function play() {
    clearTimeout(timer);
    const mine = new Session();
    session = mine;
    if (tries === 0) show("connecting", "connecting", "Connecting …");
    try {
      await mine.begin();
    } catch (error) {
      mine.fail(error instanceof Trouble ? error.message : `The server's answer cannot be used (${error.message}).`);
    }
  }

  function leave() {
    clearTimeout(timer);
    if (session) session.end();
  }

  document.getElementById("full").addEventListener("click", () => {
    document.getElementById("frame").requestFullscreen().catch(() => {});
  });
  window.addEventListener("pagehide", leave);
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) play();
  });
  if (!window.RTCPeerConnection) show("lost", "not possible", "This browser knows no WebRTC.");
  else play();
})();
