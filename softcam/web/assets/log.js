// The log of the portal: the newest lines, new ones as they are logged, earlier ones on request.

import { $, el, write } from "./dom.js";
import { address, errorText, getJson } from "./portal.js";

const PAGE_LINES = 200;
const MAX_LINES = 2000; // in the page
const TYPING_MS = 300;
const PLACE = "v1/system/logs";

export class Log {
  #stream = null;
  #first = null; // ids and runs of the oldest and the newest line shown
  #last = null;
  #count = 0; // of loads: the response of an earlier one is ignored
  #timer = 0;

  constructor() {
    $("log-level").addEventListener("change", () => this.open());
    $("log-search").addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.open(), TYPING_MS);
    });
    $("log-older").addEventListener("click", () => this.#showOlder());
  }

  /** Loads the newest lines and follows the log until `close`. */
  async open() {
    this.close();
    const count = this.#count;
    try {
      const response = await this.#load();
      if (count !== this.#count) return;
      $("log-lines").replaceChildren();
      this.#first = this.#last = null;
      this.#add(response.entries, true);
      $("log-older").hidden = !response.has_more;
      this.#showMessage(response.entries.length ? "" : "No lines.");
      this.#follow();
    } catch (error) {
      if (count === this.#count) this.#showMessage(error.status === 403 ? "The log requires the key for full access." : errorText(error));
    }
  }

  /** Ends the connection: a browser opens at most six to a host. */
  close() {
    this.#count += 1;
    this.#stream?.close();
    this.#stream = null;
  }

  #query(more) {
    return new URLSearchParams({ level: $("log-level").value, search: $("log-search").value, ...more });
  }

  #load(more = {}) {
    return getJson(`${PLACE}?${this.#query({ lines: PAGE_LINES, ...more })}`);
  }

  #follow() {
    const stream = new EventSource(address(`${PLACE}/stream?${this.#query({ format: "json", after: this.#last?.id ?? 0 })}`));
    this.#stream = stream;
    stream.onmessage = ({ data }) => {
      this.#showMessage("");
      this.#add([JSON.parse(data)], true);
    };
    stream.addEventListener("skipped", ({ data }) => this.#append(el("li", { class: "run" }, data)));
    stream.onopen = () => this.#showMessage($("log-lines").childElementCount ? "" : "No lines.");
    stream.onerror = () => {
      // The browser connects again by itself, unless the portal refused the stream.
      this.#showMessage(stream.readyState === EventSource.CLOSED ? "New lines are not shown: the portal refused the connection." : "Connecting to the portal again …");
    };
  }

  async #showOlder() {
    const count = this.#count;
    $("log-older").disabled = true;
    try {
      const response = await this.#load({ before: this.#first.id });
      if (count !== this.#count) return;
      this.#add(response.entries, false);
      $("log-older").hidden = !response.has_more;
    } catch (error) {
      if (count === this.#count) this.#showMessage(errorText(error));
    } finally {
      $("log-older").disabled = false;
    }
  }

  /** Adds lines, which are sorted by age, at the end or at the beginning. */
  #add(entries, isNewer) {
    if (!entries.length) return;
    const made = [];
    let previous = isNewer ? this.#last : null;
    for (const entry of entries) {
      if (previous && previous.run !== entry.run) made.push(el("li", { class: "run" }, "The portal was started again"));
      made.push(line(entry));
      previous = entry;
    }
    if (isNewer) {
      this.#last = previous;
      this.#first ??= entries[0];
      this.#append(...made);
    } else {
      if (this.#first.run !== previous.run) made.push(el("li", { class: "run" }, "The portal was started again"));
      this.#first = entries[0];
      $("log-lines").prepend(...made);
    }
  }

  /** Appends rows; scrolls along if the end is visible. */
  #append(...rows) {
    const list = $("log-lines");
    const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 30;
    list.append(...rows);
    // What is being read further up stays, up to a limit.
    if (list.childElementCount > (isAtEnd ? MAX_LINES : 5 * MAX_LINES)) this.#trim(list);
    if (isAtEnd) list.scrollTop = list.scrollHeight;
  }

  /** Removes the oldest lines, which "Show older" loads again. */
  #trim(list) {
    while (list.childElementCount > MAX_LINES || !list.firstElementChild.dataset.id) list.firstElementChild.remove();
    const { id, run } = list.firstElementChild.dataset;
    this.#first = { id: Number(id), run: Number(run) };
    $("log-older").hidden = false;
  }

  #showMessage(text) {
    $("log-message").hidden = !text;
    write($("log-message"), text);
  }
}

function line({ id, run, time, level, message }) {
  const date = new Date(time * 1000);
  const shown = date.toLocaleString([], { month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
  const row = el("li", { class: `line ${level.toLowerCase()}` }, el("time", { dateTime: date.toISOString() }, shown), " ",
    ...(level === "INFO" ? [] : [el("b", {}, level), " "]), message);
  Object.assign(row.dataset, { id, run });
  return row;
}
