"""The server under load: time to the page and to the first token, 500 requests, a third dropped midway, its memory.

    uv run benchmarks/serving.py                                # the default model and the adapters in trained/
    uv run benchmarks/serving.py --requests 60 --clients 8 --serve="--adapter trained/a --max-new-tokens 40"

Every client asks one request after the other, half of them streamed, of each model in turn. One in three is dropped:
a stream after its first words, another request after a moment. Memory is that of the server's process: flat means that
what it holds at the end differs little from what it held when a fifth of the requests were done. Exit code 1 where a
request failed, a reply is still being written for nobody, or memory was not flat. The last line is JSON.
"""

import argparse
import json
import queue
import re
import shlex
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

COMMAND = Path(__file__).resolve().parents[1] / "orpo" / "serve.py"
FLAT_SHARE = 0.05
MESSAGES = ("I got the job!", "My cat is ill.", "How do I sort a list in Python?", "We move to the sea next week.")


@dataclass
class Load:
    """What came of the requests.

    Attributes:
        outcomes: Answered, dropped, or what went wrong, with its number.
        first_seconds: Time to the first words of each stream.
        memory_mb: Of the server, after each request.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    first_seconds: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)


def main() -> int:
    """Start the server, ask, and print what was seen."""
    arguments = read_arguments()
    began = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, COMMAND, "--port", "0", *shlex.split(arguments.serve)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        found = re.search(r"http://\S+/", server.stdout.readline())
        if found is None:
            raise SystemExit("error: the server did not start")
        with httpx.Client(base_url=found[0], timeout=600) as web:
            web.get("/").raise_for_status()
            seconds_to_page = time.perf_counter() - began
            while not web.get("/api/state").raise_for_status().json()["ready"]:
                time.sleep(0.1)
            seconds_to_ready = time.perf_counter() - began
            models = [model["id"] for model in web.get("/v1/models").json()["data"]]
            first = [time_first_words(web, model) for model in models for _ in range(3)]
            load = put_under_load(found[0], models, server.pid, arguments)
            state = settle(web)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(300)
    return report(arguments, load, state, seconds_to_page, seconds_to_ready, first)


def time_first_words(web: httpx.Client, model: str) -> float:
    """Return the seconds to the first words of one stream, with nothing else to do."""
    started = time.perf_counter()
    with web.stream("POST", "/v1/chat/completions", json=asked(model, MESSAGES[0], 0, 20, True)) as answer:
        for line in answer.iter_lines():
            if '"content": "' in line and '"content": ""' not in line:
                break
    return time.perf_counter() - started


def asked(model: str, text: str, seed: int, most_tokens: int, is_streamed: bool) -> dict[str, object]:
    """Return a request."""
    messages = [{"role": "user", "content": text}]
    return {"model": model, "messages": messages, "seed": seed, "max_tokens": most_tokens, "stream": is_streamed}


def put_under_load(url: str, models: list[str], pid: int, arguments: argparse.Namespace) -> Load:
    """Ask all requests from several clients at once."""
    numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(arguments.requests):
        numbers.put(number)
    load, lock, process = Load(), threading.Lock(), psutil.Process(pid)

    def work() -> None:
        with httpx.Client(base_url=url, timeout=600) as web:
            while not numbers.empty():
                try:
                    number = numbers.get_nowait()
                except queue.Empty:
                    return
                outcome, seconds = ask_one(web, models, number, arguments.tokens)
                with lock:
                    load.outcomes[outcome] += 1
                    load.first_seconds += [seconds] if seconds else []
                    load.memory_mb.append(process.memory_info().rss / 2**20)
                    print(f"{len(load.memory_mb)} of {arguments.requests}: {outcome}", file=sys.stderr, flush=True)

    threads = [threading.Thread(target=work) for _ in range(arguments.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return load


def ask_one(web: httpx.Client, models: list[str], number: int, tokens: int) -> tuple[str, float]:
    """Ask one request; return what came of it, and the seconds to its first words where it was streamed."""
    is_dropped, is_streamed = number % 3 == 0, number % 2 == 0
    text = f"{MESSAGES[number % len(MESSAGES)]} {'Tell me more. ' * (number % 7)}"
    body = asked(models[number % len(models)], text, number, tokens, is_streamed)
    started = time.perf_counter()
    try:
        if not is_streamed:
            answer = web.post("/v1/chat/completions", json=body, timeout=1.0 if is_dropped else 600)
            answer.raise_for_status()
            return ("answered" if answer.json()["choices"][0]["finish_reason"] else "cut off"), 0.0
        with web.stream("POST", "/v1/chat/completions", json=body) as stream:
            stream.raise_for_status()
            seconds = 0.0
            last = ""
            for line in filter(None, stream.iter_lines()):
                if not seconds and '"content": "' in line and '"content": ""' not in line:
                    seconds = time.perf_counter() - started
                    if is_dropped:
                        return "dropped", seconds
                if '"error"' in line:
                    return f"failed: {line[:200]}", seconds
                last = line
            return ("answered" if last == "data: [DONE]" else "cut off"), seconds
    except httpx.ReadTimeout:
        return ("dropped" if is_dropped else "timed out"), 0.0
    except httpx.HTTPError as problem:
        return f"failed: {problem}", 0.0


def settle(web: httpx.Client) -> dict[str, int]:
    """Return what the server still writes a little after the last request."""
    state: dict[str, int] = {}
    for _ in range(50):
        state = web.get("/api/state").json()
        if not state["writing"] and not state["waiting"]:
            break
        time.sleep(0.2)
    return {"writing": state["writing"], "waiting": state["waiting"]}


def report(
    arguments: argparse.Namespace,
    load: Load,
    state: dict[str, int],
    seconds_to_page: float,
    seconds_to_ready: float,
    first: list[float],
) -> int:
    """Print what was seen and return the exit code."""
    start = statistics.fmean(load.memory_mb[len(load.memory_mb) // 5 :][:10])
    end = statistics.fmean(load.memory_mb[-10:])
    growth = end / start - 1
    figures = {
        "seconds_to_page": round(seconds_to_page, 2),
        "seconds_to_ready": round(seconds_to_ready, 2),
        "seconds_to_first_words_alone": round(statistics.median(first), 3),
        "seconds_to_first_words_under_load": round(statistics.median(load.first_seconds), 3),
        "outcomes": dict(load.outcomes),
        "still_written": state,
        "memory_mb": {"after_a_fifth": round(start), "at_the_end": round(end), "growth": round(growth, 4)},
    }
    for name, value in figures.items():
        print(f"{name:36} {value}")
    print(json.dumps({**figures, "settings": vars(arguments)}))
    is_fine = set(load.outcomes) <= {"answered", "dropped"} and not any(state.values()) and growth <= FLAT_SHARE
    return 0 if is_fine else 1


def read_arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=60, help="the most tokens of a reply")
    parser.add_argument("--serve", default="", help="further flags of serve.py")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
