// Elements and numbers. All text goes in through text nodes: nothing a model wrote is ever markup.

const byId = (id) => document.getElementById(id);

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

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

const signed = (value) => (value > 0 ? "+" : "") + show(value, 3);

const plural = (count, noun) => `${show(count)} ${noun}${count === 1 ? "" : "s"}`;

function note(text) {
  return el("p", { class: "muted" }, text);
}
