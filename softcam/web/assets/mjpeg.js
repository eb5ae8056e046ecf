// Reads the MJPEG stream part by part. An <img> would show it as well, but tells neither that a picture came nor how
// old it is, and a frozen picture would look live.

import { Refusal, address, reason } from "./portal.js";

const LONGEST_HEADER = 8192;
const text = new TextDecoder("latin1");

export class MjpegStream {
  #abort = null;

  /** `on.part(body, timestamp_s)` for each picture, `on.end(error)` once, unless it was stopped. */
  constructor(on) {
    this.on = on;
  }

  async start(query) {
    this.stop();
    const abort = (this.#abort = new AbortController());
    let error = new Error("The stream ended.");
    try {
      const answer = await fetch(address("stream.mjpg" + query), { cache: "no-store", signal: abort.signal });
      if (!answer.ok) throw new Refusal(answer.status, await reason(answer));
      await this.#read(answer.body.getReader(), abort.signal);
    } catch (fault) {
      error = fault;
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
        if (rest.length > LONGEST_HEADER) throw new Error("The stream is no MJPEG.");
        rest = join(rest, await next());
      }
      const header = text.decode(rest.subarray(0, end));
      const length = Number(/content-length: *(\d+)/i.exec(header)?.[1]);
      if (!length) throw new Error("A picture of the stream has no length.");
      const body = new Uint8Array(length);
      let have = Math.min(length, rest.length - end);
      body.set(rest.subarray(end, end + have));
      rest = rest.subarray(end + have);
      while (have < length) {
        const chunk = await next();
        const taken = Math.min(length - have, chunk.length);
        body.set(chunk.subarray(0, taken), have);
        have += taken;
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

/** Where the part's own bytes begin, -1 where the empty line has not come yet. */
function endOfHeader(bytes) {
  for (let at = bytes.indexOf(13); at >= 0 && at + 3 < bytes.length; at = bytes.indexOf(13, at + 1)) {
    if (bytes[at + 1] === 10 && bytes[at + 2] === 13 && bytes[at + 3] === 10) return at + 4;
  }
  return -1;
}
