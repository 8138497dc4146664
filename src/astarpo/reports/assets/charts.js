// Curves over training, drawn as SVG at the width they have; axes serve the other pictures too.

const CURVES = [
  ["reward", "Mean reward", ""],
  ["kl", "KL to reference", "nats a response"],
  ["length_mean", "Mean length", "tokens"],
  ["loss", "Loss", "reward²"],
  ["entropy", "Entropy", "nats a token"],
  ["grad_norm", "Gradient norm", ""],
];
const AXES = [["step", "step"], ["seconds", "training seconds"], ["tokens", "generated tokens"]];
const AXIS_WORDS = { step: (x) => `step ${x}`, seconds: (x) => `${x} s`, tokens: (x) => `${x} tokens` };
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "14 4", "1 5", "6 2 1 2 1 2"];
const NUM_COLORS = 7;
const SMOOTH = 10;
const HEIGHT = 190;
const MARGIN = { left: 46, right: 12, top: 8, bottom: 34 };

const look = { axis: "step", smooth: true, hover: null, hidden: new Set() };
// Each chart's functions: all of it anew; only its marks at the hovered place.
const redraws = [];
const remarks = [];

function drawCurves() {
  const body = byId("curves-body");
  if (!runs.some((run) => run.curves.step.length)) {
    body.append(note("No training step yet."));
    return;
  }
  if (many) body.append(legend());
  body.append(curveControls());
  const grid = el("div", { class: "charts" });
  body.append(grid);
  for (const [name, title, unit] of CURVES) {
    if (runs.some((run) => run.curves[name].some(isNumber))) grid.append(curve(name, title, unit));
  }
  body.append(note(`Faint: each step; bold: mean of the last ${SMOOTH} steps. Point at a chart, or move ` +
    "through it with the arrow keys, to read values."));
}

function swatch(i) {
  return svg("svg", { width: 30, height: 10, viewBox: "0 0 30 10", "aria-hidden": "true" },
    svg("line", { x1: 1, x2: 29, y1: 5, y2: 5, class: `line c${i % NUM_COLORS}`,
      "stroke-dasharray": DASHES[i % DASHES.length] }));
}

const legend = () => el("ul", { class: "legend", "aria-label": "Runs shown" },
  runs.map((run, i) => el("li", null, el("label", null,
    el("input", { type: "checkbox", checked: true, onchange: (event) => {
      if (event.target.checked) look.hidden.delete(i);
      else look.hidden.add(i);
      redrawAll();
    } }), swatch(i), run.name))));

function curveControls() {
  const choice = ([value, label]) => el("label", null,
    el("input", { type: "radio", name: "axis", value, checked: value === look.axis,
      onchange: () => { look.axis = value; look.hover = null; redrawAll(); } }), label);
  return el("fieldset", { class: "controls" }, el("legend", null, "Against"), AXES.map(choice),
    el("label", { class: "apart" }, el("input", { type: "checkbox", checked: true,
      onchange: (event) => { look.smooth = event.target.checked; redrawAll(); } }), "smooth"));
}

const redrawAll = () => redraws.forEach((redraw) => redraw());

function hover(value) {
  look.hover = value;
  remarks.forEach((mark) => mark());
}

function runningMean(values) {
  const result = [];
  for (let i = 0; i < values.length; i++) {
    const window = values.slice(Math.max(0, i + 1 - SMOOTH), i + 1).filter(isNumber);
    result.push(window.length ? window.reduce((a, b) => a + b) / window.length : null);
  }
  return result;
}

function curve(name, title, unit) {
  const series = runs.map((run) => ({ raw: run.curves[name], mean: runningMean(run.curves[name]) }));
  const readout = el("p", { class: "readout" });
  const picture = svg("svg", { height: HEIGHT, role: "img", tabindex: 0, "aria-label": describe(title, name) });
  const marks = svg("g");
  let [scales, xs] = [null, []];

  const draw = () => {
    const width = picture.parentNode.clientWidth;
    if (!width) return;
    xs = runs.map((run, i) => look.hidden.has(i) ? [] : run.curves[look.axis]);
    const smooth = look.smooth && series.some((s) => s.raw.length > SMOOTH);
    scales = makeScales(width, HEIGHT, xs.flat(), series.flatMap((s, i) => look.hidden.has(i) ? [] : s.raw));
    picture.replaceChildren(...frame(scales, AXES.find(([key]) => key === look.axis)[1]));
    picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    series.forEach((s, i) => {
      const dash = DASHES[i % DASHES.length];
      const color = `line c${i % NUM_COLORS}`;
      if (smooth) picture.append(svg("path", { d: path(xs[i], s.raw, scales), class: `${color} faint` }));
      picture.append(svg("path", { d: path(xs[i], smooth ? s.mean : s.raw, scales), class: color,
        "stroke-dasharray": dash }));
      if (xs[i].length === 1 && isNumber(s.raw[0])) {
        picture.append(svg("circle", { cx: scales.x(xs[i][0]), cy: scales.y(s.raw[0]), r: 3, class: `dot ${color}` }));
      }
    });
    picture.append(marks);
    mark();
  };
  // Marks each run's value at the hovered place, or says the last ones.
  const mark = () => {
    marks.replaceChildren();
    if (!scales) return;
    const at = xs.map((x) => look.hover === null || !x.length ? x.length - 1 : nearest(x, look.hover));
    const words = series.map((s, i) => at[i] < 0 ? null : el("span", null,
      many ? swatch(i) : null, `${show(s.raw[at[i]], 4)} `,
      el("small", null, AXIS_WORDS[look.axis](showShort(xs[i][at[i]])))));
    readout.replaceChildren(...words.filter(Boolean));
    if (look.hover === null) return;
    const x = scales.x(look.hover);
    marks.append(svg("line", { x1: x, x2: x, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, class: "cross" }));
    series.forEach((s, i) => isNumber(s.raw[at[i]]) && marks.append(svg("circle",
      { cx: scales.x(xs[i][at[i]]), cy: scales.y(s.raw[at[i]]), r: 3.5, class: `dot c${i % NUM_COLORS}` })));
  };
  listen(picture, readout, (pixel) => scales.unx(pixel));
  redraws.push(draw);
  remarks.push(mark);
  const figure = el("figure", null, el("figcaption", null, title, unit ? el("small", null, ` ${unit}`) : null),
    readout, el("div", null, picture));
  new ResizeObserver(draw).observe(figure);
  return figure;
}

function listen(picture, readout, unx) {
  picture.addEventListener("pointermove", (event) =>
    hover(unx(event.clientX - picture.getBoundingClientRect().left)));
  picture.addEventListener("pointerleave", () => hover(null));
  picture.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move) return;
    event.preventDefault();
    // Read aloud for the chart that is moved through, not for all that follow it.
    readout.setAttribute("aria-live", "polite");
    const x = runs.map((run) => run.curves[look.axis]).reduce((a, b) => a.length >= b.length ? a : b);
    const i = look.hover === null ? (move > 0 ? 0 : x.length - 1) : nearest(x, look.hover) + move;
    hover(x[Math.min(x.length - 1, Math.max(0, i))]);
  });
  picture.addEventListener("blur", () => {
    readout.removeAttribute("aria-live");
    hover(null);
  });
}

function describe(title, name) {
  return `${title}: ` + runs.filter((run) => run.curves[name].length).map((run) => {
    const values = run.curves[name];
    return `${run.name} from ${show(values[0])} to ${show(values[values.length - 1])}`;
  }).join("; ");
}

function nearest(xs, value) {
  let low = 0;
  let high = xs.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low > 0 && value - xs[low - 1] < xs[low] - value ? low - 1 : low;
}

function extent(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (!isNumber(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return [0, 1];
  return low === high ? [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2] : [low, high];
}

function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step);
  return found;
}

function makeScales(width, height, xs, ys, pad = 0.04) {
  const [x0, x1] = extent(xs);
  let [y0, y1] = extent(ys);
  // Zero belongs to the picture wherever it is near.
  if (y0 > 0 && y0 < 0.5 * y1) y0 = 0;
  const space = pad * (y1 - y0);
  if (y0 !== 0) y0 -= space;
  y1 += space;
  const inner = width - MARGIN.left - MARGIN.right;
  const tall = height - MARGIN.top - MARGIN.bottom;
  return {
    width, height, domain: [x0, x1, y0, y1],
    x: (value) => MARGIN.left + (value - x0) / (x1 - x0) * inner,
    unx: (pixel) => x0 + Math.min(1, Math.max(0, (pixel - MARGIN.left) / inner)) * (x1 - x0),
    y: (value) => MARGIN.top + (1 - (value - y0) / (y1 - y0)) * tall,
  };
}

function frame(scales, xLabel, yLabel) {
  const [x0, x1, y0, y1] = scales.domain;
  const [left, right] = [MARGIN.left, scales.width - MARGIN.right];
  const bottom = scales.height - MARGIN.bottom;
  return [
    ...ticks(y0, y1, 4).flatMap((value) => [
      svg("line", { x1: left, x2: right, y1: scales.y(value), y2: scales.y(value), class: "grid" }),
      svg("text", { x: left - 6, y: scales.y(value) + 4, "text-anchor": "end" }, showShort(value)),
    ]),
    ...ticks(x0, x1, scales.width > 330 ? 6 : 4).flatMap((value) => [
      svg("line", { x1: scales.x(value), x2: scales.x(value), y1: bottom, y2: bottom + 4, class: "axis" }),
      svg("text", { x: scales.x(value), y: bottom + 16, "text-anchor": "middle" }, showShort(value)),
    ]),
    svg("line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "axis" }),
    svg("text", { x: right, y: scales.height - 4, "text-anchor": "end", class: "label" }, xLabel),
    ...(yLabel ? [svg("text", { x: 2, y: scales.height - 4, class: "label" }, yLabel)] : []),
  ];
}

function path(xs, ys, scales) {
  let text = "";
  let pen = "M";
  for (let i = 0; i < xs.length; i++) {
    if (!isNumber(ys[i]) || !isNumber(xs[i])) {
      pen = "M";
      continue;
    }
    text += `${pen}${scales.x(xs[i]).toFixed(1)} ${scales.y(ys[i]).toFixed(1)}`;
    pen = "L";
  }
  return text;
}
