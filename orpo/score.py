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

from dataclasses import dataclass
from pathlib import Path

from orpo.command.errors import SettingsError
from orpo.command.run_command import run_command
from orpo.command.settings import parse_settings, setting
from orpo.records.read_replies import AnsweredReply, read_given_replies
from orpo.scoring import SCORERS, get_scorer, suggest_emojis


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
        if self.texts and self.file is not None:
            raise SettingsError(f"--file {self.file}: pass texts or --file, not both")


def main(argv: list[str]) -> int:
    """Score every text, or rank the emojis that would suit it; the mean stands at the end of several scores."""
    settings = parse_settings(ScoreSettings, argv, prog="score.py", description=__doc__)

    from orpo.scoring.display import print_reports, print_suggestions

    given = list(read_given_replies(settings.texts, settings.file, AnsweredReply("", settings.prompt, settings.system)))
    if settings.suggest:
        found = ((one.reply, suggest_emojis(one.reply, one.prompt)) for one in given)
        print_suggestions(found, len(given), as_json=settings.json)
    else:
        explain = get_scorer(settings.profile).explain
        scored = ((one.reply, explain(one.reply, one.prompt, system=one.system)) for one in given)
        print_reports(scored, len(given), with_parts=settings.explain, as_json=settings.json)
    return 0


if __name__ == "__main__":
    run_command(main)
