// Asks the portal; the only module that knows where it is and what its refusals look like.

// Without a user and a password: fetch() refuses an address that bears them, and the browser sends them by itself.
const HERE = location.origin + location.pathname;
const PATIENCE_MS = 5000;

export const address = (path) => new URL(path, HERE).href;

/** An answer that is no success: `status`, and `message`, the portal's own words. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Why this visitor may change nothing, once a change was refused; until then nobody knows. */
export let looksOnly = null;

/** Whether an error says that nobody answered, which a proxy tells with 502 or 504, and not that somebody refused. */
export const isAway = (error) => error instanceof TypeError || error.name === "TimeoutError" || error.status === 502 || error.status === 504;

/** The response of a GET, POST or DELETE. Raises Refusal, and what fetch() raises. */
export async function request(path, { method = "GET", body, patience_ms = PATIENCE_MS, credentials = "same-origin" } = {}) {
  const answer = await fetch(address(path), {
    method, credentials, cache: "no-store",
    ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } }),
    signal: AbortSignal.timeout(patience_ms),
  });
  if (answer.ok) return answer;
  const refusal = new Refusal(answer.status, await reason(answer));
  if (answer.status === 403 && method !== "GET") looksOnly ??= refusal.message;
  if (looksOnly) document.dispatchEvent(new Event("looksonly"));
  throw refusal;
}

/** The JSON of an answer. */
export const ask = async (path, options) => (await request(path, options)).json();
export const post = (path, body = {}, patience_ms = 20000) => ask(path, { method: "POST", body, patience_ms });

export async function reason(answer) {
  try {
    return (await answer.json()).detail;
  } catch {
    return `The portal answers with ${answer.status}.`;
  }
}
