// Reads the MJPEG stream part by part. An <img> would also show it, but reports neither new images nor their age, so a
// frozen image would look live.

import { HttpError, address, errorDetail } from "./portal.js";

// WebKit's fetch() rejects multipart/x-mixed-replace; for this type the portal sends the same bytes.
const STREAM_HEADERS = { Accept: "application/octet-stream" };
const MAX_HEADER = 8192;
const text = new TextDecoder("latin1");

export class MjpegStream {
  #abort = null;

  /** Calls `on.part(body, timestamp_s)` for each JPEG and `on.end(error)` once, unless stopped before. */
  constructor(on) {
    this.on = on;
  }

  async start(query) {
    this.stop();
    const abort = (this.#abort = new AbortController());
    let error = new Error("The stream ended.");
    try {
      const response = await fetch(address("stream.mjpg" + query), { cache: "no-store", headers: STREAM_HEADERS, signal: abort.signal });
      if (!response.ok) throw new HttpError(response.status, await errorDetail(response));
      await this.#read(response.body.getReader(), abort.signal);
    } catch (failure) {
      error = failure;
    }
    if (!abort.signal.aborted) {
      abort.abort();
      this.on.end(error);
    }
  }

  stop() {
    this.#abort?.abort();
  }

  async #read(reader, signal) {
    let rest = new Uint8Array(0);
    const next = async () => {
      const { done, value } = await reader.read();
      if (done) throw new Error("The stream ended.");
      return value;
    };
    for (;;) {
      let end;
      while ((end = endOfHeader(rest)) < 0) {
        if (rest.length > MAX_HEADER) throw new Error("The stream is not MJPEG.");
        rest = join(rest, await next());
      }
      const header = text.decode(rest.subarray(0, end));
      const length = Number(/content-length: *(\d+)/i.exec(header)?.[1]);
      if (!length) throw new Error("A part of the stream has no Content-Length.");
      const body = new Uint8Array(length);
      let received = Math.min(length, rest.length - end);
      body.set(rest.subarray(end, end + received));
      rest = rest.subarray(end + received);
      while (received < length) {
        const chunk = await next();
        const taken = Math.min(length - received, chunk.length);
        body.set(chunk.subarray(0, taken), received);
        received += taken;
        rest = chunk.subarray(taken);
      }
      if (signal.aborted) return;
      this.on.part(body, Number(/x-timestamp: *([\d.]+)/i.exec(header)?.[1]) || null);
    }
  }
}

function join(first, second) {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

/** The offset behind the header of a part; -1 if the header is incomplete. */
function endOfHeader(bytes) {
  for (let at = bytes.indexOf(13); at >= 0 && at + 3 < bytes.length; at = bytes.indexOf(13, at + 1)) {
    if (bytes[at + 1] === 10 && bytes[at + 2] === 13 && bytes[at + 3] === 10) return at + 4;
  }
  return -1;
}
