"""The command `generate`: real runs on a scripted endpoint and a small local model, and all that can go wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from orpo.command.errors import InputError, ModelError, OutputError, SettingsError
from orpo.generate import main
from orpo.generating.settings import EndpointSettings, GenerateSettings
from orpo.records.read_pairs import read_pairs

# distilabel 1.5.3 reads pydantic's fields in ways that pydantic has deprecated; nothing of ours can help it.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing the 'model_(computed_)?fields' attribute on the instance"),
    pytest.mark.filterwarnings("ignore:deprecated$:DeprecationWarning"),
]

REPOSITORY = Path(__file__).resolve().parents[1]
PROMPTS = ["I passed my exam!", "How do I boil an egg?", "What is 3 + 4?", "My cat is ill.", "Good morning"]


@pytest.fixture
def server(chat_server: Any) -> Any:
    return chat_server


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def prompts_file(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
    return file


def flags(server: Any, *more: object) -> list[str]:
    endpoint = ["--emoji-model", "openai:one", "--plain-model", "openai:two", "--base-url", server.url]
    return [*endpoint, "--retries", "0", "--scorer", "contains_emoji", *map(str, more)]


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_run_writes_pairs_dataset_card_record_and_what_was_dropped(
    parts: ModuleType, server: Any, prompts_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def script(request: dict[str, Any], number: int) -> Any:
        asked = request["messages"][-1]["content"]
        if "cat" in asked:
            return parts.Answer("Poor cat.")
        if "3 + 4" in asked:
            return parts.Answer(None if request["model"] == "two" else "7 🎉")
        return parts.two_sided(request, number)

    server.script = script
    with prompts_file.open("a", encoding="utf-8") as stream:
        stream.write("Good morning\n")
    out = tmp_path / "data" / "pairs"
    assert main(flags(server, "--prompts", prompts_file, "--out", out)) == 0

    pairs = lines(out / "pairs.jsonl")
    assert [pair["prompt"][0]["content"] for pair in pairs] == [PROMPTS[0], PROMPTS[1], PROMPTS[4]]
    assert pairs[0]["chosen"] == [{"role": "assistant", "content": "About I passed my exam! 🎉"}]
    assert pairs[0]["rejected"] == [{"role": "assistant", "content": "About I passed my exam!."}]
    assert (pairs[0]["chosen_score"], pairs[0]["rejected_score"]) == (1.0, 0.0)
    assert (pairs[0]["chosen_model"], pairs[0]["rejected_model"]) == ("openai:one", "openai:two")
    assert pairs[0]["source"] == "prompts.txt", "no folder of this machine goes into data that may be passed on"
    assert [pair.as_row() for pair in read_pairs(str(out / "dataset")).pairs] == pairs
    assert read_pairs(str(out)) == read_pairs(str(out / "dataset"))

    reasons = {row["prompt"][0]["content"]: row["reason"] for row in lines(out / "dropped.jsonl")}
    assert reasons == {
        "My cat is ill.": "same text",
        "What is 3 + 4?": "plain writer: empty reply",
        "Good morning": "repeated prompt",
    }
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert record["metrics"]["pairs"] == 3 and sum(record["metrics"]["dropped"].values()) == 3
    assert record["metrics"]["sides"]["chosen"]["emoji_rate"] == 1.0
    assert record["data_fingerprint"] and record["seed"] == 0 and record["device"]
    card = (out / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n") and "3 pairs from 5 prompts" in card and "| same text | 1 |" in card
    shown = capsys.readouterr().out
    for word in ("dropped: same text", "with an emoji", "100.0%", "About I passed my exam! 🎉", str(out)):
        assert word in shown.replace("\n", ""), word


def test_by_default_the_tasteful_score_chooses_orders_and_filters(
    parts: ModuleType, server: Any, tmp_path: Path
) -> None:
    """Spam loses against none, a fitting emoji wins, a wish for no emoji is obeyed, and the clearest pair is first."""
    answers = {
        "I passed my exam!": ("Congratulations on your exam! 🎉", "Congratulations on your exam!"),
        "Good night": ("Sleep well! " + "🌙🐝🚽🍕" * 8, "Sleep well!"),
        "Hello! No emojis please.": ("Hello, nice to meet you! 👋", "Hello, nice to meet you!"),
        "Is it late?": ("It is ten to nine 🎻🦷🍕", "It is ten to nine."),
    }
    server.script = lambda request, number: parts.Answer(
        answers[request["messages"][-1]["content"]][request["model"] == "two"]
    )
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(answers), encoding="utf-8")
    arguments = [flag for flag in flags(server, "--prompts", prompts) if flag not in ("--scorer", "contains_emoji")]
    arguments += ["--mix", "presence=1"]
    assert main([*arguments, "--out", str(tmp_path / "all")]) == 0
    pairs = lines(tmp_path / "all" / "pairs.jsonl")
    chosen = {pair["prompt"][0]["content"]: pair["chosen"][0]["content"] for pair in pairs}
    better = {"I passed my exam!": 0, "Good night": 1, "Hello! No emojis please.": 1}
    assert {prompt: chosen[prompt] for prompt in better} == {p: answers[p][side] for p, side in better.items()}
    margins = [pair["chosen_score"] - pair["rejected_score"] for pair in pairs]
    assert margins == sorted(margins, reverse=True) and margins[-1] < margins[0]
    assert pairs[0]["prompt"][0]["content"] == "Hello! No emojis please."

    between = str((margins[-1] + margins[-2]) / 2)
    assert main([*arguments, "--out", str(tmp_path / "some"), "--min-margin", between]) == 0
    assert lines(tmp_path / "some" / "pairs.jsonl") == pairs[:-1]
    reasons = [row["reason"] for row in lines(tmp_path / "some" / "dropped.jsonl")]
    assert reasons == ["margin below min_margin"]


def test_an_earlier_result_stays_until_the_new_one_is_whole(
    parts: ModuleType, server: Any, prompts_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pairs"
    command = flags(server, "--prompts", prompts_file, "--out", out)
    main(command)
    before = (out / "pairs.jsonl").read_bytes()
    with pytest.raises(OutputError, match="`overwrite`"):
        main(command)
    server.script = lambda *_: parts.Answer(status=404)
    with pytest.raises(ModelError, match="HTTP 404") as caught:
        main([*command, "--overwrite", "--seed", "5"])
    assert "replies are kept in" in " ".join(caught.value.__notes__)
    assert (out / "pairs.jsonl").read_bytes() == before
    server.requests.clear()
    assert main([*command, "--overwrite"]) == 0
    assert server.requests == [], "the same requests are answered from the store"
    assert (
        sorted(entry.name for entry in tmp_path.iterdir())
        == ["orpo_home", "pairs", "pairs-replies", "prompts.txt"][(0 if (tmp_path / "orpo_home").exists() else 1) :]
    )


def test_replies_not_to_be_reused_give_way_to_the_new_ones(
    parts: ModuleType, server: Any, prompts_file: Path, tmp_path: Path
) -> None:
    """With --no-reuse-replies the store kept the old answers, so the new ones were paid for and lost."""
    command = flags(server, "--prompts", prompts_file, "--out", tmp_path / "pairs")
    main(command)
    first = lines(tmp_path / "pairs" / "pairs.jsonl")

    def other(request: dict[str, Any], number: int) -> Any:
        answer = parts.two_sided(request, number)
        answer.content += " Again."
        return answer

    server.script = other
    main([*command, "--overwrite", "--no-reuse-replies"])
    second = lines(tmp_path / "pairs" / "pairs.jsonl")
    assert second != first and all("Again." in pair["chosen"][0]["content"] for pair in second)
    server.requests.clear()
    main([*command, "--overwrite"])
    assert server.requests == [] and lines(tmp_path / "pairs" / "pairs.jsonl") == second
    server.script = lambda *_: parts.Answer(status=404)
    with pytest.raises(ModelError) as caught:
        main([*command, "--overwrite", "--no-reuse-replies"])
    assert "with `reuse_replies` the same command takes them" in " ".join(caught.value.__notes__)


def test_a_reply_cannot_steer_the_terminal(
    parts: ModuleType, server: Any, prompts_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The samples at the end were printed raw."""
    server.script = lambda request, number: parts.Answer("\x1b[2Jfine" + (" 🎉" if request["model"] == "one" else "."))
    main(flags(server, "--prompts", prompts_file, "--out", tmp_path / "pairs"))
    shown = capsys.readouterr().out
    assert "\ufffdfine 🎉" in shown and "\x1b[2J" not in shown


def test_the_password_of_an_address_is_kept_and_shown_nowhere(
    parts: ModuleType, server: Any, prompts_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It stood in the reply store and in the error line of an endpoint."""
    url = server.url.replace("//", "//someone:passw0rd@")
    command = [url if flag == server.url else flag for flag in flags(server, "--prompts", prompts_file)]
    assert main([*command, "--out", str(tmp_path / "pairs")]) == 0
    assert set(server.authorisations) == {"Basic c29tZW9uZTpwYXNzdzByZA=="}
    server.script = lambda *_: parts.Answer(status=404)
    with pytest.raises(ModelError) as caught:
        main([*command, "--seed", "1", "--out", str(tmp_path / "again")])
    assert "***@127.0.0.1" in str(caught.value) and "passw0rd" not in str(caught.value) + "".join(capfd.readouterr())
    for file in (file for file in tmp_path.rglob("*") if file.is_file()):
        assert b"passw0rd" not in file.read_bytes(), file


def test_no_pair_at_all_is_an_error_that_counts_why(
    parts: ModuleType, server: Any, prompts_file: Path, tmp_path: Path
) -> None:
    server.script = lambda request, number: parts.Answer(f"{request['model']} says nothing")
    with pytest.raises(InputError, match=r"no pair came out of 5 prompts \(tie 5\)"):
        main(flags(server, "--prompts", prompts_file, "--out", tmp_path / "pairs"))
    assert not (tmp_path / "pairs").exists()


def test_system_prompts_are_the_users_own(server: Any, prompts_file: Path, tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text("Sparkle, please!\n", encoding="utf-8")
    command = flags(server, "--prompts", prompts_file, "--limit", 1, "--out", tmp_path / "pairs")
    main([*command, "--emoji-system", f"@{tmp_path / 'system.txt'}", "--plain-system", ""])
    sent = {request["model"]: request["messages"] for request in server.requests}
    assert sent["one"][0] == {"role": "system", "content": "Sparkle, please!"}
    assert [message["role"] for message in sent["two"]] == ["user"]


def test_a_local_model_writes_pairs_that_are_the_same_again(parts: ModuleType, tmp_path: Path) -> None:
    folder = parts.save_writer(tmp_path / "writer")
    prompts = tmp_path / "prompts.jsonl"
    words = ["you", "are", "fine", "the", "day", "good"]
    rows = [{"prompt": f"{a} {b}", "split": "held_out" if a == b else "train"} for a in words for b in words]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = ["--emoji-model", str(folder), "--plain-model", str(folder), "--prompts", str(prompts), "--device", "cpu"]
    command += ["--max-new-tokens", "30", "--seed", "3"]
    assert main([*command, "--out", str(tmp_path / "a")]) == 0
    assert main([*command, "--out", str(tmp_path / "b"), "--batch-size", "7"]) == 0
    assert (tmp_path / "a" / "pairs.jsonl").read_bytes() == (tmp_path / "b" / "pairs.jsonl").read_bytes()
    pairs = lines(tmp_path / "a" / "pairs.jsonl")
    assert pairs and all(pair["chosen_score"] > pair["rejected_score"] for pair in pairs)
    assert pairs[0]["chosen_model"] == "writer"
    assert str(tmp_path) not in (tmp_path / "a" / "README.md").read_text(encoding="utf-8")
    held_out = {row["prompt"] for row in rows if row["split"] == "held_out"}
    assert not held_out & {pair["prompt"][0]["content"] for pair in pairs}, "held-out prompts are never trained on"


def test_a_base_model_writes_in_plain_text_or_with_a_chat_template_of_ones_own(
    parts: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model without a chat template was refused; a template decides the replies."""
    folder = parts.save_writer(tmp_path / "writer")
    for file in (folder / "chat_template.jinja", folder / "tokenizer_config.json"):
        if file.suffix == ".jinja":
            file.unlink(missing_ok=True)
        else:
            config = json.loads(file.read_text(encoding="utf-8"))
            config.pop("chat_template", None)
            file.write_text(json.dumps(config), encoding="utf-8")
    prompts = tmp_path / "prompts.txt"
    words = ["you", "are", "fine", "the", "day", "good"]
    prompts.write_text("\n".join(f"{a} {b}" for a in words for b in words), encoding="utf-8")
    command = ["--emoji-model", str(folder), "--plain-model", str(folder), "--prompts", str(prompts), "--device", "cpu"]
    command += ["--max-new-tokens", "30", "--scorer", "contains_emoji", "--out", str(tmp_path / "pairs"), "--overwrite"]
    assert main(command) == 0
    assert "it is asked in a plain text form" in capsys.readouterr().err
    kept = [(tmp_path / "pairs" / "pairs.jsonl").read_bytes()]
    template = tmp_path / "mine.jinja"
    for text in (parts.CHATML, parts.CHATML.replace("<|im_end|>", "")):
        template.write_text(text, encoding="utf-8")
        assert main([*command, "--chat-template", str(template)]) == 0
        record = json.loads((tmp_path / "pairs" / "run.json").read_text(encoding="utf-8"))
        kept.append((tmp_path / "pairs" / "pairs.jsonl").read_bytes())
        assert not any(record["facts"]["replies_reused"].values()), "another template is another writer"
    assert len(set(kept)) == 3


def test_an_adapter_as_writer_is_told_what_takes_one(tmp_path: Path) -> None:
    """The error said to give it with --adapter, which `generate` does not have."""
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match=r"^plain_model .*: is an adapter, not a whole model; name it as the adapter"):
        main(["--plain-model", str(tmp_path), "--limit", "1", "--out", str(tmp_path / "pairs")])


def test_the_default_model_makes_pairs_by_itself(default_model_folder: Path, orpo_home: Path) -> None:
    assert main(["--limit", "12", "--device", "cpu", "--max-new-tokens", "60", "--example-pairs", "300"]) == 0
    pairs = lines(orpo_home / "data" / "preferences" / "pairs.jsonl")
    assert len(pairs) >= 250
    assert sum(pair["source"] == "embedded" for pair in pairs) >= 6
    assert {"presence", "fit", "excess", "place", "restraint", "obedience"} == {pair["kind"] for pair in pairs}
    assert all(pair["chosen_score"] >= pair["rejected_score"] + 0.1 for pair in pairs)


def start(command: list[str]) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    script = [sys.executable, str(REPOSITORY / "orpo" / "generate.py"), *command]
    return subprocess.Popen(script, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(holds: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)], ids=["killed", "Ctrl-C"])
def test_a_stopped_run_loses_nothing_and_the_next_goes_on(
    parts: ModuleType, server: Any, tmp_path: Path, stop: signal.Signals, code: int
) -> None:
    """What the endpoint has answered is never asked again, after Ctrl-C and even after SIGKILL."""

    def slowly(request: dict[str, Any], number: int) -> Any:
        answer = parts.two_sided(request, number)
        answer.delay_seconds = 0.3
        return answer

    server.script = slowly
    out = tmp_path / "pairs"
    command = flags(server, "--limit", 60, "--concurrency", 2, "--out", out)
    process = start(command)
    wait_until(lambda: len(server.answered) >= 24)
    process.send_signal(stop)
    started = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert time.monotonic() - started < 30
    if stop is signal.SIGINT:
        assert "stopped" in said and "replies are kept in" in said and "Traceback" not in said
    assert not out.exists()
    time.sleep(0.5)
    answered = len(server.answered)
    assert answered < 120, "nobody goes on asking after the run has ended"
    server.requests.clear()
    server.script = parts.two_sided
    assert main(command) == 0
    # Of the four calls under way when it was stopped, some were answered into the void.
    assert 120 - answered <= len(server.requests) <= 120 - answered + 4
    assert len(lines(out / "pairs.jsonl")) == 60
    assert not list(tmp_path.glob(".pairs*"))


def test_a_full_disk_is_one_clear_line_and_destroys_nothing(server: Any, prompts_file: Path, tmp_path: Path) -> None:
    """A limit on the size of files answers as a full disk does; the earlier result stays."""
    out = tmp_path / "pairs"
    command = flags(server, "--prompts", prompts_file, "--out", out)
    main(command)
    before = sorted((file.name, file.read_bytes()) for file in out.glob("*.json*"))
    code = (
        "import resource, signal, sys; from orpo.generate import main\n"
        "from orpo.command.run_command import run_command\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))\n"
        "run_command(main, sys.argv[1:])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command, "--overwrite"], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 1, done.stderr
    assert "error:" in done.stderr and "Traceback" not in done.stderr
    assert sorted((file.name, file.read_bytes()) for file in out.glob("*.json*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_found_before_any_work(server: Any, prompts_file: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="no permission"):
        main(flags(server, "--prompts", prompts_file, "--out", locked / "pairs"))
    assert server.requests == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--limit", "0"], "--limit 0: must be at least 1"),
        (["--temperature", "-1"], "--temperature -1.0: must be 0"),
        (["--scorer", "vibes"], "--scorer: 'vibes' is not one of"),
        (["--emoji-model", "openai:"], "--emoji-model 'openai:': name a model"),
        (["--emoji-model", "openai:x", "--base-url", "localhost:1"], "--base-url localhost:1: must begin with http"),
        (["--plain-base-url", "http://x"], "--plain-base-url http://x: is for an endpoint"),
        (["--base-url", "http://me:word@x"], "--base-url http://***@x: is for an endpoint, and no writer is one"),
        (["--emoji-model", "openai:x", "--emoji-base-url", "me:word@x"], "--emoji-base-url ***@x: must begin"),
    ],
)
def test_settings_that_cannot_work_are_told_by_their_flag(arguments: list[str], says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        main(arguments)
    assert says in caught.value.for_command()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--prompts", "missing.csv"], "--prompts missing.csv: there is no such file"),
        (["--prompts", "someone/nothing"], "no data set of that name can be reached"),
        (["--emoji-system", "@missing.txt"], "--emoji-system @missing.txt: there is no such file"),
    ],
)
def test_input_that_is_not_there_is_told_by_its_flag(arguments: list[str], says: str) -> None:
    with pytest.raises(InputError) as caught:
        main(arguments)
    assert says in caught.value.for_command()


def test_unknown_models_are_told_before_anything_is_asked(server: Any, prompts_file: Path, tmp_path: Path) -> None:
    common = ["--prompts", str(prompts_file), "--out", str(tmp_path / "pairs")]
    with pytest.raises(ModelError, match=r"^plain_model \./nowhere: there is no such folder"):
        main([*common, "--emoji-model", "openai:one", "--base-url", server.url, "--plain-model", "./nowhere"])
    with pytest.raises(ModelError, match=r"^plain_model someone/nothing: .*Hub"):
        main([*common, "--emoji-model", "openai:one", "--base-url", server.url, "--plain-model", "someone/nothing"])
    with pytest.raises(SettingsError, match="OPENAI_API_KEY is not set"):
        main([*common, "--emoji-model", "openai:one", "--plain-model", "openai:two"])


def test_an_endpoint_of_ones_own_for_each_side(server: Any) -> None:
    endpoint = EndpointSettings(base_url="http://x", plain_base_url="http://y")
    settings = GenerateSettings(emoji_model="openai:a", plain_model="openai:b", endpoint=endpoint)
    assert (settings.url_of("emoji"), settings.url_of("plain")) == ("http://x", "http://y")


def test_prompts_that_cannot_be_used_are_left_out_counted_and_listed_where_that_is_asked_for(
    server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One null among thousands of prompts stopped the run, and there was no `--bad-rows`."""
    file = tmp_path / "prompts.jsonl"
    rows: list[dict[str, Any]] = [{"prompt": "Hi"}, {"prompt": None}, {"prompt": "Hi \ud83c"}, {"prompt": "Ho"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = flags(server, "--prompts", file, "--out", tmp_path / "pairs")
    with pytest.raises(InputError, match=r"prompt is empty in line 2 .*half of a character .*in line 3"):
        main(command)
    assert server.requests == []
    assert main([*command, "--bad-rows", "drop"]) == 0
    assert "left out 2 rows: prompt is empty in line 2" in capsys.readouterr().err
    dropped = {row["prompt_id"]: row["reason"] for row in lines(tmp_path / "pairs" / "dropped.jsonl")}
    half = "prompt holds half of a character (a lone surrogate)"
    assert dropped == {"prompts.jsonl line 2": "prompt is empty", "prompts.jsonl line 3": half}
    assert len(lines(tmp_path / "pairs" / "pairs.jsonl")) == 2
