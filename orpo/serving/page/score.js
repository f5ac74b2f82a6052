// The score of any text: its parts, their reasons, and which emojis would suit it.

import { doing, find, make, options } from "./element.js";
import { marked, partsTable, scoreText } from "./marked.js";
import { post } from "./request.js";

async function score() {
  const asked = { text: find("score-text").value, prompt: find("score-prompt").value, system: find("score-system").value };
  const report = await post("/api/score", { ...asked, profile: find("score-profile").value, suggest: true });
  const picks = report.suggestions.map((pick) => make("li", {}, `${pick.emoji} ${pick.value.toFixed(2)}: ${pick.reason}`));
  find("score-result").replaceChildren(
    make("p", { class: "reply" }, ...marked(report)), make("p", {}, scoreText(report)), partsTable(report),
    make("h2", {}, "What would suit it, without its emojis"), picks.length ? make("ul", {}, ...picks) : make("p", { class: "note" }, "None is in place."));
}

export function startScore(state) {
  options(find("score-profile"), state.scorers.map((name) => [name, name]), state.scorer);
  find("score-form").addEventListener("submit", doing(score));
}
