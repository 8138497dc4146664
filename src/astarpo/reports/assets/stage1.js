// Pictures of stage 1: solve rates, V* with its error, lengths.

function drawStage1() {
  const body = byId("stage1-body");
  const seen = new Map();
  for (const run of runs.filter((r) => r.stage1)) {
    const key = JSON.stringify(run.stage1);
    seen.set(key, [...(seen.get(key) ?? []), run]);
  }
  if (!seen.size) body.append(note("No value table to be found."));
  for (const group of seen.values()) {
    const found = group[0].stage1;
    if (many) body.append(el("h3", null, group.map((run) => run.name).join(", ")));
    const share = (value) => `${show(100 * value, 3)}%`;
    body.append(el("p", null, `${plural(found.num_problems, "problem")}, ` +
      `${found.num_samples.join(" or ")} samples each, β₁ = ${found.beta1}. Mean reward ` +
      `${show(found.mean_reward, 3)}; all samples wrong ${share(found.all_wrong)}, all right ` +
      `${share(found.all_right)} of problems.`));
    body.append(el("div", { class: "charts" }, solveRates(found), estimates(found), lengths(found)));
  }
}

function picture(title, unit, draw) {
  const image = svg("svg", { height: HEIGHT, role: "img", "aria-label": title });
  const holder = el("div", null, image);
  const figure = el("figure", null, el("figcaption", null, title, el("small", null, ` ${unit}`)), holder);
  new ResizeObserver(() => {
    const width = holder.clientWidth;
    if (!width) return;
    image.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    image.replaceChildren(...draw(width));
  }).observe(figure);
  return figure;
}

function bar(scales, left, right, from, to, kind, words) {
  const [x, y] = [scales.x(left), scales.y(to)];
  return svg("rect", { x, y, width: Math.max(1, scales.x(right) - x), height: Math.max(0, scales.y(from) - y),
    class: kind }, svg("title", null, words));
}

function solveRates({ solve_rates: { x, count } }) {
  const gaps = x.slice(1).map((value, i) => value - x[i]);
  const half = 0.35 * Math.min(0.25, ...gaps);
  return picture("Solve rate", "problems by mean reward", (width) => {
    const scales = makeScales(width, HEIGHT, [0 - half, 1 + half, ...x], [0, ...count]);
    return [...frame(scales, "mean reward of the samples"), ...x.map((level, i) =>
      bar(scales, level - half, level + half, 0, count[i], "bar", `${plural(count[i], "problem")} at ${show(level)}`))];
  });
}

function estimates({ points }) {
  return picture("V*", "against mean reward; bars: standard error", (width) => {
    const xs = points.map(([mean]) => mean);
    const ys = points.flatMap(([, value, error]) => [value - error, value + error]);
    const scales = makeScales(width, HEIGHT, [0, 1, ...xs], [0, 1, ...ys]);
    const [low, high] = extent([0, 1, ...xs]);
    return [...frame(scales, "mean reward of the samples"),
      svg("line", { x1: scales.x(low), y1: scales.y(low), x2: scales.x(high), y2: scales.y(high), class: "cross" }),
      ...points.flatMap(([mean, value, error, count]) => [
        svg("line", { x1: scales.x(mean), x2: scales.x(mean), y1: scales.y(value - error),
          y2: scales.y(value + error), class: "interval" }),
        svg("circle", { cx: scales.x(mean), cy: scales.y(value), r: 4, class: "dot c0" },
          svg("title", null, `mean ${show(mean)}, V* ${show(value)} ± ${show(error, 2)}: ${plural(count, "problem")}`)),
      ])];
  });
}

function lengths({ lengths: found }) {
  if (!found) return null;
  const { edges, right, not_right: rest } = found;
  return picture("Length", "samples by tokens; full: right, pale: not", (width) => {
    const scales = makeScales(width, HEIGHT, edges, right.map((n, i) => n + rest[i]).concat(0));
    return [...frame(scales, "tokens of a sample"), ...right.flatMap((n, i) => [
      bar(scales, edges[i], edges[i + 1] - 0.1 * (edges[i + 1] - edges[i]), 0, n, "bar", `${n} right`),
      bar(scales, edges[i], edges[i + 1] - 0.1 * (edges[i + 1] - edges[i]), n, n + rest[i], "bar light",
        `${rest[i]} not right`),
    ])];
  });
}
