// Requests to the portal. The only module that knows its address and the form of its errors.

// Without credentials: fetch() rejects URLs that contain them, and the browser sends them by itself.
const BASE = location.origin + location.pathname;
const TIMEOUT_MS = 5000;

export const address = (path) => new URL(path, BASE).href;

/** An error response: `status`, and in `message` the portal's error text. */
export class HttpError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Why this client is read-only, once a change was rejected; null until then. */
export let readOnlyReason = null;

/** Whether an error means that the portal did not respond; a proxy then returns 502 or 504. */
export const isUnreachable = (error) => error instanceof TypeError || error.name === "TimeoutError" || error.status === 502 || error.status === 504;

/** The message to show for an error of a request. */
export const errorText = (error) => (isUnreachable(error) ? "The portal cannot be reached." : error.message);

/** Sends a request and returns the response. Throws HttpError, and what fetch() throws. */
export async function request(path, { method = "GET", body, timeout_ms = TIMEOUT_MS, credentials = "same-origin" } = {}) {
  const response = await fetch(address(path), {
    method, credentials, cache: "no-store",
    ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } }),
    signal: AbortSignal.timeout(timeout_ms),
  });
  if (response.ok) return response;
  const error = new HttpError(response.status, await errorDetail(response));
  if (response.status === 403 && method !== "GET") readOnlyReason ??= error.message;
  if (readOnlyReason) document.dispatchEvent(new Event("readonly"));
  throw error;
}

/** Sends a request and returns the JSON of the response. */
export const getJson = async (path, options) => (await request(path, options)).json();
export const postJson = (path, body = {}, timeout_ms = 20000) => getJson(path, { method: "POST", body, timeout_ms });

/** The text of an error response. */
export async function errorDetail(response) {
  try {
    return (await response.json()).detail;
  } catch {
    return `HTTP status ${response.status}`;
  }
}
