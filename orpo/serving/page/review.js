// Pair review: one pair at a time, decided by a key; every decision is kept by the server at once.

import { doing, find, isTyping, make, options, say } from "./element.js";
import { marked, partsTable, scoreText } from "./marked.js";
import { get, post } from "./request.js";

const KEY = "orpo-review";
let review = null; // {id, data, count, decisions, number}
let pair = null;

const keep = () => sessionStorage.setItem(KEY, JSON.stringify({ data: review.data, number: review.number, who: find("review-who").value }));
const path = () => `/api/reviews/${review.id}/pairs/${review.number}`;

function drawSide(name) {
  const side = pair[name];
  find(`review-${name}`).replaceChildren(...marked(side));
  find(`review-${name}`).append(make("p", { class: "facts" }, scoreText(side), side.model ? ` · ${side.model}` : ""),
    make("details", {}, make("summary", {}, "Parts of the score"), partsTable(side)));
}

const numbers = (found) => (found.length > 6 ? `${found.slice(0, 6).join(", ")} and ${found.length - 6} more` : found.join(", "));

function drawWhere() {
  const decided = Object.keys(review.decisions).length;
  const word = review.decisions[review.number];
  const by = pair.decided ? ` by ${pair.decided.who}` : "";
  find("review-where").textContent =
    `Pair ${review.number} of ${review.count}${pair.kind ? `, kind ${pair.kind}` : ""}: ${word ? `${word}${by}` : "undecided"}; ${decided} decided`;
  find("review-progress").max = review.count;
  find("review-progress").value = decided;
  for (const button of document.querySelectorAll("[data-decision]")) {
    button.setAttribute("aria-pressed", String(button.dataset.decision === word));
  }
}

async function show(number) {
  review.number = Math.max(1, Math.min(review.count, number));
  pair = await get(path());
  keep();
  closeEdit();
  find("review-prompt").replaceChildren(...pair.prompt.map(({ role, content }) => make("p", {}, make("strong", {}, `${role}: `), content)));
  const repeats = Object.entries({ "the same pair": pair.duplicates.pair, "the same prompt": pair.duplicates.prompt, "the same chosen reply": pair.duplicates.chosen });
  find("review-duplicates").textContent = repeats.filter(([, found]) => found.length).map(([what, found]) => `${what} as ${numbers(found)}`).join("; ");
  drawSide("chosen");
  drawSide("rejected");
  drawWhere();
}

function nextUndecided() {
  for (let step = 1; step <= review.count; step += 1) {
    const number = ((review.number - 1 + step) % review.count) + 1;
    if (!review.decisions[number]) return number;
  }
  return null;
}

async function go(where) {
  if (where !== "undecided") return show(review.number + Number(where));
  const number = nextUndecided();
  if (number === null) return say("every pair is decided; write the reviewed set");
  await show(number);
}

async function decide(decision, texts = {}) {
  const who = find("review-who").value.trim();
  if (!who) {
    find("review-who").focus();
    throw new Error("Your name: the reviewed set says who decided");
  }
  review.decisions = (await post(path(), { decision, who, ...texts })).decisions;
  say(`pair ${review.number}: ${decision}`);
  if (decision === "undo") return show(review.number);
  const number = nextUndecided();
  await show(number ?? review.number);
  if (number === null) say("every pair is decided; write the reviewed set");
}

function openEdit() {
  find("edit-chosen").value = pair.decided?.chosen ?? pair.chosen.text;
  find("edit-rejected").value = pair.decided?.rejected ?? pair.rejected.text;
  find("review-edit").hidden = false;
  find("edit-chosen").focus();
}

function closeEdit() {
  const had = find("review-edit").contains(document.activeElement);
  find("review-edit").hidden = true;
  if (had) find("review-where").focus();
}

const act = (decision) => (decision === "edit" ? openEdit() : decide(decision));

async function open(data, number = 1) {
  const opened = await post("/api/reviews", { data });
  review = { ...opened, data, number };
  find("review-body").hidden = false;
  find("write-name").value = `${data}-reviewed`.replace(/[^A-Za-z0-9._-]/g, "-");
  await show(number);
}

async function write() {
  const { folder, counts, line } = await post(`/api/reviews/${review.id}/write`,
    { name: find("write-name").value, rest: find("write-rest").value, who: find("review-who").value.trim() });
  say(`${counts.pairs} pairs are in ${folder}`);
  find("review-written").textContent = line;
}

export async function startReview() {
  const kept = JSON.parse(sessionStorage.getItem(KEY) ?? "{}");
  const { data, who } = await get("/api/data");
  options(find("review-data"), data.map((name) => [name, name]), kept.data);
  find("review-who").value = kept.who ?? who;
  find("review-open").querySelector("button").disabled = !data.length;
  if (!data.length) find("review-data").replaceChildren(make("option", {}, "none yet; orpo/generate.py makes one"));
  find("review-open").addEventListener("submit", doing(async () => {
    await open(find("review-data").value);
    find("review-where").focus();
  }));
  find("review-edit").addEventListener("submit", doing(() =>
    decide("edit", { chosen: find("edit-chosen").value, rejected: find("edit-rejected").value })));
  find("review-edit").addEventListener("keydown", (event) => {
    if (event.key === "Escape") closeEdit();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) find("review-edit").requestSubmit();
  });
  find("edit-cancel").addEventListener("click", closeEdit);
  find("review-write").addEventListener("submit", doing(write));
  for (const button of document.querySelectorAll("[data-decision]")) button.addEventListener("click", doing(() => act(button.dataset.decision)));
  for (const button of document.querySelectorAll("[data-go]")) button.addEventListener("click", doing(() => go(button.dataset.go)));
  const keys = { k: "keep", f: "flip", d: "drop", e: "edit", u: "undo" };
  const ways = { p: "-1", ArrowLeft: "-1", n: "1", ArrowRight: "1", o: "undecided" };
  document.addEventListener("keydown", (event) => {
    if (find("review").hidden || !review || isTyping(event) || event.target.closest("[role=tablist]")) return;
    if (keys[event.key]) doing(() => act(keys[event.key]))(event);
    else if (ways[event.key]) doing(() => go(ways[event.key]))(event);
  });
  if (kept.data && data.includes(kept.data)) await open(kept.data, kept.number);
}
