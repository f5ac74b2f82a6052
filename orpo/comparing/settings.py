"""The settings of `inference` and `report`: every field is a flag, a recipe key and a line of `--help` at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orpo.chat_model.endpoint.addresses import ENDPOINT_PREFIX, check_address
from orpo.chat_model.endpoint.settings import CallSettings
from orpo.chat_model.settings import LocalModelSettings
from orpo.command.errors import SettingsError, setting_named
from orpo.command.safe_text import mask_address
from orpo.command.settings import require, setting, settings_group
from orpo.records.replies import Sampling
from orpo.records.rows import BadRowsPolicy
from orpo.scoring import DEFAULT_SCORER, SCORERS

PROMPTING_SYSTEM: Final = "You are a friendly assistant. Use one to three fitting emojis in your reply."

PARTS: Final = ("prompts", "obedience", "questions", "prose")
"""What can be measured: replies to prompts, wishes for and against emojis, short questions, perplexity of prose."""


@dataclass(kw_only=True)
class PromptSource:
    """Where prompts of the user's own are."""

    prompts: str | None = setting(
        None, "the prompts of a file (JSONL, CSV, Parquet, text) or Hub data set, in place of the held-out ones"
    )
    prompts_config: str | None = setting(None, "configuration of a Hub data set")
    prompts_split: str = setting("train", "split of a Hub data set, or of a folder that `datasets` saved")
    prompts_column: str | None = setting(None, "the column of --prompts that holds them")
    bad_rows: BadRowsPolicy = setting(
        "raise", "rows that cannot be used: stop and name them, or leave them out and list them"
    )


@dataclass(kw_only=True)
class BaseModelSettings(LocalModelSettings):
    """Which base model answers, and where it computes."""

    model: str | None = setting(None, "base model: a folder, a GGUF file or a Hub id; the adapter's own if not given")
    reuse_replies: bool = setting(True, "take replies that an earlier run kept in the cache, where nothing has changed")


@dataclass(kw_only=True)
class InferenceSettings:
    """What `inference` can be told."""

    prompt: list[str] = setting([], "messages to answer, each in quotes", short="-p")
    chat: bool = setting(False, "talk with the tuned model")
    summary: bool = setting(
        False, "measure on the 200 standard prompts, with obedience, short questions and perplexity (see --measure)"
    )
    count: int | None = setting(
        None, "prompts to show side by side, 0 for all that are answered (default: 8, or all of --prompts)", at_least=0
    )
    measure: int | None = setting(
        None, "prompts that --summary measures, those shown at least, 0 for all (default: all)", at_least=0
    )
    json: bool = setting(False, "print JSON lines: one for each reply, then the summary")
    picture: Path | None = setting(None, "save what is shown as a picture, to a new SVG file")
    adapter: Path | None = setting(None, "folder of the adapter; the newest one in trained/ if not given")
    base_only: bool = setting(False, "load no adapter and show the base model alone")
    system: str | None = setting(None, "system prompt for every conversation, as text or @FILE", file_allowed=True)
    seed: int = setting(0, "the same seed gives the same replies")
    scorer: str = setting(DEFAULT_SCORER, "the score of the replies", choices=SCORERS)
    own: PromptSource = settings_group(PromptSource, "your own prompts")
    base: BaseModelSettings = settings_group(BaseModelSettings, "base model")
    sampling: Sampling = settings_group(Sampling, "replies")

    def __post_init__(self) -> None:
        require(all(text.strip() for text in self.prompt), "--prompt", "''", "is empty; write a message in quotes")
        given = [("--prompt", self.prompt), ("--prompts", self.own.prompts), ("--chat", self.chat)]
        modes = [flag for flag, value in given if value]
        if len(modes) > 1:
            raise SettingsError(f"{' and '.join(modes)} do not go together; choose one of them")
        if self.chat and (self.json or self.picture or self.summary):
            raise SettingsError("--chat does not go together with --json, --picture or --summary")
        if self.json and self.picture:
            raise SettingsError("--json shows nothing to make a picture of; leave it or --picture out")
        if self.base_only and self.adapter:
            raise SettingsError("--base-only loads no adapter, so --adapter does not go with it; choose one of them")

    def parts(self) -> tuple[str, ...]:
        """Return what is measured."""
        return PARTS if self.summary else ("prompts",)

    def show_count(self) -> int:
        """Return how many prompts to show; 0 for all."""
        if self.count is not None:
            return self.count
        return 0 if self.prompt or (self.own.prompts and not self.summary) else 8

    def answer_count(self) -> int:
        """Return how many prompts to answer; 0 for all."""
        if not self.summary:
            return self.show_count()
        return max(self.measure, self.show_count()) if self.measure else 0


@dataclass(kw_only=True)
class JudgeSettings(CallSettings):
    """Where a judge `openai:NAME` is, and how it is asked."""

    base_url: str | None = setting(None, "address of the judge's endpoint, such as http://127.0.0.1:8000/v1")


@dataclass(kw_only=True)
class ReportSettings:
    """What `report` can be told."""

    adapter: list[Path] = setting([], "folders of adapters; the newest one in trained/ if none is given")
    prompting: bool = setting(False, "add the base model, told to use emojis by a system prompt")
    prompting_system: str = setting(
        PROMPTING_SYSTEM,
        "the system prompt of --prompting, --few-shot and --best-of, as text or @FILE",
        file_allowed=True,
    )
    few_shot: int = setting(
        0, "add the base model with this many answered messages as earlier turns; 0 for none", at_least=0
    )
    best_of: int = setting(0, "add the best of this many replies of the prompted base, picked by the score; 0 for none")
    measure: list[str] = setting(list(PARTS), "what is measured", choices=PARTS)
    count: int = setting(0, "prompts to answer, from all over the set; 0 for all", at_least=0)
    unseen_by: list[str] = setting(
        [],
        "preference pairs that the adapters were trained on: answers every shipped prompt that none of them is near "
        "to, in place of the 200 standard ones; more prompts, narrower intervals",
    )
    seeds: int = setting(1, "replies to each prompt, from the seeds --seed, --seed + 1 and so on", at_least=1)
    judge: str | None = setting(
        None, "a model that compares replies pairwise: a folder, a GGUF file, a Hub id, openai:NAME"
    )
    out: Path = setting(Path("report"), "folder to write report.html, report.json and run.json to", short="-o")
    overwrite: bool = setting(False, "replace an earlier report")
    update_cards: bool = setting(False, "put the table into README.md of each adapter")
    seed: int = setting(0, "the same seed gives the same replies")
    scorer: str = setting(DEFAULT_SCORER, "the score of the replies", choices=SCORERS)
    own: PromptSource = settings_group(PromptSource, "your own prompts")
    base: BaseModelSettings = settings_group(BaseModelSettings, "base model")
    judging: JudgeSettings = settings_group(JudgeSettings, "endpoint of the judge", prefix="judge")
    sampling: Sampling = settings_group(Sampling, "replies")

    def __post_init__(self) -> None:
        require(self.best_of == 0 or self.best_of > 1, "--best-of", self.best_of, "must be 0 (none) or at least 2")
        require(bool(self.measure), "--measure", "", f"name what to measure: {', '.join(PARTS)}")
        if self.unseen_by and self.own.prompts:
            raise SettingsError("--unseen-by picks from the shipped prompts, so --prompts does not go with it")
        if self.best_of and self.sampling.temperature == 0:
            raise SettingsError("--best-of needs replies that differ; pass a --temperature above 0")
        if self.seeds > 1 and self.sampling.temperature == 0:
            raise SettingsError("--seeds above 1 needs replies that differ; pass a --temperature above 0")
        self._check_judge()

    @property
    def asks_endpoint(self) -> bool:
        """Whether the judge is asked over HTTP."""
        return self.judge is not None and self.judge.startswith(ENDPOINT_PREFIX)

    def _check_judge(self) -> None:
        address = self.judging.base_url
        require(self.judge not in ("", ENDPOINT_PREFIX), "--judge", repr(self.judge), "name a model")
        with setting_named("judge_request_extra", instead_of="request_extra"):
            self.judging.options()
        if address is None:
            return
        if not self.asks_endpoint:
            raise SettingsError(
                f"--judge-base-url {mask_address(address)}: is for an endpoint, so pass --judge {ENDPOINT_PREFIX}NAME"
            )
        check_address(address, setting="judge_base_url")
