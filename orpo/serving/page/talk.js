// Base and tuned side by side: one message to both, two streams, each side with its own conversation.

import { doing, find, make, options, say, tell } from "./element.js";
import { marked, scoreText } from "./marked.js";
import { events, post } from "./request.js";
import { readSettings, withSystem } from "./settings.js";

const KEY = "orpo-talk";
const SIDES = ["left", "right"];

// turns: [{text, asked: {temperature, max_tokens, seed, system}, replies: [{model, text, reason}]}]; reason is empty
// until a reply is whole.
let talk = { models: [], turns: [] };
let running = null;

const keep = () => sessionStorage.setItem(KEY, JSON.stringify(talk));
const labels = new Map();

function conversation(side, turn) {
  const messages = [];
  for (const [number, one] of talk.turns.slice(0, turn + 1).entries()) {
    messages.push({ role: "user", content: one.text });
    if (number < turn) messages.push({ role: "assistant", content: one.replies[side].text });
  }
  return withSystem(talk.turns[turn].asked.system, messages);
}

function asked(side, turn) {
  const { temperature, max_tokens, seed } = talk.turns[turn].asked;
  return { model: talk.turns[turn].replies[side].model, messages: conversation(side, turn), temperature, max_tokens, seed };
}

function drawTurn(side, turn) {
  const { text, replies } = talk.turns[turn];
  const reply = make("div", { class: "reply", "aria-busy": String(replies[side].reason === "") }, replies[side].text);
  const facts = make("p", { class: "facts" });
  find(`talk-${SIDES[side]}`).append(make("p", { class: "said" }, text), reply, facts);
  return { reply, facts };
}

async function finish(side, turn, { reply, facts }) {
  const one = talk.turns[turn].replies[side];
  reply.setAttribute("aria-busy", "false");
  const line = make("code", { class: "line", hidden: true, tabindex: "0" });
  const copy = make("button", { type: "button", class: "small" }, "Copy command line");
  copy.addEventListener("click", doing(async () => {
    line.textContent = (await post("/api/line", asked(side, turn))).line;
    line.hidden = false;
    await navigator.clipboard?.writeText(line.textContent).then(() => say("copied"), () => say("select the line to copy it"));
  }));
  const words = { length: "cut at the token limit", stop: "", stopped: "stopped", failed: "failed" }[one.reason];
  facts.replaceChildren(`${labels.get(one.model) ?? one.model}${words ? `, ${words}` : ""} `);
  if (one.reason === "stop" || one.reason === "length") facts.append(copy, line);
  if (!one.text) return;
  const { system } = talk.turns[turn].asked;
  const report = await post("/api/score", { text: one.text, prompt: talk.turns[turn].text, system });
  reply.replaceChildren(...marked(report));
  facts.prepend(scoreText(report), " · ");
}

async function answer(side, turn, signal, shown = drawTurn(side, turn)) {
  const one = talk.turns[turn].replies[side];
  one.text = "";
  shown.reply.textContent = "";
  try {
    for await (const event of events("/v1/chat/completions", { ...asked(side, turn), stream: true }, signal)) {
      const choice = event.choices[0];
      one.text += choice.delta.content ?? "";
      shown.reply.textContent = one.text;
      if (choice.finish_reason) one.reason = choice.finish_reason;
    }
    one.reason ||= "failed";
  } catch (problem) {
    one.reason = problem.name === "AbortError" ? "stopped" : "failed";
    if (one.reason === "failed") {
      tell(problem);
      shown.facts.textContent = problem.message;
    }
  }
  keep();
  await finish(side, turn, shown);
}

async function run(works) {
  find("talk-stop").disabled = false;
  find("talk-send").disabled = true;
  await Promise.all(works).catch(tell);
  find("talk-stop").disabled = true;
  find("talk-send").disabled = false;
  running = null;
}

async function sendMessage() {
  const text = find("talk-text").value.trim();
  if (!text || running) return;
  const settings = readSettings();
  talk.models = SIDES.map((side) => find(`talk-${side}-model`).value);
  talk.turns.push({ text, asked: settings, replies: talk.models.map((model) => ({ model, text: "", reason: "" })) });
  keep();
  find("talk-text").value = "";
  say("both are answering");
  running = new AbortController();
  const turn = talk.turns.length - 1;
  await run(SIDES.map((_, side) => answer(side, turn, running.signal)));
  if (talk.turns[turn]?.replies.every((one) => one.reason === "stop" || one.reason === "length")) say("both have answered");
}

function drawSide(side, models) {
  const name = SIDES[side];
  const title = side === 0 ? "Left model" : "Right model";
  const select = make("select", { id: `talk-${name}-model` });
  const fallback = models[Math.min(side, models.length - 1)].id;
  const kept = talk.models[side];
  options(select, models.map(({ id, label }) => [id, label]), models.some(({ id }) => id === kept) ? kept : fallback);
  select.addEventListener("change", () => {
    talk.models[side] = select.value;
    keep();
  });
  return make("article", { class: "side", "aria-label": title }, make("label", {}, title, select),
    make("div", { id: `talk-${name}`, role: "log", "aria-label": `${title}: conversation` }));
}

// A reload in the midst of a reply asks again with the same seed, which gives the same reply.
function restore() {
  const unfinished = [];
  for (const turn of talk.turns.keys()) {
    for (const side of SIDES.keys()) {
      const shown = drawTurn(side, turn);
      if (talk.turns[turn].replies[side].reason === "") unfinished.push([side, turn, shown]);
      else finish(side, turn, shown).catch(tell);
    }
  }
  if (unfinished.length) {
    running = new AbortController();
    run(unfinished.map(([side, turn, shown]) => answer(side, turn, running.signal, shown)));
  }
}

export function startTalk(state) {
  talk = JSON.parse(sessionStorage.getItem(KEY) ?? "null") ?? talk;
  for (const { id, label } of state.models) labels.set(id, label);
  find("talk-sides").replaceChildren(...SIDES.map((_, side) => drawSide(side, state.models)));
  find("talk-form").addEventListener("submit", doing(sendMessage));
  find("talk-text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) doing(sendMessage)(event);
  });
  find("talk-stop").addEventListener("click", () => {
    running?.abort();
    say("stopped");
  });
  find("talk-new").addEventListener("click", () => {
    running?.abort();
    talk.turns = [];
    keep();
    for (const side of SIDES) find(`talk-${side}`).replaceChildren();
    say("a new conversation");
    find("talk-text").focus();
  });
  restore();
}
