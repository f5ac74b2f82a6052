// The tabs, the token, and the start of every part once the server has said what there is.

import { doing, find, say, tell } from "./element.js";
import { hideParts } from "./marked.js";
import { get, setToken } from "./request.js";
import { startReview } from "./review.js";
import { startScore } from "./score.js";
import { restoreSettings } from "./settings.js";
import { startTalk } from "./talk.js";
import { startVote } from "./vote.js";

const TABS = ["talk", "vote", "review", "score"];

function select(name, hasFocus = false) {
  hideParts();
  say("");
  for (const one of TABS) {
    const tab = find(`tab-${one}`);
    tab.setAttribute("aria-selected", String(one === name));
    tab.tabIndex = one === name ? 0 : -1;
    find(one).hidden = one !== name;
    if (one === name && hasFocus) tab.focus();
  }
  find("settings").hidden = name !== "talk" && name !== "vote";
  history.replaceState(null, "", `#${name}`);
}

function startTabs() {
  for (const name of TABS) find(`tab-${name}`).addEventListener("click", () => select(name));
  document.querySelector("[role=tablist]").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const here = TABS.findIndex((name) => !find(name).hidden);
    select(TABS[(here + step + TABS.length) % TABS.length], true);
    event.preventDefault();
  });
  const wanted = location.hash.slice(1);
  select(TABS.includes(wanted) ? wanted : "talk");
}

async function whenReady() {
  for (;;) {
    const { ready } = await get("/api/state");
    if (ready) return;
    say("the models are being loaded; a message is answered as soon as they are there");
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

let isStarted = false;

async function start() {
  const state = await get("/api/state");
  find("token").hidden = true;
  if (isStarted) return;
  isStarted = true;
  restoreSettings(state);
  startTalk(state);
  startScore(state);
  await Promise.all([
    startReview().catch(tell),
    startVote(state).catch(tell),
    whenReady().then(() => state.ready || say("ready")).catch(tell),
  ]);
}

document.addEventListener("token-wanted", () => {
  find("token").hidden = false;
  find("token-text").focus();
});
find("token").addEventListener("submit", doing(async () => {
  setToken(find("token-text").value);
  await start();
}));
startTabs();
start().catch(tell);
