// Helpers for the DOM: create elements, show messages, format values, store choices.

export const $ = (id) => document.getElementById(id);

/** Creates an element. Properties that the element has are set, others become attributes. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name === "class") made.className = value;
    else if (name in made && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Creates an icon from the symbols in index.html. */
export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const made = document.createElementNS(space, "svg");
  const use = document.createElementNS(space, "use");
  use.setAttribute("href", `#i-${name}`);
  made.setAttribute("class", "icon");
  made.setAttribute("aria-hidden", "true");
  made.append(use);
  return made;
}

/** Sets the text only if it differs: screen readers announce every change. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

let hideTimer = 0;

/** Shows a message for some seconds, announced by screen readers; errors stay longer. */
export function notify(text, isError = false) {
  const toast = $("toast");
  toast.textContent = text;
  toast.classList.toggle("error", isError);
  toast.classList.add("shown");
  clearTimeout(hideTimer);
  hideTimer = setTimeout(() => toast.classList.remove("shown"), isError ? 8000 : 3500);
}

/** Asks for confirmation; resolves with whether it was given. */
export function confirmed(title, text, yes) {
  write($("confirm-title"), title);
  write($("confirm-text"), text);
  write($("confirm-yes"), yes);
  return answered($("confirm"));
}

/** Asks for a text; resolves with it, or with "" if the dialog was cancelled. */
export function entered(title, label, value, yes) {
  write($("enter-title"), title);
  write($("enter-label"), label);
  write($("enter-yes"), yes);
  $("enter-text").value = value;
  $("enter-text").onkeydown = (event) => event.key === "Enter" && $("enter").close("yes");
  return answered($("enter")).then((isYes) => (isYes ? $("enter-text").value.trim() : ""));
}

/** Shows a dialog; resolves with whether it was closed with "yes". */
function answered(dialog) {
  for (const button of dialog.querySelectorAll("button")) button.onclick = () => dialog.close(button.value);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

export const isKnown = (value) => value !== null && value !== undefined;

/** Formats a number with as many decimals as are useful for its magnitude. */
export function figure(value, unit = "", digits = undefined) {
  if (!isKnown(value)) return "–";
  const size = Math.abs(value);
  const decimals = digits ?? (Number.isInteger(value) || size >= 100 ? 0 : size >= 10 ? 1 : 2);
  return value.toFixed(decimals) + (unit ? `\u00a0${unit}` : "");
}

export function exposure(us) {
  if (!isKnown(us)) return "–";
  return us >= 1e6 ? figure(us / 1e6, "s", 2) : us >= 1000 ? figure(us / 1000, "ms", us < 1e4 ? 2 : 1) : figure(us, "µs", 0);
}

export function bytes(count) {
  if (!isKnown(count)) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let size = count, index = 0;
  while (size >= 1000 && index < units.length - 1) { size /= 1000; index += 1; }
  return figure(size, units[index], index < 2 || size >= 100 ? 0 : 1);
}

export function duration(seconds) {
  if (!isKnown(seconds)) return "–";
  const total = Math.max(0, Math.round(seconds));
  const two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(total / 3600), minutes = Math.floor(total / 60) % 60;
  return (hours ? `${hours}:${two(minutes)}` : String(minutes)) + `:${two(total % 60)}`;
}

export const clock = (date) => date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

/** Reads a stored choice; the default if the browser stores nothing. */
export function loadChoice(name, fallback) {
  try {
    return localStorage.getItem(`soft-stream.${name}`) ?? fallback;
  } catch {
    return fallback;
  }
}

export function storeChoice(name, value) {
  try {
    localStorage.setItem(`soft-stream.${name}`, value);
  } catch { /* private windows */ }
}

/** Copies a text to the clipboard. Without https, only execCommand can. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = el("textarea", { value: text, class: "visually-hidden" });
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  notify("Copied");
}

/** Downloads an address of this origin as a file. */
export function save(href, name) {
  const link = el("a", { href, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

export const fileStamp = (date = new Date()) =>
  new Date(date - date.getTimezoneOffset() * 60000).toISOString().slice(0, 19).replace("T", "_").replaceAll(":", "-");
