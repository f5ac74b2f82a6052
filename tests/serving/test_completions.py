"""The endpoint, asked by the real `openai` client over HTTP."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from orpo.chat_model.adapters import load_with_adapter
from orpo.chat_model.generation import generate_replies
from orpo.records.messages import user_message
from orpo.records.replies import Sampling
from tests.serving.conftest import Served

HELLO: Any = [{"role": "user", "content": "hello, how are you today"}]


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def test_the_models_are_the_base_and_each_adapter_by_name(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny", "first", "second-0.5"]
    assert client.models.retrieve("second-0.5").id == "second-0.5"
    with pytest.raises(openai.NotFoundError, match=r"there are tiny, first, second-0\.5"):
        client.models.retrieve("third")


def test_each_model_answers_as_inference_would_with_that_adapter(
    client: openai.OpenAI, adapters: Any, model_folder: Any
) -> None:
    said = set()
    for name, folder in adapters.items():
        model, tokenizer = load_with_adapter(str(model_folder), folder, device="cpu", dtype="float32")
        sampling = Sampling(temperature=0.9, top_p=0.8, max_new_tokens=30)
        wanted = generate_replies(model, tokenizer, [HELLO], sampling, seed=7)[0]
        answer = client.chat.completions.create(
            model=name, messages=HELLO, temperature=0.9, top_p=0.8, max_tokens=30, seed=7
        )
        choice = answer.choices[0]
        assert choice.message.content == wanted.text
        assert answer.usage and answer.usage.completion_tokens == wanted.tokens
        assert choice.finish_reason == ("stop" if wanted.finished else "length")
        with model.disable_adapter():
            base = generate_replies(model, tokenizer, [HELLO], sampling, seed=7)[0]
        answer = client.chat.completions.create(
            model="base", messages=HELLO, temperature=0.9, top_p=0.8, max_tokens=30, seed=7
        )
        assert answer.choices[0].message.content == base.text and answer.model == "tiny"
        said |= {wanted.text, base.text}
    assert len(said) == 3


def test_a_stream_is_the_whole_reply_in_pieces(client: openai.OpenAI) -> None:
    asked: Any = {"model": "first", "messages": HELLO, "seed": 3, "temperature": 1.2, "n": 2, "max_tokens": 40}
    whole = client.chat.completions.create(**asked)
    texts, reasons, usage = ["", ""], [None, None], None
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    for chunk in chunks:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.message.content for choice in whole.choices] and texts[0] != texts[1]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage and len(chunks) > 10
    several = generate_twice(client)
    assert [choice.message.content for choice in whole.choices] != several


def generate_twice(client: openai.OpenAI) -> list[str | None]:
    answers = [client.chat.completions.create(model="first", messages=HELLO, max_tokens=40) for _ in range(2)]
    seeds = [answer.model_extra["seed"] for answer in answers if answer.model_extra]
    assert len(set(seeds)) == 2, "without a seed each reply has one of its own, and says which"
    again = client.chat.completions.create(model="first", messages=HELLO, max_tokens=40, seed=seeds[0])
    assert again.choices[0].message.content == answers[0].choices[0].message.content
    return [answer.choices[0].message.content for answer in answers]


def test_a_stop_text_ends_the_reply_before_it(client: openai.OpenAI) -> None:
    asked: Any = {"model": "base", "messages": HELLO, "seed": 1, "temperature": 1.0, "max_tokens": 60}
    text = client.chat.completions.create(**asked).choices[0].message.content
    assert text and len(text) > 20
    stop = text[9:12]
    for stops in (stop, ["never said", stop]):
        choice = client.chat.completions.create(**asked, stop=stops).choices[0]
        assert choice.message.content == text[: text.index(stop)].rstrip() and choice.finish_reason == "stop"
        pieces = [
            chunk.choices[0].delta.content or ""
            for chunk in client.chat.completions.create(**asked, stop=stops, stream=True)
        ]
        assert "".join(pieces) == text[: text.index(stop)].rstrip()


def test_the_seed_decides_the_reply_whatever_runs_beside_it(client: openai.OpenAI) -> None:
    def ask(name: str, seed: int) -> str | None:
        asked: Any = {"model": name, "messages": HELLO, "seed": seed, "temperature": 1.0, "max_tokens": 50}
        return client.chat.completions.create(**asked).choices[0].message.content

    cases = [(name, seed) for name in ("base", "first", "second-0.5") for seed in range(4)]
    alone = {case: ask(*case) for case in cases}
    together: dict[tuple[str, int], str | None] = {}
    threads = [threading.Thread(target=lambda c=case: together.update({c: ask(*c)})) for case in reversed(cases)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert together == alone


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"model": "third"}, 404, "model"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 400, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, None),
        ({"max_tokens": 5000}, 400, "max_tokens"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"temperature": -1}, 400, "temperature"),
        ({"top_p": 2}, 400, "top_p"),
        ({"n": 99}, 400, "n"),
        ({"stop": ["a"] * 5}, 400, None),
        ({"frequency_penalty": 1}, 400, "frequency_penalty"),
        ({"extra_body": {"min_p": 0.1}}, 400, "min_p"),
        ({"logprobs": True}, 400, "logprobs"),
        ({"messages": user_message("word " * 3000)}, 400, "messages"),
    ],
)
def test_what_cannot_be_done_is_an_error_of_the_api(
    client: openai.OpenAI, change: dict[str, Any], status: int, param: str | None
) -> None:
    for stream in (False, True):
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(**{"model": "base", "messages": HELLO, "stream": stream, **change})
        body: Any = caught.value.body
        assert caught.value.status_code == status and body["type"] == "invalid_request_error"
        assert param is None or body["param"] == param


def test_what_changes_nothing_may_be_said(client: openai.OpenAI) -> None:
    client.chat.completions.create(
        model="base",
        messages=[{"role": "developer", "content": [{"type": "text", "text": "hello"}]}, *HELLO],
        max_completion_tokens=3,
        frequency_penalty=0,
        logprobs=False,
        response_format={"type": "text"},
        user="me",
        metadata={"a": "b"},
    )


def settle(served: Served) -> dict[str, int]:
    """Return what the engine still does once it has had a moment to leave off."""
    deadline = time.monotonic() + 10
    while any(served.service.engine.counts().values()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return served.service.engine.counts()


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_stops_its_reply(served: Served, stream: bool) -> None:
    """400 tokens of a reply that never ends would take seconds; it is left within a few steps."""
    asked = {"model": "base", "messages": HELLO, "max_tokens": 400, "temperature": 3.0, "stream": stream}
    with httpx.Client(base_url=served.url, timeout=0.3) as web:
        if stream:
            with web.stream("POST", "/v1/chat/completions", json=asked) as answer:
                next(answer.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                web.post("/v1/chat/completions", json={**asked, "n": 8})
    assert settle(served) == {"writing": 0, "waiting": 0}


def test_further_requests_are_turned_away_when_too_many_wait(served: Served) -> None:
    """4 are written at once and 12 may wait, so of 24 at once some get 429, and the others their reply."""
    asked = {"model": "base", "messages": HELLO, "max_tokens": 60, "n": 4}
    codes: list[int] = []

    def ask() -> None:
        codes.append(httpx.post(f"{served.url}/v1/chat/completions", json=asked, timeout=60).status_code)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert set(codes) == {200, 429} and codes.count(200) >= 3
    assert settle(served) == {"writing": 0, "waiting": 0}
