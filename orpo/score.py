"""Score how well texts use emojis, and say why.

    uv run orpo/score.py --explain "Congratulations, you earned it! 🎉" --prompt "I passed my exam!"
    uv run orpo/score.py --file replies.jsonl --profile playful --json > scored.jsonl
    echo "See you tomorrow 👋" | uv run orpo/score.py
    uv run orpo/score.py --suggest "See you at the beach tomorrow."

Texts come as arguments, from a file or from standard input. A text file holds one text a line. In a JSONL file each row
holds `reply` (or `text`, `response`, `completion`) and may hold `prompt` and `system`; chat messages are read too. A
JSON file holds an array of such rows or of texts. The score is the product of its parts, each raised to its weight;
--explain shows them. --suggest scores nothing: it ranks the emojis that would suit each text.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orpo.command.errors import InputError, SettingsError
from orpo.command.run_command import run_command
from orpo.command.safe_text import printable
from orpo.command.settings import parse_settings, setting
from orpo.records.read_replies import AnsweredReply, read_replies
from orpo.scoring import SCORERS, ScoreReport, find_emojis, get_scorer, suggest_emojis

if TYPE_CHECKING:
    from rich.text import Text

_GOOD, _FAIR = 0.8, 0.5


@dataclass(kw_only=True)
class ScoreSettings:
    """The settings of `score`."""

    texts: list[str] = setting([], "the texts to score; none reads --file or standard input", positional=True)
    file: Path | None = setting(None, "a text file (one text a line), a JSONL or a JSON file; - for standard input")
    prompt: str = setting("", "what the texts answer")
    system: str = setting("", "the system message before it, for wishes such as 'no emojis'")
    profile: str = setting("tasteful", "whose taste", choices=SCORERS)
    explain: bool = setting(False, "show every part with its reason")
    suggest: bool = setting(False, "rank the emojis that would suit each text, with reasons, in place of a score")
    json: bool = setting(False, "print one line of JSON for each text")

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.texts and self.file is not None:
            raise SettingsError(f"--file {self.file}: pass texts or --file, not both")


def main(argv: list[str]) -> int:
    """Score every text; the mean stands at the end where there are several."""
    settings = parse_settings(ScoreSettings, argv, prog="score.py", description=__doc__)
    if settings.suggest:
        return _suggest(settings)
    scorer = get_scorer(settings.profile)
    scores = []
    for item in _read(settings):
        report = scorer.explain(item.reply, item.prompt, system=item.system)
        scores.append(report.score)
        if settings.json:
            line = json.dumps({"reply": item.reply, **report.as_dict()}, ensure_ascii=False)
            print(line.encode("utf-8", "replace").decode("utf-8"))
        else:
            _show(item, report, explain=settings.explain)
    if not scores:
        raise _no_text(settings)
    if len(scores) > 1 and not settings.json:
        from orpo.command.display import console_out

        console_out.print(f"{len(scores)} texts, mean score {sum(scores) / len(scores):.3f}")
    return 0


def _no_text(settings: ScoreSettings) -> InputError:
    return InputError(f"{settings.file or 'standard input'}: holds no text to score")


def _suggest(settings: ScoreSettings) -> int:
    """Show for every text which emojis would suit it."""
    from dataclasses import asdict

    from orpo.command.display import console_out

    number = 0
    for number, item in enumerate(_read(settings), start=1):  # noqa: B007
        picks = suggest_emojis(item.reply, item.prompt)
        if settings.json:
            line = json.dumps({"text": item.reply, "suggestions": [asdict(pick) for pick in picks]}, ensure_ascii=False)
            print(line.encode("utf-8", "replace").decode("utf-8"))
            continue
        console_out.print(_marked(item.reply), soft_wrap=True)
        for pick in picks:
            console_out.print(
                f"  {pick.emoji}  {pick.value:.2f}  {printable(pick.reason)}", markup=False, soft_wrap=True
            )
        if not picks:
            console_out.print("  none is in place")
    if not number:
        raise _no_text(settings)
    return 0


def _read(settings: ScoreSettings) -> Iterator[AnsweredReply]:
    asked = AnsweredReply("", settings.prompt, settings.system)
    if settings.texts:
        yield from (replace(asked, reply=text) for text in settings.texts)
        return
    if settings.file is None and sys.stdin.isatty():
        raise SettingsError('nothing to score: pass a text, such as `score.py "Well done! 🎉"`, or --file')
    if settings.file is None or str(settings.file) == "-":
        name, data = "standard input", sys.stdin.buffer.read()
    else:
        name, data = str(settings.file), settings.file.read_bytes()
    yield from read_replies(data, name, asked)


def _show(item: AnsweredReply, report: ScoreReport, *, explain: bool) -> None:
    """Print the score with the text, its emojis marked, and with --explain a line for each part."""
    from rich.text import Text

    from orpo.command.display import console_out

    line = Text(f"{report.score:.3f}  ", style=f"bold {_colour(report.score)}")
    console_out.print(line.append_text(_marked(item.reply)), soft_wrap=True)
    if explain:
        width = max(map(len, report.parts), default=0)
        for name, part in report.parts.items():
            row = Text(f"  {name:<{width}}  ").append(f"{part.value:.2f}", style=_colour(part.value))
            console_out.print(row.append(f"  ^{part.weight:<3g}  {printable(part.reason)}"), soft_wrap=True)


def _marked(text: str) -> "Text":
    """Return the text with its emojis on a coloured ground."""
    from rich.text import Text

    marked = Text(style="default not bold")
    position = 0
    for span in find_emojis(text):
        marked.append(printable(text[position : span.start])).append(span.text, style="black on bright_yellow")
        position = span.end
    return marked.append(printable(text[position:]))


def _colour(value: float) -> str:
    return "green" if value >= _GOOD else "yellow" if value >= _FAIR else "red"


if __name__ == "__main__":
    run_command(main)
