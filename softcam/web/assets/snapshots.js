// Shows snapshots where no stream shows an image: the portal has no place for another client, or the browser plays none.

import { HttpError, address, errorDetail } from "./portal.js";

export const PERIOD_MS = 2000;

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
      for (;;) {
        const response = await fetch(address(`snapshot.jpg?max_age=1&autofocus=0&nonce=${Date.now()}`), { cache: "no-store", signal });
        if (!response.ok) throw new HttpError(response.status, await errorDetail(response));
        const body = new Uint8Array(await response.arrayBuffer());
        signal.throwIfAborted();
        this.on.part(body, Number(response.headers.get("X-Timestamp")) || null);
        await new Promise((resolve) => setTimeout(resolve, PERIOD_MS));
        signal.throwIfAborted();
        // HEAD occupies no place: a stream as a probe could take the last one.
        if (isRejected && (await fetch(address("stream.mjpg"), { method: "HEAD", cache: "no-store", signal })).ok) break;
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
