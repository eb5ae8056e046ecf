"use strict";
// Shows openapi.json, with a form to try each operation. All text is inserted as text, never as HTML.

const docs = document.getElementById("docs");
const notice = document.getElementById("notice");
// Without credentials: fetch() rejects URLs that contain them, and the browser sends them by itself.
const address = (path) => new URL(path, location.origin + location.pathname).href;

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function typeOf(schema) {
  if (!schema) return "";
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map(value => String(value)).join(", ");
  const type = [].concat(schema.type || "any").join(" or ");
  const range = schema.minimum === undefined ? "" : ` from ${schema.minimum} to ${schema.maximum}`;
  return type + range + (schema.multipleOf ? `, a multiple of ${schema.multipleOf}` : "");
}

function table(rows, headings = ["Name", "Type", "Description"]) {
  const body = make("tbody");
  for (const [name, schema, help, isRequired] of rows) {
    const fallback = schema && schema.default !== undefined ? `; default ${JSON.stringify(schema.default)}` : "";
    body.append(make("tr", {},
      make("td", {}, make("code", { textContent: name }), isRequired ? " *" : ""),
      make("td", { textContent: typeOf(schema) + fallback }), make("td", { textContent: help || "" })));
  }
  const head = make("tr", {}, ...headings.map(text => make("th", { textContent: text, scope: "col" })));
  return make("div", { className: "scroll" }, make("table", {}, make("thead", {}, head), body));
}

function example(schema) {
  const values = {};
  for (const [name, field] of fieldsOf(schema)) {
    const isRequired = (schema.required || []).includes(name);
    if (!isRequired && field.default === undefined) continue;
    values[name] = field.default ?? (field.enum ? field.enum[0] : field.minimum ?? false);
  }
  return JSON.stringify(values, null, 1);
}

/** One input per parameter, in the order of the table. */
function inputsOf(operation) {
  return (operation.parameters || []).map(({ in: place, name, required, schema }) => {
    const input = make("input", { type: "text", name, required: Boolean(required), spellcheck: false, autocomplete: "off" });
    input.placeholder = schema.default ?? "";
    input.dataset.place = place;
    return input;
  });
}

/** The URL with the entered parameters; empty ones are omitted. */
function target(path, inputs) {
  const query = new URLSearchParams();
  for (const { name, value, dataset } of inputs) {
    if (dataset.place === "path") path = path.replace(`{${name}}`, encodeURIComponent(value));
    else if (value) query.append(name, value);
  }
  return path.slice(1) + (query.size ? `?${query}` : "");
}

function form(path, method, operation) {
  const inputs = inputsOf(operation);
  const areValid = () => inputs.every(input => input.reportValidity());
  const part = make("div", { className: "try" });
  if (inputs.length) part.append(make("div", { className: "parameters" }, ...inputs.map(input => make("label", {}, input.name, input))));
  const body = operation.requestBody?.content["application/json"].schema;
  const types = Object.keys(operation.responses["200"]?.content || {});
  // Images, streams and pages are shown by the browser.
  if (types.some(type => type.startsWith("multipart")) || (method === "get" && !types.includes("application/json"))) {
    const link = make("a", { href: target(path, inputs), textContent: "Open" });
    for (const input of inputs) input.addEventListener("input", () => { link.href = target(path, inputs); });
    link.addEventListener("click", event => { if (!areValid()) event.preventDefault(); });
    part.append(make("div", {}, link));
    return part;
  }
  const text = make("textarea", { value: body ? example(body) : "", spellcheck: false });
  text.setAttribute("aria-label", `Body of ${method} ${path}`);
  const shown = make("output");
  const button = make("button", { className: "button", type: "button", textContent: "Try it" });
  button.addEventListener("click", async () => {
    if (!areValid()) return;
    shown.textContent = "…";
    try {
      const options = { method: method.toUpperCase(), headers: {} };
      if (body && text.value.trim()) {
        options.body = text.value;
        options.headers["Content-Type"] = "application/json";
      }
      const response = await fetch(address(target(path, inputs)), options);
      const content = await response.text();
      shown.textContent = `${response.status} ${response.statusText}\n${content.length > 4000 ? content.slice(0, 4000) + " …" : content}`;
    } catch (error) {
      shown.textContent = error.message;
    }
  });
  if (body) part.append(text);
  part.append(make("div", {}, button), shown);
  return part;
}

/** The fields of a body; of alternatives, the fields of all. */
function fieldsOf(body) {
  const forms = [body, ...(body.anyOf || []), ...(body.oneOf || [])];
  return Object.entries(Object.assign({}, ...forms.map(each => each.properties || {})));
}

function operationOf(path, method, operation) {
  const summary = make("summary", {},
    Object.assign(make("span", { className: "method", textContent: method.toUpperCase() })),
    make("span", { className: "path", textContent: path }), make("span", { className: "muted", textContent: operation.summary }));
  summary.firstChild.dataset.method = method;
  const part = make("details", {}, summary);
  if (operation.description) part.append(make("p", { textContent: operation.description }));
  if (operation.parameters) part.append(table(operation.parameters.map(each => [each.name, each.schema, each.description])));
  const body = operation.requestBody?.content["application/json"].schema;
  if (body) part.append(table(fieldsOf(body).map(
    ([name, field]) => [name, field, field.description, (body.required || []).includes(name)])));
  part.append(table(Object.entries(operation.responses).map(
    ([status, response]) => [status, null, response.description]), ["Status", "", "Description"]));
  part.append(form(path, method, operation));
  return part;
}

async function show() {
  const response = await fetch(address("openapi.json"));
  if (!response.ok) throw new Error(`HTTP status ${response.status}`);
  const description = await response.json();
  document.getElementById("title").textContent = `${description.info.title} ${description.info.version}: API`;
  notice.textContent = description.info.description;
  const groups = new Map();
  for (const [path, operations] of Object.entries(description.paths)) {
    for (const [method, operation] of Object.entries(operations)) {
      if (method === "head") continue;
      const tag = operation.tags[0];
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(operationOf(path, method, operation));
    }
  }
  for (const [tag, parts] of groups) {
    const title = make("h2", { textContent: tag[0].toUpperCase() + tag.slice(1) });
    docs.append(make("section", {}, title, ...parts));
  }
}

show().catch(error => { notice.textContent = "The API description cannot be loaded: " + error.message; });
