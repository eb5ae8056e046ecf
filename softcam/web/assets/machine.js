// The state of the machine: one quiet line, and a warning for what an owner should do something about.

import { $, bytes, el, figure, icon, isKnown, loadChoice, storeChoice, write } from "./dom.js";
import { getJson } from "./portal.js";

const PERIOD_MS = 5000;
const MAX_FAILURES = 3; // the values of a busy portal are still shown
const GIB = 2 ** 30;
const DISMISSED = "dismissed-warnings"; // stored as the id of the boot and codes, separated by blanks

export class Machine {
  #loaded_ms = -Infinity;
  #shown = "";
  #names = "";
  #boot = "";
  #dismissed = new Set(); // codes of this boot
  #failures = 0;

  constructor() {
    const [boot, ...codes] = loadChoice(DISMISSED, "").split(" ");
    this.#boot = boot;
    this.#dismissed = new Set(codes);
  }

  /** Called with each status; requests the state of the machine less often than that. */
  async update() {
    if (performance.now() - this.#loaded_ms < PERIOD_MS) return;
    this.#loaded_ms = performance.now();
    try {
      this.#show(await getJson("v1/system/status"));
      this.#failures = 0;
    } catch {
      this.#failures += 1;
      if (this.#failures >= MAX_FAILURES) this.clear();
    }
  }

  clear() {
    $("machine").hidden = true;
    this.#showWarnings([]);
  }

  #show(machine) {
    const { temperature, cpu, memory, disk, network, uptime, warnings } = machine;
    const load = cpu?.load_average?.["1min"];
    const parts = [
      temperature && ["Temperature", `${figure(temperature.cpu_c, "°C", 0)}`],
      isKnown(cpu?.usage_percent) && ["CPU", figure(cpu.usage_percent, "%", 0)],
      isKnown(load) && ["Load", figure(load, "", 2)],
      memory && ["Memory", figure(memory.percent, "%", 0)],
      disk && ["Disk", `${bytes(disk.free_gb * GIB)} free`],
      network?.wifi && ["Wi-Fi", `${network.wifi.signal_dbm} dBm, ${network.wifi.status}`],
    ].filter(Boolean);
    $("machine").hidden = !parts.length;
    const known = [...$("machine").querySelectorAll("dd")];
    const names = parts.map(([name]) => name).join();
    if (names === this.#names) parts.forEach(([, value], index) => write(known[index], value));
    else $("machine").replaceChildren(...parts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
    this.#names = names;
    this.#forgetOutdated(uptime?.boot_id ?? "", warnings);
    this.#showWarnings(warnings);
  }

  /** A dismissed warning is shown again after another boot, and if it happens again. */
  #forgetOutdated(boot, warnings) {
    if (boot !== this.#boot) this.#dismissed.clear();
    this.#boot = boot;
    for (const { code, is_current } of warnings) if (is_current && this.#dismissed.delete(`${code}_occurred`)) this.#store();
  }

  #store() {
    if (this.#boot) storeChoice(DISMISSED, [this.#boot, ...this.#dismissed].join(" "));
  }

  #dismiss(code, warnings) {
    this.#dismissed.add(code);
    this.#store();
    this.#showWarnings(warnings);
  }

  /** Redrawn only for other warnings: screen readers announce every change. */
  #showWarnings(warnings) {
    const shown = warnings.filter(({ code, is_current }) => is_current || !this.#dismissed.has(code));
    const text = JSON.stringify(shown.map(({ code }) => code));
    $("machine-warnings").hidden = !shown.length;
    if (text === this.#shown) return;
    this.#shown = text;
    $("machine-warnings").replaceChildren(...shown.map(({ code, message, remedy, is_current }) => {
      const row = el("p", {}, el("span", {}, el("b", {}, message), ` ${remedy}`));
      if (!is_current) {
        row.className = "muted";
        row.append(el("button", { type: "button", class: "icon-button", title: "Dismiss until the next boot", "aria-label": `Dismiss: ${message}`, onclick: () => this.#dismiss(code, warnings) }, icon("close")));
      }
      return row;
    }));
  }
}
