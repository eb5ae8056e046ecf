// Shows snapshots where no stream shows an image: the portal has no place for another client, or the browser plays none.

import { STREAM_HEADERS } from "./mjpeg.js";
import { HttpError, address, errorDetail } from "./portal.js";

export const PERIOD_MS = 2000;
const PROBE_PERIODS = 5; // after so many snapshots, it is tried whether the portal accepts a stream again

export class SnapshotStream {
  #abort = null;

  /**
   * Calls `on.part(body, timestamp_s)` for each snapshot and `on.end(error)` once, unless stopped before; the error is
   * null if the portal accepts a stream again.
   */
  constructor(on) {
    this.on = on;
  }

  /** `isRejected`: the portal rejected a stream, so the snapshots end when it accepts one. */
  async start(isRejected) {
    this.stop();
    const { signal } = (this.#abort = new AbortController());
    let error = null;
    try {
      for (let count = 1; ; count += 1) {
        const response = await fetch(address(`snapshot.jpg?max_age=1&autofocus=0&nonce=${Date.now()}`), { cache: "no-store", signal });
        if (!response.ok) throw new HttpError(response.status, await errorDetail(response));
        const body = new Uint8Array(await response.arrayBuffer());
        signal.throwIfAborted();
        this.on.part(body, Number(response.headers.get("X-Timestamp")) || null);
        await new Promise((resolve) => setTimeout(resolve, PERIOD_MS));
        signal.throwIfAborted();
        if (isRejected && count % PROBE_PERIODS === 0 && (await isStreamAccepted(signal))) break;
      }
    } catch (failure) {
      error = failure;
    }
    if (signal.aborted) return;
    this.stop();
    this.on.end(error);
  }

  stop() {
    this.#abort?.abort();
  }
}

/** Whether the portal accepts a stream; it is closed at once. */
async function isStreamAccepted(signal) {
  const probe = new AbortController();
  signal.addEventListener("abort", () => probe.abort(), { once: true });
  const response = await fetch(address("stream.mjpg"), { cache: "no-store", headers: STREAM_HEADERS, signal: probe.signal });
  probe.abort();
  return response.ok;
}
