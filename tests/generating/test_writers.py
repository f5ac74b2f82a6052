"""The writers over a real small model and a real endpoint: whole, repeatable, resumable, and never half."""

import _thread
import gc
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from orpo.chat_model.endpoint.options import EndpointOptions
from orpo.chat_model.generation import generate_replies
from orpo.chat_model.settings import LocalModelSettings
from orpo.command.errors import ModelError
from orpo.generating.local_models import LoadedModels
from orpo.generating.reply_store import ReplyStore
from orpo.generating.run import score_replies
from orpo.generating.settings import WriterSpec
from orpo.generating.stored_writer import THREAD_NAMES, WritingRun
from orpo.generating.writers import write_replies
from orpo.generating.written import WrittenPrompt
from orpo.records.prompts import Prompt, embedded_prompts
from orpo.records.replies import Sampling

# distilabel 1.5.3 reads pydantic's fields in ways that pydantic has deprecated; nothing of ours can help it.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing the 'model_(computed_)?fields' attribute on the instance"),
    pytest.mark.filterwarnings("ignore:deprecated$:DeprecationWarning"),
]

EMOJI_SYSTEM, PLAIN_SYSTEM = "Use emojis.", "Do not use emojis."


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReplyStore]:
    store = ReplyStore(tmp_path / "replies.sqlite")
    yield store
    store.close()


@pytest.fixture(scope="module")
def models() -> LoadedModels:
    return LoadedModels(LocalModelSettings(device="cpu"))


def easy_prompts(count: int) -> list[Prompt]:
    """Prompts in the words of the small writer, all different to its tokenizer too."""
    words = ["you", "are", "fine", "the", "day", "is", "good", "so", "well", "done"]
    pairs = [f"{first} {second}" for first in words for second in words]
    return [Prompt(f"p{number}", text) for number, text in enumerate(pairs[:count])]


def run_with(store: ReplyStore, models: LoadedModels, **further: Any) -> WritingRun:
    settings: dict[str, Any] = {
        "sampling": Sampling(max_new_tokens=20),
        "seed": 1,
        "local": LocalModelSettings(device="cpu", batch_size=16),
    }
    endpoint = EndpointOptions(timeout_seconds=further.pop("timeout_seconds", 120.0), retries=further.pop("retries", 0))
    return WritingRun(store=store, models=models, endpoint=endpoint, **(settings | further))


def write(prompts: list[Prompt], emoji: WriterSpec, plain: WriterSpec, run: WritingRun) -> list[WrittenPrompt]:
    answers = write_replies(prompts, [emoji, plain], run)
    return score_replies(prompts, [emoji, plain], answers, scorer="contains_emoji")


def write_locally(folder: Path, prompts: list[Prompt], run: WritingRun) -> list[WrittenPrompt]:
    emoji = WriterSpec("emoji", str(folder), EMOJI_SYSTEM)
    return write(prompts, emoji, WriterSpec("plain", str(folder)), run)


def write_remotely(url: str, prompts: list[Prompt], run: WritingRun) -> list[WrittenPrompt]:
    emoji = WriterSpec("emoji", "openai:one", EMOJI_SYSTEM, url)
    plain = WriterSpec("plain", "openai:one", PLAIN_SYSTEM, url)
    return write(prompts, emoji, plain, run)


def test_every_prompt_comes_back_once_in_order_with_the_replies_of_the_model_alone(
    writer_folder: Path, models: LoadedModels, store: ReplyStore
) -> None:
    """70 prompts are two batches of distilabel's and five of the model's; a reply is the same as without them."""
    prompts = easy_prompts(70)
    counted: dict[str, int] = {}
    run = run_with(store, models)
    run.on_reply = lambda writer, count: counted.update({writer: counted.get(writer, 0) + count})
    written = write_locally(writer_folder, prompts, run)
    assert [row.prompt for row in written] == prompts
    assert counted == {"emoji": 70, "plain": 70}
    assert len(store) == 140
    loaded = models.load(str(writer_folder))
    conversation = [{"role": "system", "content": EMOJI_SYSTEM}, *prompts[63].conversation()]
    (alone,) = generate_replies(loaded.model, loaded.tokenizer, [conversation], run.sampling, seed=1)
    assert (written[63].emoji.text, written[63].emoji.finished) == (alone.text, alone.finished)
    assert {row.emoji.score for row in written} == {0.0, 1.0}
    assert any(row.emoji.text != row.plain.text for row in written)

    # The same again takes everything from the store, and nothing changes; another seed asks anew.
    again = run_with(store, models)
    assert write_locally(writer_folder, prompts, again) == written
    assert again.reused == {"emoji": 70, "plain": 70} and len(store) == 140
    other = run_with(store, models, seed=2)
    assert write_locally(writer_folder, prompts[:3], other) != written[:3]
    assert other.reused == {"emoji": 0, "plain": 0}


def test_a_prompt_beyond_the_models_context_is_dropped_with_its_reason(
    writer_folder: Path, models: LoadedModels, store: ReplyStore
) -> None:
    prompts = [Prompt("long", "well " * 200), Prompt("short", "well done")]
    written = write_locally(writer_folder, prompts, run_with(store, models))
    assert [row.emoji.failure for row in written] == ["prompt too long", ""]
    assert len(store) == 2, "a failure is asked again next time"


def test_ctrl_c_ends_the_run_within_a_batch_and_keeps_what_is_written(
    writer_folder: Path, models: LoadedModels, store: ReplyStore
) -> None:
    prompts = easy_prompts(60)
    run = run_with(store, models, local=LocalModelSettings(batch_size=10))
    pressed: list[int] = []

    def press_ctrl_c_once(_writer: str, _count: int) -> None:
        if len(store) >= 20 and not pressed:
            pressed.append(len(store))
            _thread.interrupt_main()

    run.on_reply = press_ctrl_c_once
    with pytest.raises(KeyboardInterrupt):
        write_locally(writer_folder, prompts, run)
    assert 20 <= len(store) < 120
    own = [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_NAMES)]
    for thread in own:  # the run waits ten seconds for them; a busy machine may need more
        thread.join(60)
    assert not any(thread.is_alive() for thread in own), "libraries may start threads of theirs"
    kept, resumed = len(store), run_with(store, models)
    written = write_locally(writer_folder, prompts, resumed)
    assert sum(resumed.reused.values()) == kept
    fresh = run_with(store, models, reuse=False)
    assert write_locally(writer_folder, prompts, fresh) == written, "a resumed run gives what an undisturbed one does"


def test_a_full_disk_ends_the_run_instead_of_filling_rows_with_nothing(
    writer_folder: Path, models: LoadedModels, store: ReplyStore
) -> None:
    store._connection.execute("PRAGMA max_page_count = 3")
    with pytest.raises(Exception, match="no more can be written"):
        write_locally(writer_folder, embedded_prompts("train")[:60], run_with(store, models))


def test_a_full_disk_while_late_answers_are_kept_is_still_one_error(
    chat_server: Any, models: LoadedModels, store: ReplyStore, capfd: pytest.CaptureFixture[str]
) -> None:
    """It ended in "Exception ignored in ..." with a traceback, since the calls under way were kept by the collector."""
    store._connection.execute("PRAGMA max_page_count = 3")
    with pytest.raises(Exception, match="no more can be written"):
        write_remotely(chat_server.url, embedded_prompts("train")[:200], run_with(store, models))
    gc.collect()
    assert "Exception ignored" not in capfd.readouterr().err


def test_a_model_that_cannot_be_loaded_names_its_flag(
    tmp_path: Path, models: LoadedModels, store: ReplyStore, writer_folder: Path
) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    plain = WriterSpec("plain", str(tmp_path))
    with pytest.raises(ModelError, match=r"^plain_model .*model_type"):
        emoji = WriterSpec("emoji", str(writer_folder))
        write(embedded_prompts()[:2], emoji, plain, run_with(store, models))


def test_an_endpoint_is_asked_with_its_system_prompt_and_settings(
    chat_server: Any, models: LoadedModels, store: ReplyStore
) -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    prompts = [Prompt("1", "I passed!"), Prompt("2", "c", messages=messages)]
    sampling = Sampling(temperature=0.3, top_p=0.9, top_k=7, max_new_tokens=33)
    written = write_remotely(chat_server.url, prompts, run_with(store, models, sampling=sampling))
    assert written[0].emoji.text == "About I passed! 🎉" and written[0].emoji.score == 1.0
    assert written[1].plain.text == "About c." and written[1].plain.score == 0.0
    asked = next(request for request in chat_server.requests if len(request["messages"]) == 4)
    assert asked["messages"][1:] == messages
    wanted = {"model": "one", "temperature": 0.3, "top_p": 0.9, "top_k": 7, "seed": 1, "max_tokens": 33}
    assert {name: asked[name] for name in wanted} == wanted


def test_failures_of_an_endpoint_are_told_apart_and_asked_again_next_time(
    parts: ModuleType, chat_server: Any, models: LoadedModels, store: ReplyStore
) -> None:
    ways = {
        "limited": parts.Answer(status=429),
        "broken": parts.Answer(status=500),
        "slow": parts.Answer("late 🎉", delay_seconds=6.0),
        "garbage": parts.Answer(body=b"<html>not json"),
        "shapeless": parts.Answer(body=b'{"choices": []}'),
        "none": parts.Answer(None),
        "cut": parts.Answer("never ends", finish_reason="length"),
    }

    def script(request: dict[str, Any], number: int) -> Any:
        asked = request["messages"][-1]["content"]
        wants = "Do not" not in request["messages"][0]["content"]
        return ways.get(asked, parts.two_sided(request, number)) if wants else parts.two_sided(request, number)

    chat_server.script = script
    prompts = [Prompt(name, name) for name in [*ways, "fine"]]
    written = write_remotely(chat_server.url, prompts, run_with(store, models, timeout_seconds=2.0))
    failures = {row.prompt.text: row.emoji.failure for row in written}
    assert failures == {
        "limited": "HTTP 429: scripted failure",
        "broken": "HTTP 500: scripted failure",
        "slow": "timed out",
        "garbage": "answer not understood",
        "shapeless": "answer not understood",
        "none": "",
        "cut": "",
        "fine": "",
    }
    by_name = {row.prompt.text: row for row in written}
    assert by_name["none"].emoji.text == "" and not by_name["cut"].emoji.finished
    assert all(row.plain.text and not row.plain.failure for row in written)
    chat_server.script = parts.two_sided
    chat_server.requests.clear()
    again = write_remotely(chat_server.url, prompts, run_with(store, models))
    assert len(chat_server.requests) == 6, "the failed calls are repeated, and the one answered with nothing"
    assert not any(row.emoji.failure for row in again)


def test_a_call_that_fails_for_a_while_is_repeated(
    parts: ModuleType, chat_server: Any, models: LoadedModels, store: ReplyStore
) -> None:
    def script(request: dict[str, Any], number: int) -> Any:
        if number <= 2:
            return parts.Answer(status=503, headers={"retry-after-ms": "10"})
        return parts.two_sided(request, number)

    chat_server.script = script
    (row,) = write_remotely(chat_server.url, [Prompt("1", "hello")], run_with(store, models, retries=3))
    assert not row.emoji.failure and not row.plain.failure
    assert len(chat_server.requests) == 4


@pytest.mark.parametrize(
    ("status", "says"), [(401, "refuses the key"), (403, "forbids"), (404, "knows no such model or address")]
)
def test_what_no_call_can_overcome_ends_the_run_at_once(
    parts: ModuleType, chat_server: Any, models: LoadedModels, store: ReplyStore, status: int, says: str
) -> None:
    chat_server.script = lambda *_: parts.Answer(status=status)
    with pytest.raises(ModelError, match=f"openai:one: .*{says} .*HTTP {status}"):
        write_remotely(chat_server.url, embedded_prompts()[:50], run_with(store, models))
    assert len(chat_server.requests) < 40


def test_an_endpoint_that_is_not_there_ends_the_run_after_a_few_calls(models: LoadedModels, store: ReplyStore) -> None:
    with pytest.raises(ModelError, match=r"12 calls in a row failed .*no connection"):
        write_remotely("http://127.0.0.1:9/v1", embedded_prompts()[:60], run_with(store, models))


def test_calls_run_at_the_same_time_but_no_more_than_allowed(
    parts: ModuleType, chat_server: Any, models: LoadedModels, store: ReplyStore
) -> None:
    together, lock = threading.Barrier(5), threading.Lock()
    active: list[int] = []
    most = 0

    def script(request: dict[str, Any], number: int) -> Any:
        nonlocal most
        with lock:
            active.append(number)
            most = max(most, len(active))
        together.wait(timeout=60)  # breaks unless five calls wait at once
        with lock:
            active.remove(number)
        return parts.Answer("ok 🎉")

    chat_server.script = script
    written = write_remotely(chat_server.url, embedded_prompts()[:20], run_with(store, models, concurrency=10))
    assert len(chat_server.requests) == 40 and not any(row.emoji.failure or row.plain.failure for row in written)
    assert 5 <= most <= 20


def test_the_key_goes_to_the_endpoint_and_nowhere_else(
    chat_server: Any,
    models: LoadedModels,
    store: ReplyStore,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    write_remotely(chat_server.url, [Prompt("1", "hello")], run_with(store, models))
    assert chat_server.authorisations == ["Bearer sk-very-secret"] * 2
    shown = "".join(capfd.readouterr())
    assert "very-secret" not in shown + json.dumps([row.decode("latin1") for row in [store.file.read_bytes()]])


def test_a_prompt_with_a_turn_marker_is_dropped_and_does_not_stop_the_run(
    writer_folder: Path, models: LoadedModels, store: ReplyStore
) -> None:
    prompts = [Prompt("marker", "you <|im_end|> are"), Prompt("good", "well done")]
    written = write_locally(writer_folder, prompts, run_with(store, models))
    assert [row.plain.failure for row in written] == ["prompt holds a turn marker of the model's chat template", ""]


def test_an_adapter_whose_base_is_not_there_is_named(tmp_path: Path, models: LoadedModels) -> None:
    with pytest.raises(ModelError, match=r"^from_adapter .*tuned: was trained on /nowhere: there is no such folder"):
        models.load("/nowhere", side="tuned", adapter=tmp_path / "tuned")


def test_an_answer_is_kept_before_the_next_call_is_made(
    parts: ModuleType, chat_server: Any, models: LoadedModels, store: ReplyStore
) -> None:
    """Answers waited in a queue for their writer, and a kill of a busy machine paid 50 of 160 calls twice, not 40."""
    behind: list[int] = []

    def script(request: dict[str, Any], number: int) -> Any:
        behind.append(number - 1 - len(store))
        return parts.two_sided(request, number)

    chat_server.script = script
    run = run_with(store, models, concurrency=2)
    run.on_reply = lambda *_: time.sleep(0.02)  # a writer that is slow to take its answers
    write_remotely(chat_server.url, easy_prompts(30), run)
    assert len(store) == 60
    assert max(behind) < 2 * 2, "two writers with two calls each"
