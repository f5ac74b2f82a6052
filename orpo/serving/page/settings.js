// The settings of replies, shared by talk and votes, and kept over a reload.

import { find } from "./element.js";

const KEY = "orpo-settings";
const FIELDS = ["temperature", "max-tokens", "seed", "system"];

export function restoreSettings(state) {
  find("temperature").value = state.temperature;
  find("max-tokens").value = state.max_tokens;
  find("max-tokens").max = state.most_tokens;
  const kept = JSON.parse(sessionStorage.getItem(KEY) ?? "{}");
  for (const id of FIELDS) {
    if (kept[id] !== undefined) find(id).value = kept[id];
    find(id).addEventListener("change", () =>
      sessionStorage.setItem(KEY, JSON.stringify(Object.fromEntries(FIELDS.map((one) => [one, find(one).value])))));
  }
}

function number(id, what) {
  const field = find(id);
  if (field.value === "" || !field.checkValidity()) {
    find("settings").open = true;
    field.focus();
    throw new Error(`${what}: ${field.validationMessage || "needs a number"}`);
  }
  return Number(field.value);
}

export function readSettings() {
  return {
    temperature: number("temperature", "Temperature"),
    max_tokens: number("max-tokens", "At most tokens"),
    seed: number("seed", "Seed"),
    system: find("system").value.trim(),
  };
}

export const withSystem = (system, messages) => (system ? [{ role: "system", content: system }, ...messages] : messages);
