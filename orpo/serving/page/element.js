// Elements made of text and attributes: nothing that a model wrote is ever read as HTML.

export const find = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") made.addEventListener("click", value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

export function say(text, isProblem = false) {
  const status = find("status");
  status.textContent = text;
  status.classList.toggle("problem", isProblem);
}

export const tell = (problem) => say(problem.message, true);

// Runs what a button does, and says what goes wrong.
export const doing = (work) => (event) => {
  event?.preventDefault?.();
  return Promise.resolve(work(event)).catch(tell);
};

export const isTyping = (event) =>
  event.altKey || event.ctrlKey || event.metaKey || event.target.closest("input, textarea, select, [contenteditable]") !== null;

export function options(select, names, chosen) {
  select.replaceChildren(...names.map(([value, label]) => make("option", { value, selected: value === chosen }, label)));
}
