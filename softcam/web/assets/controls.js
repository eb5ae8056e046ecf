// The camera's controls, generated from the portal's control description. Only their order and labels are defined here.

import { $, confirmed, el, icon, isKnown, loadChoice, notify, storeChoice, write } from "./dom.js";
import { errorText, getJson, postJson } from "./portal.js";
import { makeRow, spaced, toValid } from "./rows.js";

// Sections in order. "group.field" selects one field, "group" its remaining fields. All others are shown in "More".
const SECTIONS = [
  ["Exposure", ["auto_exposure", "manual_exposure", "image_processing.exposure_value", "ae_exposure_mode", "ae_constraint_mode", "image_processing.metering", "image_processing.flicker"]],
  ["Exposure limits", ["exposure_limits"]],
  ["White balance", ["awb", "awb_preset", "manual_awb"]],
  ["Focus", ["autofocus.trigger", "autofocus.window", "autofocus_mode", "lens_position", "autofocus_range", "autofocus"]],
  ["Picture", ["image_processing", "hdr", "lens_correction"]],
  ["Rotate and flip", ["transform"]],
  ["Day and night", ["day_night_mode"]],
  ["Stream", ["stream", "fov_mode"]],
];
const INITIALLY_OPEN = new Set(["Exposure", "Focus", "White balance"]);
const HIDDEN = new Set(["roi"]); // zoom, on the picture itself
const LABELS = {
  "auto_exposure.enabled": "Automatic exposure", "manual_exposure.exposure_us": "Exposure time",
  "min_exposure_us": "Shortest exposure", "max_exposure_us": "Longest exposure", "image_processing.exposure_value": "Exposure compensation",
  "ae_exposure_mode.mode": "Exposure mode", "ae_constraint_mode.mode": "Constraint", "awb.enabled": "Automatic white balance",
  "awb_preset.preset": "White balance preset", "autofocus.trigger": "Focus now", "autofocus.window": "Focus point",
  "autofocus_mode.mode": "Focus mode", "lens_position.position": "Manual focus", "range_mode": "Focus range",
  "hdr.mode": "HDR", "lens_correction.enabled": "Lens correction", "hflip": "Flip horizontally",
  "vflip": "Flip vertically", "day_night_mode.mode": "Scene mode", "threshold_lux": "Night below",
  "night_awb_preset": "White balance preset at night", "min_gain": "Lowest gain", "max_gain": "Highest gain", "speed": "Focus speed", "flicker": "Anti-flicker", "fov_mode.mode": "Field of view", "fps": "Frame rate",
};
// The value of a control that is not set: what the camera currently uses.
const LIVE = {
  "auto_exposure.enabled": (status) => status.auto_exposure, "awb.enabled": (status) => status.awb_enabled,
  "manual_exposure.exposure_us": (status) => status.exposure_us, "manual_exposure.gain": (status) => status.analogue_gain,
  "manual_awb.red_gain": (status) => status.colour_gains?.[0], "manual_awb.blue_gain": (status) => status.colour_gains?.[1],
  "lens_position.position": (status) => status.lens_position, "autofocus_mode.mode": (status) => status.autofocus_mode,
  "stream.width": (status) => status.width, "stream.height": (status) => status.height,
  "stream.fps": (status) => (status.frame_duration_us ? Math.round(1e7 / status.frame_duration_us) / 10 : status.fps),
};
// A manual value is reset by switching the automatic on, unless the field is nullable.
const AUTOMATIC = {
  autofocus_mode: ["autofocus_mode", { mode: "continuous" }],
  manual_exposure: ["auto_exposure", { enabled: true }], manual_awb: ["awb", { enabled: true }],
  lens_position: ["autofocus_mode", { mode: "continuous" }],
};
const COMPLETE = new Set(["manual_exposure"]); // groups that must be sent with all their fields
const API_HINT = /; (null .*|\S+ if omitted)$/; // the part of a help text that is for API clients
const SETTLE_MS = 1500; // responses within this time after a change may contain earlier values

export class Controls {
  groups = null;
  #status = {};
  #rows = new Map(); // by "group.field"
  #pending = new Map(); // values to be sent, by group
  #isSending = false;
  #changed_ms = new Map(); // time of the last change, by group
  #shape = "";

  /** Calls `onChange` after a change, and `onRestart` before a change that reopens the camera. */
  constructor(onChange, onRestart) {
    this.onChange = onChange;
    this.onRestart = onRestart;
    $("reset-all").addEventListener("click", () => this.#resetAll());
  }

  /** Loads the control description; called periodically, so that changes of other clients appear. */
  async load() {
    const response = await getJson("v1/camera/controls");
    this.groups = response.controls;
    const shape = JSON.stringify(Object.entries(response.controls).map(([name, group]) => [
      name, Object.entries(group.fields).map(([field, { available, choices, minimum, maximum }]) => [field, available, choices, minimum, maximum]),
    ]));
    if (shape !== this.#shape) {
      this.#shape = shape;
      this.#draw();
    }
    this.#send();
    const warnings = [response.controls_set_aside, response.controls_not_kept, ...response.controls_not_applied].filter(Boolean);
    $("control-warnings").hidden = !warnings.length;
    write($("control-warnings"), warnings.join(" · "));
    this.#refresh();
    return this.groups;
  }

  /** Whether the capabilities of the camera are known, which requires that it was opened. */
  get isKnown() {
    return Object.values(this.groups ?? {}).some(({ fields }) => Object.values(fields).some(({ available }) => available !== null));
  }

  update(status) {
    this.#status = status;
    if (this.groups) this.#refresh();
  }

  /** Sets values of a group once the controls are loaded. During a request, only the newest are kept. */
  set(group, values) {
    this.#changed_ms.set(group, performance.now());
    this.#pending.set(group, { ...this.#pending.get(group), ...values });
    this.#send();
  }

  // --- sending

  async #send() {
    if (this.#isSending || !this.groups || !this.#pending.size) return;
    this.#isSending = true;
    for (let next; (next = this.#pending.entries().next().value); ) {
      const [group, values] = next;
      this.#pending.delete(group);
      if (this.groups[group].restarts) this.onRestart();
      try {
        await postJson(`v1/camera/${group}`, this.#body(group, values));
        this.#showError(group, null);
      } catch (error) {
        const text = errorText(error);
        this.#showError(group, text, Object.keys(values));
        notify(text, true);
        this.#changed_ms.delete(group);
      }
      if (this.#changed_ms.has(group)) this.#changed_ms.set(group, performance.now());
    }
    this.#isSending = false;
    this.load().then(this.onChange, () => {});
  }

  /** The request body: the values with the required fields, and for some groups all fields. */
  #body(group, values) {
    const body = {};
    for (const [name, field] of Object.entries(this.groups[group].fields)) {
      if (name in values) body[name] = values[name];
      else if ((field.required || COMPLETE.has(group)) && isKnown(this.#value(group, name))) body[name] = toValid(field, this.#value(group, name));
    }
    return body;
  }

  #showError(group, text, fields = null) {
    for (const row of this.#rows.values()) {
      if (row.group !== group || (fields && !fields.includes(row.name))) continue;
      row.error.hidden = !text;
      write(row.error, text ?? "");
    }
  }

  #reset(group, name) {
    const field = this.groups[group].fields[name];
    if (AUTOMATIC[group] && !field.nullable) this.set(...AUTOMATIC[group]);
    else if (isKnown(field.default)) this.set(group, { [name]: field.default });
    else if (field.nullable) this.set(group, { [name]: null });
  }

  async #resetAll() {
    if (!(await confirmed("Reset all controls?", "Every control is reset to its default.", "Reset"))) return;
    this.#pending.clear();
    this.onRestart();
    try {
      await getJson("v1/camera/controls", { method: "DELETE", timeout_ms: 20000 });
      notify("All controls reset to their defaults");
      this.#changed_ms.clear();
      await this.load();
      this.onChange();
    } catch (error) {
      notify(errorText(error), true);
    }
  }

  // --- drawing

  #draw() {
    const focusedId = document.activeElement?.id;
    this.#rows.clear();
    const remaining = new Set(Object.entries(this.groups).flatMap(([group, { fields }]) =>
      HIDDEN.has(group) ? [] : Object.keys(fields).map((name) => `${group}.${name}`)));
    const named = new Set(SECTIONS.flatMap(([, places]) => places));
    const select = (place) => [...remaining].filter((each) => (each === place || each.startsWith(`${place}.`)) &&
      (each === place || !named.has(each)) && remaining.delete(each));
    const sections = SECTIONS.map(([title, places]) => [title, places.flatMap(select)]);
    sections.push(["More", [...remaining]]);
    const unsupported = new Map();
    const elements = sections.map(([title, keys]) => {
      const rows = keys.filter((key) => {
        const field = this.#field(key);
        if (field.available === false) unsupported.set(key.split(".")[0], field.reason);
        return field.available !== false;
      }).map((key) => this.#row(key, title));
      return rows.length ? section(title, rows) : null;
    });
    $("sections").replaceChildren(...elements.filter(Boolean));
    const names = [...unsupported.keys()].map((group) => label(group, "")).join(", ");
    $("unsupported").hidden = !names;
    write($("unsupported"), names && `Not supported by this camera: ${names}.`);
    $("unsupported").title = [...new Set(unsupported.values())].join("; ");
    if (focusedId) $(focusedId)?.focus({ preventScroll: true });
  }

  #field(key) {
    const [group, name] = key.split(".");
    return this.groups[group].fields[name];
  }

  #row(key, title) {
    const [group, name] = key.split(".");
    const field = this.#field(key);
    const text = label(group, name);
    const id = `control-${group}-${name}`;
    const row = { key, group, name, title, id, text, isLate: this.groups[group].restarts, isLive: key in LIVE };
    row.set = (value) => this.set(group, { [name]: value });
    row.error = el("p", { class: "error", hidden: true });
    row.resetButton = el("button", { type: "button", class: "icon-button reset", title: `Reset ${text} to its default`, onclick: () => this.#reset(group, name) }, icon("undo"));
    row.resetButton.setAttribute("aria-label", row.resetButton.title);
    makeRow(row, field);
    row.element.classList.add("row");
    row.element.dataset.key = key;
    const help = field.help.replace(API_HINT, "");
    row.element.append(el("p", { class: "help", id: `${id}-help`, hidden: isRedundant(text, help) }, help[0].toUpperCase() + help.slice(1)), row.error);
    this.#rows.set(key, row);
    return row.element;
  }

  /** The current value of a field: as set, or as chosen by the camera. */
  #value(group, name) {
    const field = this.groups[group].fields[name];
    const live = field.is_set ? null : LIVE[`${group}.${name}`]?.(this.#status);
    return live ?? field.value ?? (field.nullable ? null : field.default);
  }

  #refresh() {
    for (const row of this.#rows.values()) {
      const field = this.#field(row.key);
      const value = this.#value(row.group, row.name);
      const [automaticGroup, automaticValues] = AUTOMATIC[row.group] ?? [];
      const isAutomatic = (field.nullable && field.value === null) || (automaticGroup === row.group && field.value === automaticValues[row.name]);
      const isSet = isKnown(field.default) && !automaticGroup ? !isEqual(field.value, field.default) : field.is_set && !isAutomatic;
      const canReset = isSet && (isKnown(field.default) || field.nullable || row.group in AUTOMATIC);
      row.resetButton.style.visibility = canReset ? "" : "hidden";
      row.element.classList.toggle("set", isSet);
      const changed_ms = this.#changed_ms.get(row.group) ?? -Infinity;
      if (row.isEditing || this.#pending.has(row.group) || performance.now() - changed_ms < SETTLE_MS) continue;
      row.show(value);
    }
  }
}

function section(title, rows) {
  const isOpen = loadChoice(`section.${title}`, INITIALLY_OPEN.has(title) ? "open" : "") === "open";
  const made = el("details", { class: "section", open: isOpen }, el("summary", {}, el("h3", {}, title)), el("div", { class: "rows" }, ...rows));
  made.addEventListener("toggle", () => storeChoice(`section.${title}`, made.open ? "open" : "closed"));
  return made;
}

function label(group, name) {
  const known = LABELS[`${group}.${name}`] ?? LABELS[name];
  return known ?? spaced(["mode", "enabled", "preset", ""].includes(name) ? group : name, true);
}

/** Whether the help text only repeats the label. */
const isRedundant = (label, help) => label.toLowerCase().startsWith(help.toLowerCase().replace(/^the /, ""));

const isEqual = (one, other) => one === other || (typeof one === "number" && typeof other === "number" && Math.abs(one - other) < 1e-6 * Math.max(1, Math.abs(other)));
