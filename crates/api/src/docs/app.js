"use strict";
// Renders the OpenAPI document that stands beside this page. Everything that was read becomes text, never markup.

const METHODS = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/** An element with attributes and children; strings become text. */
function el(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Text whose `quoted` parts are code. */
function prose(text) {
  const parts = String(text ?? "").split("`");
  return parts.map((part, index) => (index % 2 === 1 ? el("code", {}, part) : part));
}

function paragraphs(text) {
  return String(text ?? "").split("\n\n").filter(Boolean).map((part) => el("p", {}, ...prose(part)));
}

function anchor(...parts) {
  return parts.join("-").replace(/[^A-Za-z0-9]+/g, "-");
}

function schemaLink(reference) {
  const name = reference.split("/").pop();
  return el("a", { href: "#" + anchor("schema", name) }, name);
}

/** A schema in few words. */
function type(schema) {
  if (schema === null || typeof schema !== "object") return ["any JSON"];
  if (schema.$ref) return [schemaLink(schema.$ref)];
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices) return choices.flatMap((choice, index) => (index ? [" or ", ...type(choice)] : type(choice)));
  if (schema.allOf) return schema.allOf.flatMap((part, index) => (index ? [" with ", ...type(part)] : type(part)));
  if (schema.const !== undefined) return [el("code", {}, JSON.stringify(schema.const))];
  if (schema.enum) return schema.enum.flatMap((word, index) => [index ? ", " : "", el("code", {}, String(word))]);
  const types = [schema.type].flat().filter(Boolean);
  if (types.includes("array")) return ["array of ", ...type(schema.items)];
  if (types.includes("object") && schema.additionalProperties && typeof schema.additionalProperties === "object") {
    return ["object of ", ...type(schema.additionalProperties)];
  }
  return [types.length ? types.join(" or ") : "any JSON"];
}

function bounds(schema) {
  const words = [];
  if (schema?.minimum !== undefined) words.push("at least " + schema.minimum);
  if (schema?.maximum !== undefined) words.push("at most " + schema.maximum);
  if (schema?.minLength !== undefined) words.push("at least " + schema.minLength + " characters");
  if (schema?.maxLength !== undefined) words.push("at most " + schema.maxLength + " characters");
  if (schema?.pattern !== undefined) words.push("matches " + schema.pattern);
  if (schema?.default !== undefined) words.push("default " + JSON.stringify(schema.default));
  return words.length ? " (" + words.join(", ") + ")" : "";
}

function table(heads, rows) {
  const head = el("tr", {}, ...heads.map((text) => el("th", { scope: "col" }, text)));
  const body = rows.map((cells) => el("tr", {}, ...cells.map((cell) => el("td", {}, ...[cell].flat()))));
  return el("div", { class: "fields" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...body)));
}

function example(value) {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
  return el("details", {}, el("summary", {}, "Example"), el("pre", {}, text));
}

function content(bodies) {
  return Object.entries(bodies ?? {}).flatMap(([media, body]) => [
    el("p", {}, el("code", {}, media), ": ", ...type(body.schema)),
    body.example === undefined ? null : example(body.example),
  ]);
}

function resolve(root, item) {
  if (!item?.$ref) return item;
  return item.$ref.slice(2).split("/").reduce((at, key) => at?.[key], root);
}

function operation(root, path, method, details) {
  const scopes = (details.security ?? []).flatMap((scheme) => Object.values(scheme).flat());
  const access = scopes.length ? "requires " + scopes.join(", ") : "public";
  const parameters = (details.parameters ?? []).map((parameter) => [
    el("code", {}, parameter.name),
    parameter.in + (parameter.required ? ", required" : ""),
    [...type(parameter.schema), bounds(parameter.schema)],
    prose(parameter.description),
  ]);
  const responses = Object.entries(details.responses ?? {}).map(([status, given]) => {
    const response = resolve(root, given);
    return [el("code", {}, status), [el("p", {}, ...prose(response.description)), ...content(response.content)]];
  });
  return el(
    "section",
    { id: anchor(method, path) },
    el("h3", {}, el("span", { class: "method" }, method), el("code", {}, path)),
    el("p", {}, el("strong", {}, ...prose(details.summary)), " ", el("span", { class: "access" }, access)),
    ...paragraphs(details.description),
    ...(parameters.length ? [el("h4", {}, "Parameters"), table(["Name", "In", "Type", "Meaning"], parameters)] : []),
    ...(details.requestBody
      ? [el("h4", {}, "Body"), ...paragraphs(details.requestBody.description), ...content(details.requestBody.content)]
      : []),
    el("h4", {}, "Answers"),
    table(["Status", "Meaning"], responses),
  );
}

function schema(name, definition) {
  const required = new Set(definition.required ?? []);
  const rows = Object.entries(definition.properties ?? {}).map(([field, of]) => [
    [el("code", {}, field), required.has(field) ? " *" : ""],
    [...type(of), bounds(of)],
    prose(of.description),
  ]);
  return el(
    "section",
    { id: anchor("schema", name) },
    el("h3", {}, name),
    ...paragraphs(definition.description),
    rows.length ? table(["Field", "Type", "Meaning"], rows) : el("p", {}, ...type(definition), bounds(definition)),
  );
}

function render(root) {
  const main = document.getElementById("document");
  const contents = document.getElementById("contents");
  const title = root.info.title + " " + root.info.version;
  document.title = title + " API";
  main.replaceChildren(el("h1", {}, title), ...paragraphs(root.info.description));
  contents.replaceChildren(el("a", { href: "openapi.json" }, "openapi.json"));
  for (const tag of root.tags ?? []) {
    main.append(el("h2", { id: anchor("tag", tag.name) }, tag.name), ...paragraphs(tag.description));
    contents.append(el("h2", {}, tag.name));
    for (const [path, item] of Object.entries(root.paths)) {
      for (const method of METHODS) {
        const details = item[method];
        if (!details?.tags?.includes(tag.name)) continue;
        main.append(operation(root, path, method, details));
        contents.append(el("a", { href: "#" + anchor(method, path) }, details.summary ?? method + " " + path));
      }
    }
  }
  const schemas = Object.entries(root.components?.schemas ?? {});
  main.append(el("h2", { id: "schemas" }, "Shapes"), el("p", {}, "Fields with * are always there."));
  contents.append(el("h2", {}, "Shapes"));
  for (const [name, definition] of schemas) {
    main.append(schema(name, definition));
    contents.append(el("a", { href: "#" + anchor("schema", name) }, name));
  }
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

fetch("openapi.json")
  .then((response) => {
    if (!response.ok) throw new Error("the server answered " + response.status);
    return response.json();
  })
  .then(render)
  .catch((error) => {
    document.getElementById("state").textContent = "The document could not be read: " + error.message;
  });
