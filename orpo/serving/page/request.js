// What the page asks of the server: JSON, and streams of events. Texts only ever become text nodes.

const KEY = "orpo-token";

function takeTokenFromAddress() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (found) {
    sessionStorage.setItem(KEY, found);
    history.replaceState(null, "", location.pathname);
  }
}
takeTokenFromAddress();

export function setToken(text) {
  sessionStorage.setItem(KEY, text.trim());
}

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function headers() {
  const token = sessionStorage.getItem(KEY);
  return { "Content-Type": "application/json", ...(token ? { Authorization: `Bearer ${token}` } : {}) };
}

async function send(method, path, body, signal) {
  let answer;
  try {
    answer = await fetch(path, { method, headers: headers(), body: body && JSON.stringify(body), signal });
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new Refused(0, "the server does not answer; is it still running?");
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  if (answer.status === 401) document.dispatchEvent(new Event("token-wanted"));
  throw new Refused(answer.status, said.error?.message ?? `the server answered ${answer.status}`);
}

export async function get(path) {
  return (await send("GET", path)).json();
}

export async function post(path, body) {
  return (await send("POST", path, body)).json();
}

export async function remove(path) {
  return (await send("DELETE", path)).json();
}

// Yields the data of each event of a stream; leaving the loop, or the signal, ends the request.
export async function* events(path, body, signal) {
  const answer = await send("POST", path, body, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      const parts = rest.split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const data = part.replace(/^data: /, "");
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new Refused(500, event.error.message);
        yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
