// Presets: apply one, save the current controls as one, rename, delete, export and import.

import { $, confirmed, entered, el, notify, write } from "./dom.js";
import { address, errorText, getJson, postJson, request } from "./portal.js";

const PERIOD_MS = 5000;
const TIMEOUT_MS = 40000; // the camera may be reopened

export class Presets {
  #listed = [];
  #shape = "";
  #loaded_ms = -Infinity;
  #loads = 0; // the response of an earlier one is ignored

  /** Calls `onChange` after a change, and `onRestart` before one that may reopen the camera. */
  constructor(onChange, onRestart) {
    this.onChange = onChange;
    this.onRestart = onRestart;
    $("preset").addEventListener("change", () => this.#describe());
    $("preset-apply").addEventListener("click", () => this.#run(() => this.#apply()));
    $("preset-save").addEventListener("click", () => this.#run(() => this.#save()));
    $("preset-rename").addEventListener("click", () => this.#run(() => this.#rename()));
    $("preset-delete").addEventListener("click", () => this.#run(() => this.#delete()));
    $("preset-import").addEventListener("click", () => $("preset-file").click());
    $("preset-file").addEventListener("change", () => this.#run(() => this.#import()));
    $("preset-export").href = address("v1/presets.json");
  }

  /** Called with each load of the controls. */
  async update() {
    if (performance.now() - this.#loaded_ms < PERIOD_MS) return;
    await this.load().catch(() => {});
  }

  async load() {
    this.#loaded_ms = performance.now();
    const count = ++this.#loads;
    const { presets, current } = await getJson("v1/presets");
    if (count !== this.#loads) return;
    this.#listed = presets;
    const parts = Object.values(current).filter(Boolean);
    const name = parts[0]?.name;
    const shape = JSON.stringify(presets.map(({ name, title }) => [name, title]));
    if (shape !== this.#shape) {
      const isFirst = !this.#shape;
      this.#shape = shape;
      this.#draw(isFirst ? name : $("preset").value);
    }
    $("presets").hidden = false;
    const shown = presets.find((preset) => preset.name === name);
    const isModified = parts.some((part) => part.name === name && part.is_modified);
    write($("preset-current"), shown ? `${shown.title}${isModified ? ", changed" : ""}` : "");
    this.#describe();
  }

  get #selected() {
    return this.#listed.find(({ name }) => name === $("preset").value);
  }

  #draw(selected) {
    const option = ({ name, title }) => el("option", { value: name }, title);
    const own = this.#listed.filter((preset) => !preset.is_built_in);
    $("preset").replaceChildren(...[
      el("optgroup", { label: "Built-in" }, ...this.#listed.filter((preset) => preset.is_built_in).map(option)),
      own.length ? el("optgroup", { label: "Saved" }, ...own.map(option)) : null,
    ].filter(Boolean));
    if (this.#listed.some(({ name }) => name === selected)) $("preset").value = selected;
  }

  #describe() {
    const preset = this.#selected;
    if (!preset) return;
    const leftOut = preset.left_out.length ? `Left out, since this camera does not support it: ${preset.left_out.map(({ field }) => field).join(", ")}.` : "";
    const limited = preset.limited.map(({ field, reason }) => `${field}: ${reason}.`);
    write($("preset-description"), [preset.description, leftOut, ...limited].filter(Boolean).join(" "));
    for (const id of ["preset-rename", "preset-delete"]) $(id).hidden = preset.is_built_in;
  }

  /** Runs an action with the buttons disabled, and shows its error. */
  async #run(action) {
    $("presets").disabled = true;
    try {
      await action();
      await this.load();
    } catch (error) {
      notify(errorText(error), true);
    }
    $("presets").disabled = false;
  }

  async #apply() {
    const { name, title } = this.#selected;
    this.onRestart();
    const { left_out, limited, note } = await postJson(`${place(name)}/apply`, {}, TIMEOUT_MS);
    const reasons = [...left_out.map(({ field, reason }) => `${field} left out: ${reason}`),
      ...limited.map(({ field, reason }) => `${field}: ${reason}`), note].filter(Boolean);
    notify(`${title} applied${reasons.length ? `; ${reasons.join("; ")}` : ""}`);
    this.onChange();
  }

  async #save() {
    const own = this.#selected?.is_built_in ? "" : this.#selected?.name ?? "";
    const name = await entered("Save the current controls as", "Name", own, "Save");
    if (!name) return;
    if (this.#listed.some((preset) => preset.name === name && !preset.is_built_in) &&
      !(await confirmed("Replace this preset?", `${name} is replaced by the current controls.`, "Replace"))) return;
    await request(place(name), { method: "PUT", body: {} });
    await this.load();
    this.#draw(name);
    notify(`${name} saved`);
  }

  async #rename() {
    const old = this.#selected.name;
    const name = await entered("Rename this preset", "Name", old, "Rename");
    if (!name || name === old) return;
    await postJson(`${place(old)}/rename`, { name });
    await this.load();
    this.#draw(name);
  }

  async #delete() {
    const { name } = this.#selected;
    if (!(await confirmed("Delete this preset?", `${name} is deleted. The current controls stay as they are.`, "Delete"))) return;
    await request(place(name), { method: "DELETE" });
    notify(`${name} deleted`);
  }

  async #import() {
    const [file] = $("preset-file").files;
    $("preset-file").value = "";
    if (!file) return;
    let content;
    try {
      content = JSON.parse(await file.text());
    } catch {
      throw new Error(`${file.name} is not a JSON file.`);
    }
    const names = Array.isArray(content?.presets) ? content.presets.map((each) => each?.name) : [];
    const known = this.#listed.filter(({ name, is_built_in }) => !is_built_in && names.includes(name)).map(({ name }) => name);
    if (known.length && !(await confirmed("Replace existing presets?", `Replaced by those in ${file.name}: ${known.join(", ")}`, "Replace"))) return;
    const response = await postJson(`v1/presets${known.length ? "?replace=1" : ""}`, content);
    notify(`Imported: ${response.imported.join(", ") || "nothing"}`);
  }
}

const place = (name) => `v1/presets/${encodeURIComponent(name)}`;
