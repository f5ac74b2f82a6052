"""Progress and tables show what a model wrote as it is, on stderr and stdout."""

import io

import pytest
from rich.console import Console

from orpo.command import display as progress
from orpo.command.display import console_err, console_out, duration_text, print_table, progress_bar


def test_text_of_a_model_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """With rich's defaults `:smile:` becomes an emoji that nobody wrote, and `[bold]` disappears."""
    console_out.print("[bold] :smile: 5")
    print_table(["reply", "emojis"], [["[red]:fire:", 0]])
    shown = capsys.readouterr()
    assert "[bold] :smile: 5" in shown.out and "[red]:fire:" in shown.out and shown.err == ""


def test_numbers_stand_right_and_nothing_is_cut() -> None:
    out = io.StringIO()
    long = "word " * 30 + "end"
    print_table(["text", "share"], [[long, 0.123456], ["b", None]], title="Result", console=Console(file=out, width=60))
    lines = out.getvalue().splitlines()
    assert lines[0].strip() == "Result"
    assert "0.1235" in out.getvalue() and "end" in out.getvalue()
    assert any(line.rstrip(" │").endswith("-") for line in lines)


def test_short_work_in_a_pipe_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("training", 3) as advance:
        for _ in range(3):
            advance(loss=0.5)
    assert capsys.readouterr().err == ""


def test_long_work_in_a_pipe_says_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr("orpo.command.display.time.monotonic", lambda: float(next(clock)))
    with progress_bar("training", 4) as advance:
        for step in range(4):
            advance(loss=step / 4)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("training: 2/4, ") and lines[0].endswith("/s, about 18 s left loss 0.25")
    assert lines[-1].startswith("training: 4/4, ") and "left" not in lines[-1]


def test_what_an_earlier_run_did_does_not_make_this_one_fast(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that went on from step 90 of 100 said that the other ten take no time."""
    clock = iter(range(0, 1000, 12))
    monkeypatch.setattr("orpo.command.display.time.monotonic", lambda: float(next(clock)))
    with progress_bar("training", 100, done=90) as advance:
        advance(5)
    assert capsys.readouterr().err.splitlines()[0] == "training: 95/100, 0.208/s, about 24 s left"


def test_one_of_many_says_nothing_of_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """50 replies were written side by side, and after the first one 13 hours were said to be left of ten minutes."""
    clock = iter(range(0, 1000, 50))
    monkeypatch.setattr("orpo.command.display.time.monotonic", lambda: float(next(clock)))
    with progress_bar("writing replies", 388) as advance:
        advance()
        advance(20)
    first, second, _ = capsys.readouterr().err.splitlines()
    assert first == "writing replies: 1/388, 0.01/s" and second.endswith(" left")


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0 s"), (89, "89 s"), (100, "2 min"), (12_000, "3 h 20 min")])
def test_times_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration_text(seconds) == said


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(progress, "console_err", Console(file=out, force_terminal=True, width=120, markup=False))
    with progress_bar("training [step]", None) as advance:
        advance(2, loss=0.5)
    assert "training [step]" in out.getvalue() and "loss 0.5" in out.getvalue()


def test_results_and_progress_use_different_streams(capsys: pytest.CaptureFixture[str]) -> None:
    console_out.print("result")
    console_err.print("note")
    shown = capsys.readouterr()
    assert shown.out == "result\n" and shown.err == "note\n"


def test_what_is_printed_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """The name of an adapter's base model reached the terminal as it was, with its escape sequences."""
    console_err.print("loading \x1b[2Jevil\x1b]0;title\x07 \u202ename")
    print_table(["reply"], [["\x1b[31mred\x9b"]])
    shown = capsys.readouterr()
    assert shown.err == "loading \ufffdevil\ufffd \ufffdname\n"
    assert "\ufffdred\ufffd" in shown.out and "\x1b" not in shown.out
