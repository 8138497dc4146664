// One problem: its question, and all answers to it side by side.

const CARDS = 12;
const LONG = 6000;

// The problem that the address names (#problem=ID), so that a link leads to it.
function follow() {
  const [, name] = /^#problem=(.*)$/.exec(location.hash) ?? [];
  if (name === undefined) return false;
  let problem = -1;
  try {
    problem = answers.problems.indexOf(decodeURIComponent(name));
  } catch {
    // Not an address that this page made.
  }
  if (problem < 0) {
    byId("detail").replaceChildren(note("The problem of this address is not in this page."));
  } else {
    const place = found.indexOf(problem);
    if (place >= 0) turn(Math.floor(place / PAGE));
    choose(problem, false);
  }
  if (left.y === undefined) byId("detail").scrollIntoView({ block: "start", behavior: "instant" });
  return true;
}

const addressOf = (problem) => `#problem=${encodeURIComponent(answers.problems[problem])}`;

function choose(problem, go) {
  chosen = problem;
  for (const button of byId("list").querySelectorAll("a")) {
    if (Number(button.dataset.problem) === problem) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
  drawProblem(problem, fitting.get(problem)?.[0]);
  if (go) {
    try {
      history.replaceState(left, "", addressOf(problem));
    } catch {
      // A page in a frame may have no address of its own.
    }
  }
  // On a narrow screen the answers are below the list.
  if (go && NARROW.matches) byId("detail").scrollIntoView({ block: "start" });
}

const fact = (label, value) => el("div", null, el("dt", null, label), el("dd", null, value));

function drawProblem(problem, start) {
  const value = answers.values[problem];
  const columns = [...groups[problem]].map(([k, rows]) => column(k, rows, start));
  byId("detail").replaceChildren(
    el("h3", null, answers.problems[problem], " ",
      el("a", { href: addressOf(problem), title: "Address of this problem" }, "#")),
    answers.questions[problem] === null ? note("The problem set is not to be found: no question.")
      : el("pre", { class: "question", tabindex: 0 }, prose(answers.questions[problem])),
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
    el("h4", null, sourceName(k), el("small", null, ` ${right} of ${rows.length} right`)), marks(rows, 200), holder, more);
}

// One mark an answer, in order: how the problem went at a glance. Of too many, spread evenly.
function marks(rows, most) {
  const count = Math.min(most, rows.length);
  const shown = Array.from({ length: count }, (_, n) => rows[Math.floor(n * rows.length / count)]);
  return el("span", { class: "marks", role: "img", "aria-label": `${rows.filter(isRight).length} of ${rows.length} right` },
    shown.map((i) => el("span", { class: isRight(i) ? "good" : answers.status[i] === "ok" ? "bad" : "odd",
      title: `${place(i)}: ${answers.answer[i] ?? answers.status[i]}` },
    isRight(i) ? "●" : answers.status[i] === "ok" ? "○" : "–")));
}

function card(i, isChosen) {
  const facts = [
    ["extracted", answers.answer[i] ?? "–"],
    ["reward", show(answers.reward[i])],
    ["V*", isNumber(answers.v_star[i]) ? show(answers.v_star[i], 3) : null],
    ["reward − V*", residual(i) === null ? null : signed(residual(i))],
    ["tokens", `${show(answers.num_tokens[i])}${answers.cut[i] ? ", cut" : ""}`],
  ].filter(([, value]) => value !== null);
  return el("article", { class: isChosen ? "card chosen" : "card" },
    el("p", { class: "line" }, badge(i), el("b", null, place(i))),
    response(answers.text[i]),
    el("dl", { class: "inline" }, facts.map(([label, value]) => fact(label, value))));
}

function response(text) {
  const pre = el("pre", { class: "response", tabindex: text.length > 300 ? 0 : null },
    text ? prose(text.slice(0, LONG)) : "(empty)");
  if (text.length <= LONG) return pre;
  const more = el("button", { type: "button", onclick: () => { pre.replaceChildren(...prose(text)); more.remove(); } },
    `Show all ${show(text.length)} characters`);
  return [pre, more];
}
