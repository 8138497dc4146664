// Facts, scores, verdicts and settings: all that is small.

const report = JSON.parse(byId("report-data").textContent);
const runs = report.runs;
const many = runs.length > 1;

function drawFacts() {
  byId("title").append(runs.map((run) => run.name).join(" · "));
  byId("made").append(`astarpo ${report.version} · report made ${report.made}`);
  if (many) {
    const labels = runs[0].facts.map(([label]) => label);
    const rows = labels.map((label, i) => [label, ...runs.map((run) => show(run.facts[i][1]))]);
    byId("facts").append(table(
      [["", "left"], ...runs.map((run) => [run.name, "number"])], rows, { label: "Facts of the runs" }));
  } else {
    byId("facts").append(el("dl", { class: "tiles" }, runs[0].facts
      .filter(([, value]) => value !== null)
      .map(([label, value]) => el("div", { class: String(value).length > 18 ? "long" : null },
        el("dt", null, label), el("dd", null, show(value))))));
  }
  for (const run of runs) {
    for (const text of run.notes) byId("notes").append(el("li", null, many ? `${run.name}: ` : "", text));
  }
}

function scoreName(name) {
  if (name === "pass_at_1") return "pass@1, greedy";
  if (name === "kl") return "KL to reference (nats)";
  if (name === "kl_per_token") return "KL per token (nats)";
  return name.replace("_at_", "@");
}

const fixed = (value) => value.toFixed(3).replace("-", "−");

const interval = (score) => score
  ? el("span", null, el("b", null, fixed(score.value)), ` [${fixed(score.low)}, ${fixed(score.high)}]`) : "";

function drawScores() {
  const body = byId("scores-body");
  const scored = runs.filter((run) => run.scores.reference || run.scores.trained);
  if (!scored.length) {
    body.append(note("No evaluation here."));
    return;
  }
  const names = [...new Set(scored.flatMap((run) =>
    Object.keys({ ...run.scores.reference, ...run.scores.trained })))];
  const has = (run, name) => run.scores.reference?.[name] || run.scores.trained?.[name];
  const rows = names.flatMap((name) => scored.filter((run) => has(run, name)).map((run) => {
    const [before, after] = [run.scores.reference?.[name], run.scores.trained?.[name]];
    const change = run.changes[name.startsWith("avg_at") ? "avg_at" : name];
    return [
      many ? `${scoreName(name)} · ${run.name}` : scoreName(name),
      interval(before), interval(after), showChange(change), drawIntervals(name, before, after),
    ];
  }));
  body.append(table(
    [["score", "left"], ["reference", "number"], ["trained", "number"], ["change", "number"], ["", "picture"]],
    rows, { class: "stacking", label: "Scores" }));
  body.append(note("Brackets are 95% intervals over problems. The change pairs the two answers to each " +
    "problem; it counts problems that got better and worse. In the picture ○ is the reference, ● the trained policy."));
}

function showChange(change) {
  if (!change) return "";
  const sign = change.value > 0 ? "+" : "";
  return el("span", null, el("b", null, sign + fixed(change.value)),
    ` [${fixed(change.low)}, ${fixed(change.high)}]  ▲\u2009${change.better} ▼\u2009${change.worse}`);
}

function drawIntervals(name, before, after) {
  const values = [before, after].filter(Boolean).flatMap(({ low, high }) => [low, high]);
  if (name.startsWith("kl") || Math.min(...values) < 0 || Math.max(...values) > 1) return "";
  const x = (value) => 6 + 188 * value;
  const line = (score, y, kind) => score ? [
    svg("line", { x1: x(score.low), x2: x(score.high), y1: y, y2: y, class: "interval" }),
    svg("circle", { cx: x(score.value), cy: y, r: 4, class: kind }),
  ] : [];
  return svg("svg", { viewBox: "0 0 200 26", width: 200, height: 26, "aria-hidden": "true" },
    svg("line", { x1: 6, x2: 194, y1: 13, y2: 13, class: "axis" }),
    [0, 0.5, 1].map((tick) => svg("line", { x1: x(tick), x2: x(tick), y1: 10, y2: 16, class: "axis" })),
    ...line(before, 7, "dot-before"), ...line(after, 19, "dot-after"));
}

function drawVerdicts() {
  const kinds = ["right", "wrong", "no_answer", "unparsable", "timeout", "error"];
  const rows = runs.flatMap((run) => Object.entries(run.verdicts).map(([kind, counts]) => {
    const all = kinds.reduce((sum, name) => sum + counts[name], 0);
    const share = (name) => counts[name]
      ? [`${show(counts[name])} `, el("small", null, `${(100 * counts[name] / all).toFixed(1)}%`)] : "0";
    return [many ? `${run.name}: ${ORIGINS[kind]}` : ORIGINS[kind],
      ...[...kinds, "cut"].map(share), show(all)];
  }));
  if (!rows.length) return;
  byId("verdicts").append(
    table([["answers", "left"], ...[...kinds, "cut at limit", "all"].map((name) =>
      [name === "wrong" ? "not right" : name.replace("_", " "), "number"])], rows, { label: "Verdicts by origin" }),
    note("Right (a reward of 1 or more) and not right were judged; no answer: none was stated; unparsable: one that cannot be read; " +
      "timeout and error: judging itself failed. Those cut at the token limit are among the others."));
}

function drawSettings() {
  const titles = [...new Set(runs.flatMap((run) => Object.keys(run.settings)))];
  for (const title of titles) {
    const parts = runs.map((run) => run.settings[title] ?? {});
    const names = [...new Set(parts.flatMap((part) => Object.keys(part)))];
    const differs = (name) => new Set(parts.map((part) => part[name])).size > 1;
    names.sort((a, b) => differs(b) - differs(a));
    const rows = names.map((name) => [
      differs(name) ? el("b", null, `≠ ${name}`) : name,
      ...parts.map((part) => part[name] ?? "–"),
    ]);
    byId("settings-body").append(el("details", { open: names.some(differs) },
      el("summary", null, title),
      table([["setting", "left"], ...runs.map((run) => [many ? run.name : "value", "value"])],
        rows, { label: title })));
  }
}

function main() {
  drawFacts();
  drawScores();
  drawCurves();
  drawStage1();
  drawVerdicts();
  drawSettings();
  // The answers take longest to unpack: let the rest appear first.
  requestAnimationFrame(() => setTimeout(startAnswers));
}
