// Small tools for the page's elements: make one, say something, write a number down, remember a choice.

export const $ = (id) => document.getElementById(id);

/** An element; properties that start with "on" and those that the element has are set, others become attributes. */
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

/** One of the symbols in index.html. */
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

/** Writes only what differs: screen readers speak up at every write. */
export function write(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

let hiding = 0;

/** Says something for a moment, aloud for screen readers; a fault stays longer. */
export function say(words, isFault = false) {
  const toast = $("toast");
  toast.textContent = words;
  toast.classList.toggle("fault", isFault);
  toast.classList.add("shown");
  clearTimeout(hiding);
  hiding = setTimeout(() => toast.classList.remove("shown"), isFault ? 8000 : 3500);
}

/** Asks before something that cannot be undone; whether the answer was yes. */
export function isSure(title, words, yes) {
  write($("sure-title"), title);
  write($("sure-words"), words);
  write($("sure-yes"), yes);
  const dialog = $("sure");
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

export const isKnown = (value) => value !== null && value !== undefined;

/** A number with as many decimals as say something at its size. */
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
  let size = count, place = 0;
  while (size >= 1000 && place < units.length - 1) { size /= 1000; place += 1; }
  return figure(size, units[place], place < 2 || size >= 100 ? 0 : 1);
}

export function duration(seconds) {
  if (!isKnown(seconds)) return "–";
  const whole = Math.max(0, Math.round(seconds));
  const two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  return (hours ? `${hours}:${two(minutes)}` : String(minutes)) + `:${two(whole % 60)}`;
}

export const clock = (date) => date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

/** A choice that outlasts the page; a browser that keeps nothing is no reason to fail. */
export function recall(name, otherwise) {
  try {
    return localStorage.getItem(`soft-stream.${name}`) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function keep(name, value) {
  try {
    localStorage.setItem(`soft-stream.${name}`, value);
  } catch { /* private windows */ }
}

/** Gives a text to the clipboard, which without https only the old way can. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = el("textarea", { value: text, class: "unseen" });
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  say("Copied");
}

/** Lets the browser save what lies at an address of this origin. */
export function save(href, name) {
  const link = el("a", { href, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

export const fileStamp = (date = new Date()) =>
  new Date(date - date.getTimezoneOffset() * 60000).toISOString().slice(0, 19).replace("T", "_").replaceAll(":", "-");
