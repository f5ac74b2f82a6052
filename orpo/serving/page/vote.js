// Blind votes: two replies in an order that the server drew and tells only after the vote.

import { doing, find, isTyping, make, options, say } from "./element.js";
import { events, get, post, remove } from "./request.js";
import { readSettings, withSystem } from "./settings.js";

const SIDES = ["left", "right"];
const KEYS = { 1: "left", 2: "right", 3: "both", 4: "neither" };
let duel = null;
let running = null;

const percent = (share) => `${Math.round(100 * share)} %`;
const buttons = () => [...document.querySelectorAll("#vote-buttons button")];
const enable = (on) => buttons().forEach((button) => (button.disabled = !on));

function clear() {
  enable(false);
  for (const side of SIDES) {
    find(`vote-${side}`).textContent = "";
    find(`vote-${side}`).setAttribute("aria-busy", "false");
    find(`vote-${side}-name`).textContent = side === "left" ? "Left" : "Right";
  }
}

async function listen() {
  clear();
  running = new AbortController();
  find("vote-stop").disabled = false;
  find("vote-ask").disabled = true;
  SIDES.forEach((side) => find(`vote-${side}`).setAttribute("aria-busy", "true"));
  try {
    for await (const event of events(`/api/duels/${duel.id}/replies`, {}, running.signal)) {
      if (event.piece !== undefined) find(`vote-${event.side}`).append(event.piece);
      if (event.done) {
        enable(true);
        say("both have answered; which reply is better?");
        if (!document.activeElement?.closest("textarea, input, select")) buttons()[0].focus();
      }
    }
  } catch (problem) {
    if (problem.name !== "AbortError") throw problem;
  } finally {
    running = null;
    find("vote-stop").disabled = true;
    find("vote-ask").disabled = false;
    SIDES.forEach((side) => find(`vote-${side}`).setAttribute("aria-busy", "false"));
  }
}

async function ask() {
  const text = find("vote-text").value.trim();
  if (!text || running) return;
  const { temperature, max_tokens, system } = readSettings();
  const models = [find("vote-first").value, find("vote-second").value];
  if (duel) await remove(`/api/duels/${duel.id}`);
  duel = null;
  const messages = withSystem(system, [{ role: "user", content: text }]);
  duel = await post("/api/duels", { models, messages, temperature, max_tokens });
  find("vote-text").blur();
  await listen();
}

async function vote(choice) {
  if (!duel || buttons()[0].disabled) return;
  enable(false);
  const { models } = await post(`/api/duels/${duel.id}/vote`, { vote: choice }).catch((problem) => {
    enable(true);
    throw problem;
  });
  duel = null;
  find("vote-left-name").textContent = `Left: ${models.left}`;
  find("vote-right-name").textContent = `Right: ${models.right}`;
  say(`kept: ${choice}; left was ${models.left}, right was ${models.right}`);
  find("vote-text").value = "";
  find("vote-text").focus();
  await drawTally();
}

async function drawTally() {
  const { tallies } = await get("/api/votes");
  if (!tallies.length) return find("tally").replaceChildren(make("p", { class: "note" }, "No votes yet."));
  const rows = tallies.map((row) => {
    const share = row.share === null ? "–" : `${percent(row.share)} (${percent(row.low)} to ${percent(row.high)})`;
    const second = row.is_current ? row.second : `${row.second} (an earlier one)`;
    const cells = [share, row.second_wins, row.first_wins, row.both, row.neither];
    return make("tr", {}, make("th", { scope: "row" }, `${second} over ${row.first}`),
      ...cells.map((cell) => make("td", { class: "number" }, String(cell))));
  });
  const names = ["models", "preferred", "for", "against", "both", "neither"].map((name) => make("th", { scope: "col" }, name));
  const caption = "How often the model named first was preferred, of the votes for one side, with Wilson's 95 % interval";
  find("tally").replaceChildren(make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Tally" },
    make("table", {}, make("caption", {}, caption), make("thead", {}, make("tr", {}, ...names)), make("tbody", {}, ...rows))));
}

async function stop() {
  running?.abort();
  if (duel) await remove(`/api/duels/${duel.id}`);
  duel = null;
  clear();
  say("stopped; nothing is kept of it");
}

async function exportVotes() {
  const { folder, pairs, left_out, line } = await post("/api/votes/export", {});
  const left = Object.entries(left_out).map(([reason, count]) => `, ${reason}: ${count}`).join("");
  say(`${pairs} pairs are in ${folder}${left ? `; no pairs${left.slice(1)}` : ""}`);
  find("vote-exported").textContent = line;
}

export async function startVote(state) {
  const names = state.models.map(({ id, label }) => [id, label]);
  options(find("vote-first"), names, names[0][0]);
  options(find("vote-second"), names, names.at(1)?.[0]);
  find("vote-ask").disabled = names.length < 2;
  find("vote-form").addEventListener("submit", doing(ask));
  find("vote-text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) doing(ask)(event);
  });
  find("vote-draw").addEventListener("click", doing(async () => {
    find("vote-text").value = (await get("/api/message")).message;
  }));
  find("vote-stop").addEventListener("click", doing(stop));
  find("vote-export").addEventListener("click", doing(exportVotes));
  for (const button of buttons()) button.addEventListener("click", doing(() => vote(button.dataset.vote)));
  document.addEventListener("keydown", (event) => {
    if (find("vote").hidden || isTyping(event) || !KEYS[event.key]) return;
    doing(() => vote(KEYS[event.key]))(event);
  });
  await drawTally();
  const open = (await get("/api/duels/open")).duel;
  if (open) {
    duel = open;
    find("vote-text").value = open.messages.at(-1).content;
    await listen();
  }
}
