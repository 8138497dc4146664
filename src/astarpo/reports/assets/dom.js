// Elements and numbers. All text goes in through text nodes: nothing a model wrote is ever markup.

const byId = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const el = (tag, attributes, ...children) =>
  fill(document.createElement(tag), attributes, children);

const svg = (tag, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

// About `digits` significant digits, thousands grouped, no exponent where it can be avoided.
function show(value, digits = 4) {
  if (!isNumber(value)) return value ?? "–";
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (Number.isInteger(value) || size >= 10 ** digits) return Math.round(value).toLocaleString("en");
  if (size < 1e-4) return value.toExponential(1).replace("-", "−");
  return String(Number(value.toPrecision(digits))).replace("-", "−");
}

function showShort(value) {
  const size = Math.abs(value);
  for (const [unit, suffix] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= unit) return show(value / unit, 3) + suffix;
  }
  return show(value, 3);
}

const plural = (count, noun) => `${show(count)} ${noun}${count === 1 ? "" : "s"}`;

const ORIGINS = {
  stage1: "Stage 1 (reference)",
  training: "Training",
  reference: "Reference, evaluated",
  trained: "Trained, evaluated",
};

function note(text) {
  return el("p", { class: "muted" }, text);
}

// A table; `columns` are [heading, class] pairs, cells strings or elements.
function table(columns, rows, attributes) {
  const head = columns.map(([text, kind]) => el("th", { class: kind, scope: "col" }, text));
  const body = rows.map((cells) =>
    el("tr", null, cells.map((cell, i) =>
      el(i ? "td" : "th", {
        class: columns[i][1], scope: i ? null : "row", "data-label": columns[i][0],
      }, cell))));
  return el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": attributes?.label },
    el("table", { class: attributes?.class },
      el("thead", null, el("tr", null, head)), el("tbody", null, body)));
}
