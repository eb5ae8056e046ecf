// The camera's controls, drawn from what the portal says can be set: nothing is listed here but order and words.

import { $, el, exposure, figure, icon, isKnown, isSure, recall, keep, say, write } from "./dom.js";
import { ask, isAway, post } from "./portal.js";

// Sections in order; "group.field" takes one field, "group" the rest of it. What nobody names ends in "More".
const SECTIONS = [
  ["Exposure", ["auto_exposure", "manual_exposure", "image_processing.exposure_value", "image_processing.metering", "image_processing.flicker"]],
  ["Exposure limits", ["exposure_limits"]],
  ["White balance", ["awb", "awb_preset", "manual_awb"]],
  ["Focus", ["autofocus.trigger", "autofocus.window", "autofocus_mode", "lens_position", "autofocus_range", "autofocus"]],
  ["Picture", ["image_processing", "hdr", "lens_correction"]],
  ["Turn and mirror", ["transform"]],
  ["Day and night", ["day_night_mode"]],
  ["Stream", ["stream"]],
];
const OPEN_AT_FIRST = new Set(["Exposure", "Focus", "White balance"]);
const ELSEWHERE = new Set(["roi"]); // on the picture itself
const NAMES = {
  "auto_exposure.enabled": "Automatic exposure", "manual_exposure.exposure_us": "Exposure time",
  "min_exposure_us": "Shortest time", "max_exposure_us": "Longest time", "awb.enabled": "Automatic white balance",
  "awb_preset.preset": "Light", "autofocus.trigger": "Focus now", "autofocus.window": "Focus on",
  "autofocus_mode.mode": "Focus mode", "lens_position.position": "Focus by hand", "range_mode": "Range",
  "hdr.mode": "HDR", "lens_correction.enabled": "Lens correction", "hflip": "Mirror left and right",
  "vflip": "Mirror top and bottom", "day_night_mode.mode": "Profile", "threshold_lux": "Dark below",
  "night_awb_preset": "Light at night", "fps": "Frame rate",
};
const WORDS = { "50hz": "50 Hz", "60hz": "60 Hz", zsl: "ZSL", "single-exp": "one exposure", ir_850nm: "infrared 850 nm", ir_940nm: "infrared 940 nm", daylight_noir: "daylight (NoIR)", indoor_noir: "indoor (NoIR)" };
const UNITS = { times: "×", "1/s": "fps", degrees: "°", dioptres: "dpt", pixels: "px", seconds: "s" };
// What a control that nobody has set stands at: the camera's own choice of this moment.
const LIVE = {
  "auto_exposure.enabled": (status) => status.auto_exposure, "awb.enabled": (status) => status.awb_enabled,
  "manual_exposure.exposure_us": (status) => status.exposure_us, "manual_exposure.gain": (status) => status.analogue_gain,
  "manual_awb.red_gain": (status) => status.colour_gains?.[0], "manual_awb.blue_gain": (status) => status.colour_gains?.[1],
  "lens_position.position": (status) => status.lens_position, "autofocus_mode.mode": (status) => status.autofocus_mode,
  "stream.width": (status) => status.width, "stream.height": (status) => status.height,
  "stream.fps": (status) => (status.frame_duration_us ? Math.round(1e7 / status.frame_duration_us) / 10 : status.fps),
};
// What is set by hand is given back by switching the automatic on, unless null takes it back.
const RELEASES = {
  autofocus_mode: ["autofocus_mode", { mode: "continuous" }],
  manual_exposure: ["auto_exposure", { enabled: true }], manual_awb: ["awb", { enabled: true }],
  lens_position: ["autofocus_mode", { mode: "continuous" }],
};
const WHOLE = new Set(["manual_exposure"]); // groups that forget what is left out
const FOR_PROGRAMS = /; (null .*|\S+ if omitted)$/; // of a help; here a switch or a button does it
const SLIDER_STEPS = 1000;
const SETTLED_MS = 1500; // an answer that was under way when something was set tells of before

export class Controls {
  groups = null;
  #status = {};
  #rows = new Map(); // "group.field" to its row
  #waiting = new Map(); // group to values that are to be sent
  #isSending = false;
  #touched_ms = new Map(); // by group
  #shape = "";

  /** `onChange` after something was set, `onRestart` before what opens the camera anew. */
  constructor(onChange, onRestart) {
    this.onChange = onChange;
    this.onRestart = onRestart;
    $("reset-all").addEventListener("click", () => this.#resetAll());
  }

  /** What the portal says; called again and again, so that another browser's changes show. */
  async load() {
    const answer = await ask("v1/camera/controls");
    this.groups = answer.controls;
    const shape = JSON.stringify(Object.entries(answer.controls).map(([name, group]) => [
      name, Object.entries(group.fields).map(([field, { available, choices, minimum, maximum }]) => [field, available, choices, minimum, maximum]),
    ]));
    if (shape !== this.#shape) {
      this.#shape = shape;
      this.#draw();
    }
    this.#send();
    const warnings = [answer.controls_set_aside, answer.controls_not_kept, ...answer.controls_not_applied].filter(Boolean);
    $("control-warnings").hidden = !warnings.length;
    write($("control-warnings"), warnings.join(" · "));
    this.#refresh();
    return this.groups;
  }

  /** Whether the camera has said what it can, which it does when it is open. */
  get isKnown() {
    return Object.values(this.groups ?? {}).some(({ fields }) => Object.values(fields).some(({ available }) => available !== null));
  }

  update(status) {
    this.#status = status;
    if (this.groups) this.#refresh();
  }

  /** Sets values of a group once it is known what there is; of those that come while one is on its way only the newest go. */
  set(group, values) {
    this.#touched_ms.set(group, performance.now());
    this.#waiting.set(group, { ...this.#waiting.get(group), ...values });
    this.#send();
  }

  // --- sending -----------------------------------------------------------------------------------------------------

  async #send() {
    if (this.#isSending || !this.groups || !this.#waiting.size) return;
    this.#isSending = true;
    for (let next; (next = this.#waiting.entries().next().value); ) {
      const [group, values] = next;
      this.#waiting.delete(group);
      if (this.groups[group].restarts) this.onRestart();
      try {
        await post(`v1/camera/${group}`, this.#whole(group, values));
        this.#mark(group, null);
      } catch (error) {
        const words = isAway(error) ? "The portal cannot be reached." : error.message;
        this.#mark(group, words, Object.keys(values));
        say(words, true);
        this.#touched_ms.delete(group);
      }
      if (this.#touched_ms.has(group)) this.#touched_ms.set(group, performance.now());
    }
    this.#isSending = false;
    this.load().then(this.onChange, () => {});
  }

  /** With what the portal wants along: fields that are required, and of some groups all. */
  #whole(group, values) {
    const body = {};
    for (const [name, field] of Object.entries(this.groups[group].fields)) {
      if (name in values) body[name] = values[name];
      else if ((field.required || WHOLE.has(group)) && isKnown(this.#value(group, name))) body[name] = fitted(field, this.#value(group, name));
    }
    return body;
  }

  #mark(group, words, fields = null) {
    for (const row of this.#rows.values()) {
      if (row.group !== group || (fields && !fields.includes(row.name))) continue;
      row.fault.hidden = !words;
      write(row.fault, words ?? "");
    }
  }

  #reset(group, name) {
    const field = this.groups[group].fields[name];
    if (RELEASES[group] && !field.nullable) this.set(...RELEASES[group]);
    else if (isKnown(field.default)) this.set(group, { [name]: field.default });
    else if (field.nullable) this.set(group, { [name]: null });
  }

  async #resetAll() {
    if (!(await isSure("Set all back?", "Every control goes back to its default.", "Set back"))) return;
    this.#waiting.clear();
    this.onRestart();
    try {
      await ask("v1/camera/controls", { method: "DELETE", patience_ms: 20000 });
      say("All controls are back to their defaults");
      this.#touched_ms.clear();
      await this.load();
      this.onChange();
    } catch (error) {
      say(isAway(error) ? "The portal cannot be reached." : error.message, true);
    }
  }

  // --- drawing -----------------------------------------------------------------------------------------------------

  #draw() {
    const had = document.activeElement?.id;
    this.#rows.clear();
    const left = new Set(Object.entries(this.groups).flatMap(([group, { fields }]) =>
      ELSEWHERE.has(group) ? [] : Object.keys(fields).map((name) => `${group}.${name}`)));
    const named = new Set(SECTIONS.flatMap(([, places]) => places));
    const take = (place) => [...left].filter((each) => (each === place || each.startsWith(`${place}.`)) &&
      (each === place || !named.has(each)) && left.delete(each));
    const sections = SECTIONS.map(([title, places]) => [title, places.flatMap(take)]);
    sections.push(["More", [...left]]);
    const lacking = new Map();
    const drawn = sections.map(([title, keys]) => {
      const rows = keys.filter((key) => {
        const field = this.#field(key);
        if (field.available === false) lacking.set(key.split(".")[0], field.reason);
        return field.available !== false;
      }).map((key) => this.#row(key, title));
      return rows.length ? section(title, rows) : null;
    });
    $("sections").replaceChildren(...drawn.filter(Boolean));
    const lacks = [...lacking.keys()].map((group) => label(group, "")).join(", ");
    $("lacking").hidden = !lacks;
    write($("lacking"), lacks && `Not with this camera: ${lacks}.`);
    $("lacking").title = [...new Set(lacking.values())].join("; ");
    if (had) $(had)?.focus({ preventScroll: true });
  }

  #field(key) {
    const [group, name] = key.split(".");
    return this.groups[group].fields[name];
  }

  #row(key, title) {
    const [group, name] = key.split(".");
    const field = this.#field(key);
    const words = label(group, name);
    const id = `control-${group}-${name}`;
    const row = { key, group, name, title, id, words, isLate: this.groups[group].restarts };
    row.set = (value) => this.set(group, { [name]: value });
    row.fault = el("p", { class: "fault", hidden: true });
    row.back = el("button", { type: "button", class: "bare back", title: `Back to the default of ${words}`, onclick: () => this.#reset(group, name) }, icon("undo"));
    row.back.setAttribute("aria-label", row.back.title);
    const make = name === "trigger" ? button : field.type === "window" ? middle : { boolean: toggle, choice: choice }[field.type] ?? (rotations(field) ? turns : number);
    make(row, field);
    row.element.classList.add("row");
    row.element.dataset.key = key;
    const help = field.help.replace(FOR_PROGRAMS, "");
    row.element.append(el("p", { class: "help", id: `${id}-help`, hidden: isSaid(words, help) }, help), row.fault);
    this.#rows.set(key, row);
    return row.element;
  }

  /** What a field stands at: what was set, or what the camera chose by itself. */
  #value(group, name) {
    const field = this.groups[group].fields[name];
    const live = field.is_set ? null : LIVE[`${group}.${name}`]?.(this.#status);
    return live ?? field.value ?? (field.nullable ? null : field.default);
  }

  #refresh() {
    for (const row of this.#rows.values()) {
      const field = this.#field(row.key);
      const value = this.#value(row.group, row.name);
      const [releasing, released] = RELEASES[row.group] ?? [];
      const isFree = (field.nullable && field.value === null) || (releasing === row.group && field.value === released[row.name]);
      const isSet = isKnown(field.default) && !releasing ? !alike(field.value, field.default) : field.is_set && !isFree;
      const canGoBack = isSet && (isKnown(field.default) || field.nullable || row.group in RELEASES);
      row.back.style.visibility = canGoBack ? "" : "hidden";
      row.element.classList.toggle("set", isSet);
      const touched_ms = this.#touched_ms.get(row.group) ?? -Infinity;
      if (row.isHeld || this.#waiting.has(row.group) || performance.now() - touched_ms < SETTLED_MS) continue;
      row.show(value);
    }
  }
}

function section(title, rows) {
  const isOpen = recall(`section.${title}`, OPEN_AT_FIRST.has(title) ? "open" : "") === "open";
  const made = el("details", { class: "section", open: isOpen }, el("summary", {}, el("h3", {}, title)), el("div", { class: "rows" }, ...rows));
  made.addEventListener("toggle", () => keep(`section.${title}`, made.open ? "open" : "shut"));
  return made;
}

function label(group, name) {
  const known = NAMES[`${group}.${name}`] ?? NAMES[name];
  return known ?? spaced(["mode", "enabled", "preset", ""].includes(name) ? group : name, true);
}

function spaced(words, isTitle = false) {
  const text = WORDS[words] ?? words.replace(/_(us|lux)$/, "").replaceAll("_", " ").replace(/^awb$/, "white balance").replace(/^hdr$/, "HDR").replace(/^roi$/, "zoom");
  return isTitle ? text[0].toUpperCase() + text.slice(1) : text;
}

/** Whether the help only says the name again. */
const isSaid = (words, help) => words.toLowerCase().startsWith(help.toLowerCase().replace(/^the /, ""));

const alike = (one, other) => one === other || (typeof one === "number" && typeof other === "number" && Math.abs(one - other) < 1e-6 * Math.max(1, Math.abs(other)));
const rotations = (field) => field.unit === "degrees" && field.maximum === 270;

/** A value that the portal takes: within the limits, and whole where it must be. */
function fitted(field, value) {
  if (typeof value !== "number") return value;
  const within = Math.min(field.maximum ?? Infinity, Math.max(field.minimum ?? -Infinity, value));
  const grain = field.unit === "pixels" ? 2 : 1; // colour is kept for pairs of them
  return field.type === "integer" ? Math.round(within / grain) * grain : within;
}

// --- one kind of row each: they set row.element and row.show(value) --------------------------------------------------

function head(row, ...rest) {
  return el("div", { class: "head" }, el("label", { htmlFor: row.id }, row.words), row.back, ...rest);
}

function button(row) {
  const press = el("button", { type: "button", class: "button", id: row.id, "aria-describedby": `${row.id}-help`, onclick: async () => {
    press.disabled = true;
    try {
      const answer = await post("v1/camera/autofocus", { trigger: true });
      say(answer.focused ? "In focus" : "Nothing to focus on was found", answer.focused === false);
    } catch (error) {
      say(isAway(error) ? "The portal cannot be reached." : error.message.replace(/^trigger: /, ""), true);
    }
    press.disabled = false;
  } }, icon("focus"), row.words);
  row.element = el("div", {}, el("div", { class: "head" }, press));
  row.show = () => {};
}

function middle(row) {
  const where = el("span", { class: "quiet", id: row.id });
  row.element = el("div", {}, el("div", { class: "head" }, el("span", { class: "label" }, row.words), row.back, where));
  row.show = (value) => write(where, value ? "the point you clicked" : "the middle; click the picture");
}

function toggle(row) {
  const box = el("input", { type: "checkbox", role: "switch", id: row.id, "aria-describedby": `${row.id}-help`, onchange: () => row.set(box.checked) });
  row.element = el("div", {}, head(row, box));
  row.show = (value) => { box.checked = Boolean(value); };
}

function choice(row, field) {
  const select = el("select", { id: row.id, "aria-describedby": `${row.id}-help`, onchange: () => row.set(select.value || null) },
    field.nullable ? el("option", { value: "" }, "as by day") : null,
    ...field.choices.map((word) => el("option", { value: word }, spaced(word) + (word === field.default ? " (default)" : ""))));
  row.element = el("div", {}, head(row, select));
  row.show = (value) => {
    // What the camera stands at may be a word that it cannot be given now.
    if (isKnown(value) && ![...select.options].some((option) => option.value === value)) select.append(el("option", { value }, spaced(value)));
    select.value = value ?? "";
  };
}

function turns(row) {
  const radios = [0, 90, 180, 270].map((degrees) => el("input", { type: "radio", name: row.id, value: degrees, onchange: () => row.set(degrees) }));
  row.element = el("fieldset", { class: "choices", "aria-describedby": `${row.id}-help` }, el("legend", {}, row.words), row.back,
    el("div", { class: "segments" }, ...radios.map((radio) => el("label", {}, radio, el("span", {}, `${radio.value}°`)))));
  row.show = (value) => radios.forEach((radio) => { radio.checked = Number(radio.value) === value; });
}

function number(row, field) {
  const [low, high] = range(field);
  const isLog = low > 0 && high / low >= 50;
  const isWhole = field.type === "integer";
  const step = isWhole ? 1 : nice((high - low) / 400);
  const toPlace = (value) => {
    const part = isLog ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
    return Math.round(SLIDER_STEPS * Math.min(1, Math.max(0, part)));
  };
  const toValue = (place) => {
    const value = isLog ? low * (high / low) ** (place / SLIDER_STEPS) : low + ((high - low) * place) / SLIDER_STEPS;
    const grain = isLog ? nice(value / 100) : step;
    return clean(fitted(field, Math.round(value / grain) * grain));
  };
  const unit = UNITS[field.unit] ?? field.unit ?? "";
  const slider = el("input", { type: "range", min: 0, max: SLIDER_STEPS, step: 1, id: `${row.id}-slider`, "aria-label": row.words, "aria-describedby": `${row.id}-help` });
  const box = el("input", { type: "number", id: row.id, min: field.minimum, max: field.maximum, step: "any", inputMode: isWhole ? "numeric" : "decimal" });
  const limit = field.nullable && !(row.key in LIVE) ? el("input", { type: "checkbox", role: "switch", id: `${row.id}-on`, "aria-label": `${row.words}: set` }) : null;
  let value = null;

  const paint = () => {
    const place = isKnown(value) ? toPlace(value) : 0;
    slider.value = place;
    slider.style.setProperty("--filled", `${place / 10}%`);
    const spoken = unit === "µs" ? exposure(value) : figure(value, unit);
    slider.setAttribute("aria-valuetext", isKnown(value) ? spoken : "not set");
    if (!row.isHeld || document.activeElement !== box) box.value = isKnown(value) ? clean(isWhole ? value : Math.round(value * 1000) / 1000) : "";
    if (limit) limit.checked = isKnown(value);
    slider.disabled = box.disabled = Boolean(limit) && !isKnown(value);
  };
  const move = (wanted, isOver) => {
    value = wanted;
    paint();
    if (isOver || !row.isLate) row.set(value); // what restarts the stream waits for the hand to let go
  };
  slider.addEventListener("input", () => {
    row.isHeld = true;
    move(toValue(Number(slider.value)), false);
  });
  slider.addEventListener("change", () => {
    row.isHeld = false;
    if (row.isLate) move(toValue(Number(slider.value)), true);
  });
  // A hand that goes back to where it began changes nothing, and lets go all the same.
  for (const end of ["pointerup", "pointercancel"]) slider.addEventListener(end, () => { row.isHeld = false; });
  slider.addEventListener("keydown", (event) => {
    // A thousand places are for the hand; keys take a hundred.
    const far = { ArrowLeft: -10, ArrowDown: -10, ArrowRight: 10, ArrowUp: 10, PageUp: 100, PageDown: -100 }[event.key];
    if (!far) return;
    event.preventDefault();
    slider.value = Number(slider.value) + far;
    move(toValue(Number(slider.value)), true);
  });
  box.addEventListener("change", () => {
    row.isHeld = false; // what others set from now on shows, though the cursor stays
    if (box.value === "" || !box.validity.valid && Number.isNaN(box.valueAsNumber)) return paint();
    value = clean(fitted(field, box.valueAsNumber));
    box.value = value;
    move(value, true);
  });
  for (const begin of ["focus", "input"]) box.addEventListener(begin, () => { row.isHeld = true; });
  box.addEventListener("blur", () => { row.isHeld = false; });
  limit?.addEventListener("change", () => move(limit.checked ? clean(fitted(field, field.default ?? toValue(isLeast(row) ? 0 : SLIDER_STEPS))) : null, true));

  const isOut = isKnown(field.default) && (field.default < low || field.default > high);
  const mark = isKnown(field.default) && !isOut ? el("span", { class: "default", title: `Default: ${figure(field.default, unit)}` }) : null;
  mark?.style.setProperty("--at", toPlace(field.default) / SLIDER_STEPS);
  row.element = el("div", {}, head(row, limit, el("span", { class: "number" }, box, el("span", { class: "unit" }, unit))),
    el("div", { class: "track" }, slider, mark));
  row.show = (known) => {
    value = known;
    paint();
  };
}

/** Limits that begin somewhere begin at their mild end: the least for a minimum, the most for a maximum. */
const isLeast = (row) => row.name.startsWith("min_");

/** What the slider spans: the usual part of what is allowed. */
function range(field) {
  const [usualLow, usualHigh] = field.usual ?? [field.minimum, field.maximum];
  const low = Math.max(usualLow ?? 0, field.minimum ?? -Infinity), high = Math.min(usualHigh ?? 1, field.maximum ?? Infinity);
  return low < high ? [low, high] : [field.minimum, field.maximum];
}

/** 1, 2 or 5 times a power of ten, not above `size`. */
function nice(size) {
  const power = 10 ** Math.floor(Math.log10(size));
  return ([5, 2, 1].find((each) => each * power <= size * 1.000001) ?? 1) * power;
}

const clean = (value) => Number(Number(value).toPrecision(10));
