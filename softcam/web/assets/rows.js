// One row per control, by the type of its field: label, reset button, and the elements that show and set the value.

import { el, exposure, figure, icon, isKnown, notify, write } from "./dom.js";
import { errorText, postJson } from "./portal.js";

const CHOICES = { "50hz": "50 Hz", "60hz": "60 Hz", zsl: "ZSL", "single-exp": "single exposure", ir_850nm: "infrared 850 nm", ir_940nm: "infrared 940 nm", daylight_noir: "daylight (NoIR)", indoor_noir: "indoor (NoIR)" };
const UNITS = { times: "×", "1/s": "fps", degrees: "°", dioptres: "dpt", pixels: "px", seconds: "s" };
const SLIDER_STEPS = 1000;

/** Builds row.element, and row.show(value), which shows a value. */
export function makeRow(row, field) {
  const make = row.name === "trigger" ? trigger : field.type === "window" ? focusPoint : { boolean: toggle, choice }[field.type] ?? (isRotation(field) ? rotation : number);
  make(row, field);
}

/** The name of a control or a choice as words. */
export function spaced(name, isTitle = false) {
  const text = CHOICES[name] ?? name.replace(/_(us|lux)$/, "").replaceAll("_", " ").replace(/^awb$/, "white balance").replace(/^hdr$/, "HDR").replace(/^roi$/, "zoom");
  return isTitle ? text[0].toUpperCase() + text.slice(1) : text;
}

const isRotation = (field) => field.unit === "degrees" && field.maximum === 270;

/** The nearest valid value: within the limits, and an integer if required. */
export function toValid(field, value) {
  if (typeof value !== "number") return value;
  const within = Math.min(field.maximum ?? Infinity, Math.max(field.minimum ?? -Infinity, value));
  const grain = field.unit === "pixels" ? 2 : 1; // colour is stored for pairs of pixels
  return field.type === "integer" ? Math.round(within / grain) * grain : within;
}

function head(row, ...rest) {
  return el("div", { class: "head" }, el("label", { htmlFor: row.id }, row.text), row.resetButton, ...rest);
}

function trigger(row) {
  const press = el("button", { type: "button", class: "button", id: row.id, "aria-describedby": `${row.id}-help`, onclick: async () => {
    press.disabled = true;
    try {
      const answer = await postJson("v1/camera/autofocus", { trigger: true });
      notify(answer.focused ? "In focus" : "Autofocus found nothing to focus on", answer.focused === false);
    } catch (error) {
      notify(errorText(error).replace(/^trigger: /, ""), true);
    }
    press.disabled = false;
  } }, icon("focus"), row.text);
  row.element = el("div", {}, el("div", { class: "head" }, press));
  row.show = () => {};
}

function focusPoint(row) {
  const where = el("span", { class: "muted", id: row.id });
  row.element = el("div", {}, el("div", { class: "head" }, el("span", { class: "label" }, row.text), row.resetButton, where));
  row.show = (value) => write(where, value ? "The point you clicked" : "Centre; click to change");
}

function toggle(row) {
  const box = el("input", { type: "checkbox", role: "switch", id: row.id, "aria-describedby": `${row.id}-help`, onchange: () => row.set(box.checked) });
  row.element = el("div", {}, head(row, box));
  row.show = (value) => { box.checked = Boolean(value); };
}

function choice(row, field) {
  const select = el("select", { id: row.id, "aria-describedby": `${row.id}-help`, onchange: () => row.set(select.value || null) },
    field.nullable ? el("option", { value: "" }, row.group === "day_night_mode" ? "Same as by day" : "As configured") : null,
    ...field.choices.map((name) => el("option", { value: name }, spaced(name) + (name === field.default ? " (default)" : ""))));
  row.element = el("div", {}, head(row, select));
  row.show = (value) => {
    // The current value may be one that cannot be selected now.
    if (isKnown(value) && ![...select.options].some((option) => option.value === value)) select.append(el("option", { value }, spaced(value)));
    select.value = value ?? "";
  };
}

function rotation(row) {
  const radios = [0, 90, 180, 270].map((degrees) => el("input", { type: "radio", name: row.id, value: degrees, onchange: () => row.set(degrees) }));
  row.element = el("fieldset", { class: "choices", "aria-describedby": `${row.id}-help` }, el("legend", {}, row.text), row.resetButton,
    el("div", { class: "segments" }, ...radios.map((radio) => el("label", {}, radio, el("span", {}, `${radio.value}°`)))));
  row.show = (value) => radios.forEach((radio) => { radio.checked = Number(radio.value) === value; });
}

function number(row, field) {
  const [low, high] = range(field);
  const isLog = low > 0 && high / low >= 50;
  const isInteger = field.type === "integer";
  const step = isInteger ? 1 : roundStep((high - low) / 400);
  const toPosition = (value) => {
    const part = isLog ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
    return Math.round(SLIDER_STEPS * Math.min(1, Math.max(0, part)));
  };
  const toValue = (position) => {
    const value = isLog ? low * (high / low) ** (position / SLIDER_STEPS) : low + ((high - low) * position) / SLIDER_STEPS;
    const grain = isLog ? roundStep(value / 100) : step;
    return clean(toValid(field, Math.round(value / grain) * grain));
  };
  const unit = UNITS[field.unit] ?? field.unit ?? "";
  const slider = el("input", { type: "range", min: 0, max: SLIDER_STEPS, step: 1, id: `${row.id}-slider`, "aria-label": row.text, "aria-describedby": `${row.id}-help` });
  const box = el("input", { type: "number", id: row.id, min: field.minimum, max: field.maximum, step: "any", inputMode: isInteger ? "numeric" : "decimal" });
  const limit = field.nullable && !row.isLive ? el("input", { type: "checkbox", role: "switch", id: `${row.id}-on`, "aria-label": `${row.text}: set` }) : null;
  let value = null;

  const paint = () => {
    const position = isKnown(value) ? toPosition(value) : 0;
    slider.value = position;
    slider.style.setProperty("--filled", `${position / 10}%`);
    const valueText = unit === "µs" ? exposure(value) : figure(value, unit);
    slider.setAttribute("aria-valuetext", isKnown(value) ? valueText : "not set");
    if (!row.isEditing || document.activeElement !== box) box.value = isKnown(value) ? clean(isInteger ? value : Math.round(value * 1000) / 1000) : "";
    if (limit) limit.checked = isKnown(value);
    slider.disabled = box.disabled = Boolean(limit) && !isKnown(value);
  };
  const change = (newValue, isFinal) => {
    value = newValue;
    paint();
    if (isFinal || !row.isLate) row.set(value); // a change that restarts the stream waits until the slider is released
  };
  slider.addEventListener("input", () => {
    row.isEditing = true;
    change(toValue(Number(slider.value)), false);
  });
  slider.addEventListener("change", () => {
    row.isEditing = false;
    if (row.isLate) change(toValue(Number(slider.value)), true);
  });
  // Without a change event: the slider may be released where it was grabbed.
  for (const name of ["pointerup", "pointercancel"]) slider.addEventListener(name, () => { row.isEditing = false; });
  slider.addEventListener("keydown", (event) => {
    // The slider has 1000 steps; a key moves by ten.
    const step = { ArrowLeft: -10, ArrowDown: -10, ArrowRight: 10, ArrowUp: 10, PageUp: 100, PageDown: -100 }[event.key];
    if (!step) return;
    event.preventDefault();
    slider.value = Number(slider.value) + step;
    change(toValue(Number(slider.value)), true);
  });
  box.addEventListener("change", () => {
    row.isEditing = false; // changes of other clients are shown again, although the field keeps the focus
    if (box.value === "" || !box.validity.valid && Number.isNaN(box.valueAsNumber)) return paint();
    value = clean(toValid(field, box.valueAsNumber));
    box.value = value;
    change(value, true);
  });
  for (const name of ["focus", "input"]) box.addEventListener(name, () => { row.isEditing = true; });
  box.addEventListener("blur", () => { row.isEditing = false; });
  limit?.addEventListener("change", () => change(limit.checked ? clean(toValid(field, field.default ?? toValue(isMinimum(row) ? 0 : SLIDER_STEPS))) : null, true));

  const isOut = isKnown(field.default) && (field.default < low || field.default > high);
  const mark = isKnown(field.default) && !isOut ? el("span", { class: "default", title: `Default: ${figure(field.default, unit)}` }) : null;
  mark?.style.setProperty("--at", toPosition(field.default) / SLIDER_STEPS);
  row.element = el("div", {}, head(row, limit, el("span", { class: "number" }, box, el("span", { class: "unit" }, unit))),
    el("div", { class: "track" }, slider, mark));
  row.show = (newValue) => {
    value = newValue;
    paint();
  };
}

/** A limit that is switched on starts where it has no effect: a minimum at the low end, a maximum at the high end. */
const isMinimum = (row) => row.name.startsWith("min_");

/** The range of the slider: the usual part of the allowed range. */
function range(field) {
  const [usualLow, usualHigh] = field.usual ?? [field.minimum, field.maximum];
  const low = Math.max(usualLow ?? 0, field.minimum ?? -Infinity), high = Math.min(usualHigh ?? 1, field.maximum ?? Infinity);
  return low < high ? [low, high] : [field.minimum, field.maximum];
}

/** The largest of 1, 2 or 5 times a power of ten up to `size`. */
function roundStep(size) {
  const power = 10 ** Math.floor(Math.log10(size));
  return ([5, 2, 1].find((each) => each * power <= size * 1.000001) ?? 1) * power;
}

const clean = (value) => Number(Number(value).toPrecision(10));
