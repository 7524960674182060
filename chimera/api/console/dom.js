// Elements out of plain values. Text is always set as text: nothing that came over the wire becomes markup.

const SVG = "http://www.w3.org/2000/svg";

export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

export function table(caption, columns, rows) {
  const head = make("tr", {}, columns.map((column) => make("th", { scope: "col", class: column.number ? "number" : null }, column.name)));
  const body = rows.map((row) =>
    make("tr", {}, columns.map((column) => make("td", { class: column.number ? "number" : null }, column.of(row))))
  );
  return make("table", { "aria-label": caption }, make("thead", {}, head), make("tbody", {}, body));
}

export function field(label, control) {
  return make("label", {}, label, control);
}

export function number(value, digits = 0) {
  return Number(value ?? 0).toLocaleString("en", { maximumFractionDigits: digits });
}

export function moment(seconds) {
  return Number.isFinite(seconds) ? new Date(seconds * 1000).toISOString().replace("T", " ").slice(0, 19) : "";
}

export function shown(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 1);
}

export function empty(text) {
  return make("p", { class: "empty" }, text);
}
