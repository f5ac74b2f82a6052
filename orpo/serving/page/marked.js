// A text with its emojis marked; each mark shows every part of the score and its reason on hover, focus or tap.

import { find, make } from "./element.js";

const grade = (value) => (value >= 0.8 ? "good" : value >= 0.5 ? "fair" : "bad");

export function scoreText(report) {
  return make("span", { class: grade(report.score) }, `score ${report.score.toFixed(2)}`);
}

export function partsTable(report, title) {
  const rows = Object.entries(report.parts).map(([name, part]) =>
    make("tr", {}, make("th", { scope: "row" }, name),
      make("td", { class: `number ${grade(part.value)}` }, part.value.toFixed(2)), make("td", {}, part.reason)));
  return make("table", {}, make("caption", {}, title ?? `${report.profile}: ${report.score.toFixed(3)}`), make("tbody", {}, ...rows));
}

let shownFor = null;
let isPinned = false;

function show(mark, report) {
  const box = find("parts");
  box.replaceChildren(partsTable(report));
  box.hidden = false;
  mark.setAttribute("aria-describedby", "parts");
  const { left, bottom, top } = mark.getBoundingClientRect();
  const below = bottom + 6 + box.offsetHeight <= innerHeight;
  box.style.left = `${Math.max(8, Math.min(left, innerWidth - box.offsetWidth - 8))}px`;
  box.style.top = `${below ? bottom + 6 : Math.max(8, top - 6 - box.offsetHeight)}px`;
  shownFor = mark;
}

export function hideParts() {
  if (shownFor === null) return;
  shownFor.removeAttribute("aria-describedby");
  find("parts").hidden = true;
  shownFor = null;
  isPinned = false;
}

document.addEventListener("keydown", (event) => event.key === "Escape" && hideParts());
document.addEventListener("scroll", hideParts, { passive: true });
document.addEventListener("click", (event) => {
  if (!event.target.closest(".emoji, #parts")) hideParts();
});

function mark(text, report) {
  const made = make("button", { type: "button", class: "emoji" }, text);
  made.addEventListener("mouseenter", () => isPinned || show(made, report));
  made.addEventListener("mouseleave", () => isPinned || hideParts());
  made.addEventListener("focus", () => made.matches(":focus-visible") && show(made, report));
  made.addEventListener("blur", hideParts);
  made.addEventListener("click", () => {
    if (isPinned && shownFor === made) return hideParts();
    show(made, report);
    isPinned = true;
  });
  return made;
}

export function marked(report) {
  return report.segments.map((part) => (part.emoji ? mark(part.text, report) : document.createTextNode(part.text)));
}
