// All cameras of this host: links to their pages, and an overview of their images.
//
// The overview uses snapshots, one after the other, instead of streams: each proves that its camera works, and behind
// nginx all cameras share the six connections that a browser opens to a host.

import { $, el, write } from "./dom.js";
import { getJson } from "./portal.js";

const PAUSE_MS = 400;
const FAILED_PAUSE_MS = 3000;
const TIMEOUT_MS = 12000;
const WIDTH = 640;

export class Wall {
  isShown = false;
  #tiles = [];
  #round = 0;

  /** Calls `onToggle` after the overview is shown or hidden. */
  constructor(onToggle) {
    this.onToggle = onToggle;
  }

  async load() {
    let cameras;
    try {
      ({ cameras } = await getJson("v1/cameras"));
    } catch {
      return; // the only camera
    }
    if (!cameras || cameras.length < 2) return;
    const all = el("button", { type: "button", "aria-pressed": "false", id: "wall-toggle", onclick: () => this.show(!this.isShown) }, "All");
    $("cameras").replaceChildren(all, ...cameras.map(({ name, url, is_self }) =>
      el("a", is_self ? { href: url, "aria-current": "page", onclick: (event) => { event.preventDefault(); this.show(false); } } : { href: url }, name)));
    $("cameras").hidden = false;
    $("cameras").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
    this.#tiles = cameras.map(({ name, url, is_self }) => {
      const image = el("img", { alt: `Image of ${name}` });
      const state = el("span", { class: "muted" }, "…");
      const link = el("a", { class: "camera", href: url, onclick: (event) => { if (is_self) { event.preventDefault(); this.show(false); } } },
        image, el("span", { class: "caption" }, el("b", {}, name), state));
      return { link, image, state, base: new URL(url, location.href).href.replace(/[^/]*$/, "") };
    });
    $("wall").replaceChildren(...this.#tiles.map(({ link }) => link));
    document.addEventListener("visibilitychange", () => this.#restart());
    if (location.hash === "#all") this.show(true);
  }

  show(isShown) {
    this.isShown = isShown;
    $("wall").hidden = !isShown;
    $("main").hidden = isShown;
    $("wall-toggle").setAttribute("aria-pressed", String(isShown));
    document.querySelector("#cameras [aria-current]")?.classList.toggle("inactive", isShown);
    history.replaceState(null, "", isShown ? "#all" : location.pathname + location.search);
    this.#restart();
    this.onToggle();
  }

  #restart() {
    this.#round += 1;
    if (this.isShown && !document.hidden) for (const tile of this.#tiles) this.#refresh(tile, this.#round);
  }

  async #refresh(tile, round) {
    while (round === this.#round) {
      const isFresh = await this.#loadNext(tile);
      if (round !== this.#round) return;
      tile.link.classList.toggle("stale", !isFresh);
      write(tile.state, isFresh ? "Live" : "No image");
      await new Promise((resolve) => setTimeout(resolve, isFresh ? PAUSE_MS : FAILED_PAUSE_MS));
    }
  }

  #loadNext(tile) {
    const { link, base } = tile;
    return new Promise((resolve) => {
      const limit = setTimeout(() => {
        link.classList.add("stale");
        resolve(false);
      }, TIMEOUT_MS);
      const next = new Image();
      next.onload = async () => {
        clearTimeout(limit);
        await next.decode().catch(() => {});
        next.alt = tile.image.alt;
        tile.image.replaceWith(next); // setting its `src` could request the snapshot again
        tile.image = next;
        resolve(true);
      };
      next.onerror = () => {
        clearTimeout(limit);
        resolve(false);
      };
      next.src = `${base}snapshot.jpg?width=${WIDTH}&quality=70&max_age=1&autofocus=0&nonce=${Date.now()}`;
    });
  }
}
