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
  const { minimum, exclusiveMinimum, maximum } = schema;
  const range = minimum !== undefined ? ` from ${minimum} to ${maximum}` : exclusiveMinimum !== undefined ? ` above ${exclusiveMinimum}, at most ${maximum}` : "";
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

/** One input per parameter, in the order of the table. */
function inputsOf(operation) {
  return (operation.parameters || []).map(({ in: place, name, required, schema }) => {
    const input = make("input", { type: "text", name, required: Boolean(required), spellcheck: false, autocomplete: "off" });
    input.placeholder = schema.default ?? "";
    input.value = schema.examples?.[0] ?? "";
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
    part.append(make("div", {}, link), snippetOf(part, operation, () => ({ url: address(target(path, inputs)), method: "GET" })));
    return part;
  }
  const text = make("textarea", { value: body ? JSON.stringify(operation.requestBody.content["application/json"].example, null, 1) : "", spellcheck: false });
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
  const request = () => ({ url: address(target(path, inputs)), method: method.toUpperCase(), body: body && text.value.trim() ? text.value : null });
  part.append(make("div", {}, button), shown, snippetOf(part, operation, request));
  return part;
}

/** The fields of a body; of alternatives, the fields of all. */
function fieldsOf(body) {
  const forms = [body, ...(body.anyOf || []), ...(body.oneOf || [])];
  return Object.entries(Object.assign({}, ...forms.map(each => each.properties || {})));
}

/** The request as code in the chosen language; follows the fields of `part`. `request` returns what they describe. */
function snippetOf(part, operation, request) {
  const select = make("select", {}, ...Object.keys(snippets).map(name => make("option", { textContent: name })));
  const code = make("pre");
  const show = () => {
    select.value = language;
    code.textContent = snippets[language]({ headers: headersOf(operation, request()), kind: kindOf(operation), ...request() });
  };
  select.addEventListener("change", () => {
    language = select.value;
    for (const each of shownSnippets) each();
  });
  part.addEventListener("input", event => { if (event.target !== select) show(); });
  shownSnippets.push(show);
  show();
  return make("div", { className: "snippet" }, make("label", {}, "Code ", select), code);
}

function headersOf(operation, { body }) {
  const hasKey = (operation.security ?? security)?.some(each => "header" in each);
  return { ...(hasKey && { "X-API-Key": "YOUR_KEY" }), ...(body && { "Content-Type": "application/json" }) };
}

/** What the response is: "text", a "file", an endless "stream", or endless "lines" of text. */
function kindOf(operation) {
  const types = Object.keys(operation.responses["200"]?.content ?? {});
  if (operation["x-is-endless"]) return types.some(type => type.startsWith("text/event-stream")) ? "lines" : "stream";
  return types.every(type => /^(text|application\/(json|vnd))/.test(type)) ? "text" : "file";
}

const quoted = text => `'${text.replaceAll("'", "'\\''")}'`;
const fields = (headers, separator) => Object.entries(headers).map(([name, value]) => `"${name}": "${value}"`).join(separator);

const snippets = {
  curl({ url, method, headers, body, kind }) {
    const parts = ["curl", ...(kind === "stream" || kind === "lines" ? ["-N"] : []), ...(method === "GET" ? [] : [`-X ${method}`])];
    for (const [name, value] of Object.entries(headers)) parts.push(`-H ${quoted(`${name}: ${value}`)}`);
    if (body) parts.push(`-d ${quoted(body)}`);
    return [...parts, quoted(url), ...(kind === "text" || kind === "lines" ? [] : ["-o FILE"])].join(" ");
  },
  Python({ url, method, headers, body, kind }) {
    const request = [JSON.stringify(url), `method="${method}"`];
    if (Object.keys(headers).length) request.push(`headers={${fields(headers, ", ")}}`);
    if (body) request.push(`data=${JSON.stringify(body)}.encode()`);
    const use = {
      text: "    print(response.status, response.read().decode())",
      file: '    with open("FILE", "wb") as file:\n        file.write(response.read())',
      stream: "    while chunk := response.read1(65536):\n        print(len(chunk), \"bytes\")",
      lines: '    for line in response:\n        print(line.decode(), end="")',
    };
    return `import urllib.request\n\nrequest = urllib.request.Request(${request.join(", ")})\n` +
      `with urllib.request.urlopen(request, timeout=30) as response:\n${use[kind]}`;
  },
  JavaScript({ url, method, headers, body, kind }) {
    const options = method === "GET" ? [] : [`method: "${method}"`];
    if (Object.keys(headers).length) options.push(`headers: { ${fields(headers, ", ")} }`);
    if (body) options.push(`body: ${JSON.stringify(body)}`);
    const use = {
      text: "console.log(response.status, await response.text());",
      file: "const file = await response.blob();",
      stream: "for await (const chunk of response.body) console.log(chunk.length, \"bytes\");",
      lines: "for await (const text of response.body.pipeThrough(new TextDecoderStream())) console.log(text);",
    };
    return `const response = await fetch(${[JSON.stringify(url), ...(options.length ? [`{ ${options.join(", ")} }`] : [])].join(", ")});\n${use[kind]}`;
  },
};
let language = "curl";
let security = null; // of operations that do not define it
const shownSnippets = [];

function operationOf(path, method, operation, aliases) {
  const summary = make("summary", {},
    Object.assign(make("span", { className: "method", textContent: method.toUpperCase() })),
    make("span", { className: "path", textContent: path }), make("span", { className: "muted", textContent: operation.summary }));
  summary.firstChild.dataset.method = method;
  const part = make("details", {}, summary);
  if (operation.description) part.append(make("p", { textContent: operation.description }));
  if (aliases.length) part.append(make("p", { className: "muted" }, "Also under ", ...aliases.flatMap((alias, index) => [index ? ", " : "", make("code", { textContent: alias })])));
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
  document.getElementById("collection").href = `collection.json?url=${encodeURIComponent(address("./"))}`;
  security = description.security ?? null;
  const operations = Object.entries(description.paths).flatMap(([path, methods]) =>
    Object.entries(methods).filter(([method]) => method !== "head").map(([method, operation]) => ({ path, method, operation })));
  const groups = new Map();
  for (const { path, method, operation } of operations) {
    if (operation["x-alias-of"]) continue;
    const aliases = operations.filter(each => each.method === method && each.operation["x-alias-of"] === path).map(each => each.path);
    const tag = operation.tags[0];
    if (!groups.has(tag)) groups.set(tag, []);
    groups.get(tag).push(operationOf(path, method, operation, aliases));
  }
  for (const [tag, parts] of groups) {
    const title = make("h2", { textContent: tag[0].toUpperCase() + tag.slice(1) });
    docs.append(make("section", {}, title, ...parts));
  }
}

show().catch(error => { notice.textContent = "The API description cannot be loaded: " + error.message; });
