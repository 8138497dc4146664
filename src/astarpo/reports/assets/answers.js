// The browser of answers: filters, a list in pages, and all answers to one problem side by side.

const NARROW = matchMedia("(max-width: 900px)");
const PAGE = NARROW.matches ? 8 : 25;
const CARDS = 12;
const LONG = 6000;
const VERDICTS = {
  all: ["any verdict", () => true],
  right: ["right", (i) => isRight(i)],
  wrong: ["not right", (i) => !isRight(i)],
  no_answer: ["no answer", (i) => answers.status[i] === "no_answer"],
  unparsable: ["unparsable", (i) => answers.status[i] === "unparsable"],
  timeout: ["timeout", (i) => answers.status[i] === "timeout"],
  error: ["error", (i) => answers.status[i] === "error"],
  cut: ["cut at limit", (i) => answers.cut[i] === 1],
};
const ORDERS = {
  origin: ["as they came", null],
  problem: ["problem", (a, b) => answers.problem[a] - answers.problem[b]],
  longest: ["longest first", (a, b) => answers.num_tokens[b] - answers.num_tokens[a]],
  surprise: ["reward furthest from V*", (a, b) => surprise(b) - surprise(a)],
};

// Names of the runs, of the origins of answers, and how many answers there are and are shown.
const report = JSON.parse(byId("report-data").textContent);
let answers = null;
let found = [];
let page = 0;
let chosen = null;

const isRight = (i) => answers.reward[i] >= 1;
const surprise = (i) => isNumber(answers.v_star[i]) ? Math.abs(answers.reward[i] - answers.v_star[i]) : -1;

async function startAnswers() {
  const body = byId("answers-body");
  if (!report.num_answers) {
    body.replaceChildren(note("No answers here."));
    return;
  }
  if (!("DecompressionStream" in window)) {
    body.replaceChildren(note("This browser is too old to unpack the answers (no DecompressionStream)."));
    return;
  }
  answers = await unpack(byId("answers-data").textContent);
  answers.source.forEach((_, i) => {
    if (answers.step[i] === null) answers.step[i] = 0;
  });
  body.replaceChildren(controls(), el("p", { id: "found", class: "muted", "aria-live": "polite" }),
    el("div", { class: "browser" },
      el("div", null, el("ol", { id: "list", class: "list", onkeydown: moveFocus }), pager()),
      el("div", { id: "detail", class: "detail", tabindex: -1 })));
  if (report.num_shown < report.num_answers) {
    body.prepend(note(`${show(report.num_shown)} of ${show(report.num_answers)} answers are in this page: every ` +
      "answer to some of the problems. More: astarpo report --max-answers."));
  }
  search();
  if (found.length) choose(found[0], false);
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}

async function unpack(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

const sourceName = (k) => {
  const { run, kind } = answers.sources[k];
  const origin = report.origins[kind];
  return report.runs.length > 1 ? `${report.runs[run]}: ${origin}` : origin;
};

function controls() {
  const select = (id, label, options) => el("label", null, label,
    el("select", { id, onchange: search }, options.map(([value, text]) => el("option", { value }, text))));
  const number = (id, label) => el("label", null, label,
    el("input", { id, type: "number", min: 0, inputmode: "numeric", oninput: searchSoon }));
  return el("form", { class: "controls", onsubmit: (event) => event.preventDefault() },
    select("origin", "From", [["all", "everywhere"], ...answers.sources.map((_, k) => [String(k), sourceName(k)])]),
    select("verdict", "Verdict", Object.entries(VERDICTS).map(([key, [text]]) => [key, text])),
    el("label", { class: "wide" }, "Problem or text",
      el("input", { id: "words", type: "search", placeholder: "id, question, answer, any words", oninput: searchSoon })),
    number("from", "Step from"), number("to", "to"),
    select("order", "Order", Object.entries(ORDERS).map(([key, [text]]) => [key, text])));
}

let waiting = 0;
function searchSoon() {
  clearTimeout(waiting);
  waiting = setTimeout(search, 150);
}

function search() {
  const origin = byId("origin").value;
  const verdict = VERDICTS[byId("verdict").value][1];
  const words = byId("words").value.trim();
  const [from, to] = [byId("from"), byId("to")].map((input) => input.value === "" ? null : Number(input.value));
  const pattern = words && new RegExp(words.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "i");
  const inProblem = pattern && answers.problems.map((id, p) =>
    pattern.test(id) || pattern.test(answers.questions[p] ?? ""));
  // A range of steps asks for training steps: what has none is left out.
  const inSteps = (step) => (from === null && to === null) ||
    (step > 0 && step >= (from ?? 0) && step <= (to ?? Infinity));
  found = [];
  for (let i = 0; i < answers.text.length; i++) {
    if (origin !== "all" && String(answers.source[i]) !== origin) continue;
    if (!verdict(i) || !inSteps(answers.step[i])) continue;
    if (pattern && !inProblem[answers.problem[i]] && !pattern.test(answers.text[i]) &&
      !pattern.test(answers.answer[i] ?? "")) continue;
    found.push(i);
  }
  const order = ORDERS[byId("order").value][1];
  if (order) found.sort(order);
  const problems = new Set(found.map((i) => answers.problem[i])).size;
  const right = found.filter(isRight).length;
  byId("found").textContent = found.length
    ? `${plural(found.length, "answer")} to ${plural(problems, "problem")}, ${show(100 * right / found.length, 3)}% right`
    : "Nothing fits these filters.";
  turn(0);
}

function pager() {
  const button = (id, text, label, move) =>
    el("button", { id, type: "button", "aria-label": label, onclick: () => turn(move()) }, text);
  const last = () => Math.max(0, Math.ceil(found.length / PAGE) - 1);
  return el("p", { class: "pager" },
    button("first", "«", "First page", () => 0), button("back", "‹", "Previous page", () => page - 1),
    el("span", { id: "page" }),
    button("next", "›", "Next page", () => page + 1), button("last", "»", "Last page", last));
}

function turn(to) {
  const pages = Math.max(1, Math.ceil(found.length / PAGE));
  page = Math.min(pages - 1, Math.max(0, to));
  byId("page").textContent = `${show(page + 1)} of ${show(pages)}`;
  for (const id of ["first", "back"]) byId(id).disabled = page === 0;
  for (const id of ["next", "last"]) byId(id).disabled = page === pages - 1;
  byId("list").replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map(row));
}

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

function row(i) {
  return el("li", null, el("button", {
    type: "button", "data-i": i, "aria-current": i === chosen ? "true" : null, onclick: () => choose(i, true),
  },
    el("span", { class: "line" }, badge(i), el("b", null, answers.problems[answers.problem[i]]),
      el("span", { class: "muted" }, `${sourceName(answers.source[i])}, ${place(i)}`)),
    el("span", { class: "excerpt" }, answers.text[i].slice(0, 160).trim() || "(empty)")));
}

function moveFocus(event) {
  const item = document.activeElement.closest("li");
  const next = { ArrowDown: item?.nextElementSibling, ArrowUp: item?.previousElementSibling }[event.key];
  if (!next) return;
  event.preventDefault();
  next.firstChild.focus();
}

function choose(i, go) {
  chosen = i;
  for (const button of byId("list").querySelectorAll("button")) {
    if (Number(button.dataset.i) === i) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
  drawProblem(answers.problem[i], i);
  // On a narrow screen the answers are below the list.
  if (go && NARROW.matches) byId("detail").scrollIntoView({ block: "start" });
}

const fact = (label, value) => el("div", null, el("dt", null, label), el("dd", null, value));

function drawProblem(problem, start) {
  const value = answers.values[problem];
  const groups = new Map();
  for (let i = 0; i < answers.problem.length; i++) {
    if (answers.problem[i] !== problem) continue;
    groups.set(answers.source[i], [...(groups.get(answers.source[i]) ?? []), i]);
  }
  const columns = [...groups].map(([k, rows]) => {
    rows.sort((a, b) => answers.step[a] - answers.step[b] || answers.greedy[b] - answers.greedy[a] ||
      answers.sample[a] - answers.sample[b]);
    return column(k, rows, start);
  });
  byId("detail").replaceChildren(
    el("h3", null, answers.problems[problem]),
    answers.questions[problem] === null ? note("The problem set is not to be found: no question.")
      : el("pre", { class: "question", tabindex: 0 }, answers.questions[problem]),
    el("dl", { class: "inline" },
      fact("ground truth", el("code", null, answers.truths[problem] ?? "unknown")),
      value ? fact("stage 1", `mean reward ${show(value[0], 3)}, V* ${show(value[1], 3)} ± ${show(value[2], 2)}`) : null),
    el("div", { class: "columns", tabindex: 0, role: "group", "aria-label": "Answers side by side" }, columns));
  const side = byId("detail").querySelector(".columns");
  const box = side.querySelector(".chosen")?.closest(".column");
  if (box && box.offsetLeft + box.offsetWidth > side.offsetLeft + side.clientWidth) {
    side.scrollLeft = box.offsetLeft - side.offsetLeft;
  }
}

function column(k, rows, start) {
  const right = rows.filter(isRight).length;
  const holder = el("div", { class: "cards" });
  const more = el("button", { type: "button", onclick: () => draw(rows.length) });
  // Few of many: spread evenly from first to last, and always the chosen one.
  const draw = (count) => {
    const spread = new Set(Array.from({ length: Math.min(count, rows.length) }, (_, n) =>
      rows[Math.round(n * (rows.length - 1) / Math.max(1, Math.min(count, rows.length) - 1))]));
    const shown = rows.filter((i) => spread.has(i) || i === start);
    holder.replaceChildren(...shown.map((i) => card(i, i === start)));
    more.hidden = shown.length === rows.length;
    more.textContent = `Show all ${rows.length}`;
  };
  draw(CARDS);
  return el("section", { class: "column" },
    el("h4", null, sourceName(k), el("small", null, ` ${right} of ${rows.length} right`)), marks(rows), holder, more);
}

// One mark an answer, in order: how the problem went at a glance.
function marks(rows) {
  const shown = rows.slice(0, 200);
  return el("p", { class: "marks", role: "img", "aria-label": `${rows.filter(isRight).length} of ${rows.length} right` },
    shown.map((i) => el("span", { class: isRight(i) ? "good" : answers.status[i] === "ok" ? "bad" : "odd",
      title: `${place(i)}: ${answers.answer[i] ?? answers.status[i]}` },
    isRight(i) ? "●" : answers.status[i] === "ok" ? "○" : "–")));
}

function card(i, isChosen) {
  const facts = [
    ["extracted", answers.answer[i] ?? "–"],
    ["reward", show(answers.reward[i])],
    ["V*", isNumber(answers.v_star[i]) ? show(answers.v_star[i], 3) : null],
    ["tokens", `${show(answers.num_tokens[i])}${answers.cut[i] ? ", cut" : ""}`],
  ].filter(([, value]) => value !== null);
  return el("article", { class: isChosen ? "card chosen" : "card" },
    el("p", { class: "line" }, badge(i), el("b", null, place(i))),
    response(answers.text[i]),
    el("dl", { class: "inline" }, facts.map(([label, value]) => fact(label, value))));
}

function response(text) {
  const pre = el("pre", { class: "response", tabindex: text.length > 300 ? 0 : null },
    text.slice(0, LONG) || "(empty)");
  if (text.length <= LONG) return pre;
  const more = el("button", { type: "button", onclick: () => { pre.textContent = text; more.remove(); } },
    `Show all ${show(text.length)} characters`);
  return [pre, more];
}

// The answers take longest to unpack: let the rest of the page appear first.
requestAnimationFrame(() => setTimeout(startAnswers));
