// LaTeX in text as MathML, which Temml builds as elements: no text becomes markup here either.

// What stands between \( \), \[ \], $$ $$ or $ $, or in a bare \boxed{}. Like Pandoc's, a single $
// opens before what is no space and closes after what is no space and before what is no digit.
// Bounded, so that no text takes long.
const FORMULA = new RegExp([
  String.raw`\\\((.{1,2000}?)\\\)`, String.raw`\\\[(.{1,2000}?)\\\]`, String.raw`\$\$(.{1,2000}?)\$\$`,
  String.raw`(?<![\\$\w])\$(?=[^\s$])([^$\n]{0,2000}?[^\s$\\])\$(?![\d$])`,
  String.raw`(\\boxed\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})`,
].join("|"), "gs");
const MAX_FORMULA = 2000;
const MAX_FORMULAS = 300;
// Two words side by side, outside commands, are prose between two prices.
const PROSE = /(?:^|[\s,.])[A-Za-z]{2,}[\s,.]+[A-Za-z]{2,}/;

let rendersFormulas = temml !== null;

// The text as nodes to append: strings, and a span for each formula that can be read.
function prose(text) {
  if (!rendersFormulas || !/[\\$]/.test(text)) return [text];
  const parts = [];
  let end = 0;
  let count = 0;
  for (const match of text.matchAll(FORMULA)) {
    if (count++ >= MAX_FORMULAS) break;
    const span = formula(match);
    if (!span) continue;
    parts.push(text.slice(end, match.index), span);
    end = match.index + match[0].length;
  }
  parts.push(text.slice(end));
  return parts;
}

function formula([whole, inline, block, doubled, dollar, boxed]) {
  const source = inline ?? block ?? doubled ?? dollar ?? boxed;
  if (source.length > MAX_FORMULA) return null;
  if (dollar !== undefined && PROSE.test(dollar.replace(/\\(?:text|mathrm|operatorname)\{[^}]*\}|\\[A-Za-z]+/g, ""))) {
    return null;
  }
  const displayMode = block !== undefined || doubled !== undefined;
  const span = el("span", { class: displayMode ? "formula block" : "formula", title: whole });
  try {
    temml.render(source, span, { displayMode, throwOnError: true, trust: false, maxSize: [10, 10], maxExpand: 500 });
  } catch {
    return null; // It stays as it was written.
  }
  // A \label may not take the place of a part of the page.
  for (const node of span.querySelectorAll("[id], [href]")) {
    node.removeAttribute("id");
    node.removeAttribute("href");
  }
  return span;
}
