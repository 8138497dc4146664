// The list of problems: filters, order, pages; and the start of it all.

const NARROW = matchMedia("(max-width: 900px)");
const PAGE = NARROW.matches ? 8 : 25;
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
// Each gives a number by which problems stand, the smallest first; those without one are last.
const ORDERS = {
  problem: ["problem", (p) => p],
  loss: ["greatest loss", (p) => changeOf(p)],
  gain: ["greatest gain", (p) => negative(changeOf(p))],
  hardest: ["lowest V* first", (p) => answers.values[p]?.[1] ?? null],
  surprise: ["answer furthest from V*", (p) => negative(most(p, surprise))],
  longest: ["longest answer first", (p) => negative(most(p, (i) => answers.num_tokens[i]))],
};
const DOTS = 12;

async function start() {
  await startAnswers();
  scrollBack();
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}

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
  groups = grouped();
  body.replaceChildren(controls(), el("p", { id: "found", class: "muted", "aria-live": "polite" }),
    el("div", { class: "browser" },
      el("div", null, el("ol", { id: "list", class: "list", onkeydown: moveFocus }), pager()),
      el("div", { id: "detail", class: "detail", tabindex: -1 })));
  if (report.num_shown < report.num_answers) {
    body.prepend(note(`${show(report.num_shown)} of ${show(report.num_answers)} answers are in this page: every ` +
      "answer to some of the problems. More: astarpo report --max-answers."));
  }
  search();
  if (!follow() && found.length) choose(found[0], false);
  addEventListener("hashchange", follow);
}

function controls() {
  const select = (id, label, options) => el("label", null, label,
    el("select", { id, onchange: search }, options.map(([value, text]) =>
      el("option", { value, selected: value === left[id] }, text))));
  const number = (id, label) => el("label", null, label,
    el("input", { id, type: "number", min: 0, inputmode: "numeric", value: left[id], oninput: searchSoon }));
  return el("form", { class: "controls", onsubmit: (event) => event.preventDefault() },
    select("origin", "From", [["all", "everywhere"], ...answers.sources.map((_, k) => [String(k), sourceName(k)])]),
    select("verdict", "Verdict", Object.entries(VERDICTS).map(([key, [text]]) => [key, text])),
    el("label", { class: "wide" }, "Problem or text",
      el("input", { id: "words", type: "search", placeholder: "id, question, answer, any words", value: left.words,
        oninput: searchSoon })),
    number("from", "Step from"), number("to", "to"),
    select("order", "Order", Object.entries(ORDERS).map(([key, [text]]) => [key, text])),
    temml && el("label", { class: "tick" },
      el("input", { type: "checkbox", checked: true, onchange: (event) => {
        rendersFormulas = event.target.checked;
        if (chosen !== null) choose(chosen, false);
      } }), "LaTeX as formulas"));
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
  fitting = new Map();
  let count = 0;
  let right = 0;
  for (let i = 0; i < answers.text.length; i++) {
    const problem = answers.problem[i];
    if (origin !== "all" && String(answers.source[i]) !== origin) continue;
    if (!verdict(i) || !inSteps(answers.step[i])) continue;
    if (pattern && !inProblem[problem] && !pattern.test(answers.text[i]) &&
      !pattern.test(answers.answer[i] ?? "")) continue;
    if (!fitting.has(problem)) fitting.set(problem, []);
    fitting.get(problem).push(i);
    count += 1;
    right += isRight(i);
  }
  found = ordered([...fitting.keys()], ORDERS[byId("order").value][1]);
  byId("found").textContent = found.length
    ? `${plural(count, "answer")} to ${plural(found.length, "problem")}, ${show(100 * right / count, 3)}% right`
    : "Nothing fits these filters.";
  remember(Object.fromEntries(["origin", "verdict", "words", "from", "to", "order"].map((id) => [id, byId(id).value])));
  turn(0);
}

function ordered(problems, number) {
  const numbers = new Map(problems.map((p) => [p, number(p) ?? Infinity]));
  return problems.sort((a, b) => numbers.get(a) - numbers.get(b) || a - b);
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

function row(problem) {
  const change = changeOf(problem);
  const question = answers.questions[problem];
  return el("li", null, el("a", {
    href: addressOf(problem), "data-problem": problem, "aria-current": problem === chosen ? "true" : null,
    onclick: (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return; // A tab of its own.
      event.preventDefault();
      choose(problem, true);
    },
  },
    el("span", { class: "line" }, el("b", null, answers.problems[problem]),
      change === null ? null : el("span", { class: `change ${change > 0 ? "good" : change < 0 ? "bad" : "muted"}` },
        change > 0 ? `▲ +${show(change, 2)}` : change < 0 ? `▼ ${show(change, 2)}` : "=")),
    el("span", { class: "line dots" }, [...groups[problem]].map(([k, rows]) =>
      el("span", null, el("small", null, shortName(k)), marks(rows, DOTS)))),
    el("span", { class: "excerpt" }, (question ?? answers.text[fitting.get(problem)[0]]).slice(0, 160).trim() || "(empty)")));
}

function moveFocus(event) {
  const item = document.activeElement.closest("li");
  const next = { ArrowDown: item?.nextElementSibling, ArrowUp: item?.previousElementSibling }[event.key];
  if (!next) return;
  event.preventDefault();
  next.firstChild.focus();
}

// The answers take longest to unpack: let the rest of the page appear first.
requestAnimationFrame(() => setTimeout(start));
