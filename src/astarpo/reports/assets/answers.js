// The answers of the page: unpacked, grouped by problem, and what they come to.

// Names of the runs, of the origins of answers, and how many answers there are and are shown.
const report = JSON.parse(byId("report-data").textContent);
let answers = null;
let found = []; // problems that fit the filters
let fitting = new Map(); // their answers that fit
let groups = []; // by problem: the answers of each source, in their order
let page = 0;
let chosen = null;

const isRight = (i) => answers.reward[i] >= 1;
const residual = (i) => isNumber(answers.v_star[i]) && isNumber(answers.reward[i]) ? answers.reward[i] - answers.v_star[i] : null;
const surprise = (i) => residual(i) === null ? null : Math.abs(residual(i));
const negative = (value) => value === null ? null : -value;

function grouped() {
  const byProblem = answers.problems.map(() => new Map());
  for (let i = 0; i < answers.problem.length; i++) {
    const sources = byProblem[answers.problem[i]];
    if (!sources.has(answers.source[i])) sources.set(answers.source[i], []);
    sources.get(answers.source[i]).push(i);
  }
  for (const sources of byProblem) {
    for (const rows of sources.values()) {
      rows.sort((a, b) => answers.step[a] - answers.step[b] || answers.greedy[b] - answers.greedy[a] ||
        answers.sample[a] - answers.sample[b]);
    }
  }
  return byProblem;
}

async function unpack(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

const mean = (rows) => rows.length ? rows.reduce((sum, i) => sum + answers.reward[i], 0) / rows.length : null;

// The largest number that the fitting answers to a problem give; null where none gives any.
function most(problem, number) {
  const numbers = fitting.get(problem).map(number).filter(isNumber);
  return numbers.length ? Math.max(...numbers) : null;
}

// Answers to a problem of one kind of origin, those of the run that comes first.
function ofKind(problem, kind) {
  for (const [k, rows] of groups[problem]) if (answers.sources[k].kind === kind) return rows;
  return [];
}

// The sampled answers among some, or all where none was sampled.
function sampledOf(rows) {
  const sampled = rows.filter((i) => !answers.greedy[i]);
  return sampled.length ? sampled : rows;
}

// How the mean reward changed: from the reference's to the trained policy's answers, else from
// stage 1 to the later half of training.
function changeOf(problem) {
  let [before, after] = ["reference", "trained"].map((kind) => sampledOf(ofKind(problem, kind)));
  if (!before.length || !after.length) {
    const training = ofKind(problem, "training");
    [before, after] = [ofKind(problem, "stage1"), training.slice(Math.floor(training.length / 2))];
  }
  return before.length && after.length ? mean(after) - mean(before) : null;
}

const sourceName = (k) => {
  const { run, kind } = answers.sources[k];
  const origin = report.origins[kind];
  return report.runs.length > 1 ? `${report.runs[run]}: ${origin}` : origin;
};

// The same in a word or two.
const shortName = (k) => {
  const { run, kind } = answers.sources[k];
  return report.runs.length > 1 ? `${report.runs[run]} ${report.short[kind]}` : report.short[kind];
};

function badge(i) {
  const status = answers.status[i];
  if (status !== "ok") return el("span", { class: "badge odd" }, `! ${status.replace("_", " ")}`);
  if (isRight(i)) return el("span", { class: "badge good" }, "✓ right");
  if (answers.reward[i] > 0) return el("span", { class: "badge odd" }, "~ partial");
  return el("span", { class: "badge bad" }, "✗ wrong");
}

function place(i) {
  const { kind } = answers.sources[answers.source[i]];
  if (kind === "training") return `step ${answers.step[i]}`;
  if (answers.greedy[i]) return "greedy";
  return `sample ${(answers.sample[i] ?? 0) + 1}`;
}
