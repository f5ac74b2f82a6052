"""The settings of `generate`, and what each side's writer is by them. Light: `--help` reads this and nothing more."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from orpo.chat_model.default_model import DEFAULT_MODEL
from orpo.chat_model.endpoint.addresses import ENDPOINT_PREFIX, check_address
from orpo.chat_model.endpoint.settings import CallSettings
from orpo.chat_model.settings import LocalModelSettings
from orpo.command.errors import SettingsError
from orpo.command.paths import default_data_folder, resolve_user_path
from orpo.command.safe_text import mask_address
from orpo.command.settings import require, setting, settings_group
from orpo.generating.cluster import ClusterSettings
from orpo.generating.mix import DEFAULT_MIX, parse_mix, shown_mix
from orpo.records.pairs import PairKind
from orpo.records.prompts import EMBEDDED
from orpo.records.replies import Sampling
from orpo.records.rows import BadRowsPolicy
from orpo.scoring import DEFAULT_SCORER, SCORERS, find_emojis, strip_emojis

EMOJI_SYSTEM: Final = (
    "You are a friendly assistant. Answer in one to three sentences. Use one to three fitting emojis in your reply."
)
PLAIN_SYSTEM: Final = "You are a friendly assistant. Answer in one to three sentences. Do not use any emojis."
PLACE: Final = "place"
STRIP: Final = "strip"

_PALETTE: Final = 16
_MODEL_HELP = "a folder, a GGUF file, a Hub id, openai:NAME"

Side = Literal["emoji", "plain", "tuned"]


@dataclass(frozen=True)
class WriterSpec:
    """Who writes one side.

    Attributes:
        side: `emoji` or `plain`; `tuned` for a model with an adapter, which writes alone.
        model: A local folder, a GGUF file, a Hub id, `openai:NAME`, `place` or `strip`.
        system: The writer's system prompt; None for none.
        base_url: The endpoint's address, for `openai:NAME`.
        adapter: The folder of the adapter that the local model answers with.
    """

    side: Side
    model: str
    system: str | None = None
    base_url: str | None = None
    adapter: Path | None = None

    @property
    def is_endpoint(self) -> bool:
        """Whether the model is asked over HTTP."""
        return self.model.startswith(ENDPOINT_PREFIX)

    @property
    def is_derived(self) -> bool:
        """Whether the replies are the other writer's, with emojis placed into or stripped from them."""
        return self.model in (PLACE, STRIP)


@dataclass(kw_only=True)
class ExampleSettings:
    """Answered messages, shown to writers and made into pairs."""

    examples: int | None = setting(
        None,
        "show a writer this many answered messages first (default: 5 for local models under 1 B parameters)",
        at_least=0,
    )
    examples_choice: Literal["nearest", "fixed"] = setting(
        "nearest", "the examples nearest to each prompt, or a fixed set for all"
    )
    examples_file: Path | None = setting(None, "own examples, columns prompt and reply, in place of those that ship")
    example_pairs: int | None = setting(
        None, "make pairs of this many examples too (default: 450 for the default model, 0 for others)", at_least=0
    )


@dataclass(kw_only=True)
class EndpointSettings(CallSettings):
    """Where OpenAI-compatible endpoints are, and how they are asked."""

    base_url: str | None = setting(None, "address of the endpoint, such as http://127.0.0.1:8000/v1")
    emoji_base_url: str | None = setting(None, "the same for the emoji writer alone")
    plain_base_url: str | None = setting(None, "the same for the plain writer alone")


@dataclass(frozen=True, kw_only=True)
class WriterSampling(Sampling):
    """How the writers pick their tokens."""

    max_new_tokens: int = setting(120, "the most tokens a reply may have")


@dataclass(kw_only=True)
class GenerateSettings:
    """The settings of `generate`."""

    prompts: str = setting("embedded", "embedded, a JSONL, CSV, Parquet or text file, or a data set on the Hub")
    prompts_config: str | None = setting(None, "configuration of a Hub data set")
    prompts_split: str = setting("train", "split of a Hub data set")
    prompts_column: str | None = setting(None, "column that holds the prompts; found by its usual names if not given")
    bad_rows: BadRowsPolicy = setting(
        "raise", "rows that cannot be used: stop and name them, or leave them out and list them"
    )
    limit: int | None = setting(None, "use only this many prompts, from the start", at_least=1)
    plain_model: str = setting(DEFAULT_MODEL, f"who writes without emojis: {_MODEL_HELP}, or {STRIP}")
    emoji_model: str = setting(
        PLACE, f"who writes with emojis: {_MODEL_HELP}, or {PLACE} (the other reply, emojis placed by the score)"
    )
    plain_system: str = setting(
        PLAIN_SYSTEM, "system prompt of the plain writer, as text or @FILE; '' for none", file_allowed=True
    )
    emoji_system: str = setting(
        EMOJI_SYSTEM, "system prompt of the emoji writer, as text or @FILE; '' for none", file_allowed=True
    )
    from_adapter: Path | None = setting(
        None, "pairs from a tuned model's own replies, corrected by the score: the folder of its adapter"
    )
    candidates: int = setting(1, "replies of each writer to a prompt, of which the score picks", at_least=1)
    seed: int = setting(0, "decides the replies, together with prompt and model, and what each pair teaches")
    scorer: str = setting(DEFAULT_SCORER, "which score decides what is chosen", choices=SCORERS)
    min_margin: float = setting(0.1, "drop pairs whose scores differ by less: they teach chance", at_least=0)
    mix: str | None = setting(
        None, f"what the pairs teach where emojis are in place (default: {shown_mix(DEFAULT_MIX)})"
    )
    palette: str | None = setting(
        None,
        "how many different emojis to place, those that serve the replies best, or which ones, as text; 0 for all: a "
        f"small model cannot learn hundreds (default: {_PALETTE} for the default model, 0 for others)",
    )
    reuse_replies: bool = setting(True, "take replies that an earlier run kept, where they are the same request")
    out: Path | None = setting(None, "folder to write to (default: data/preferences)", short="-o")
    overwrite: bool = setting(False, "replace an earlier result in --out")
    samples: int = setting(3, "how many pairs to show at the end", at_least=0)
    example: ExampleSettings = settings_group(ExampleSettings, "examples")
    sampling: WriterSampling = settings_group(WriterSampling, "sampling")
    local: LocalModelSettings = settings_group(LocalModelSettings, "models on this machine")
    endpoint: EndpointSettings = settings_group(EndpointSettings, "endpoints")
    cluster: ClusterSettings = settings_group(ClusterSettings, "many machines")

    def __post_init__(self) -> None:
        """Check what can be checked before anything is loaded."""
        self.shares()
        self.palette_size()
        self.endpoint.options()
        if self.plain_model in (PLACE, STRIP) and self.emoji_model in (PLACE, STRIP):
            raise SettingsError(
                f"--emoji-model {self.emoji_model} --plain-model {self.plain_model}: one writer must be a model, "
                f"since {PLACE} and {STRIP} work on the other writer's replies"
            )
        for side in ("emoji", "plain"):
            self._check_writer(side)
        shared = self.endpoint.base_url
        if shared is not None and not any(map(self._asks_endpoint, ("emoji", "plain"))):
            raise SettingsError(
                f"--base-url {mask_address(shared)}: is for an endpoint, and no writer is one; pass "
                f"--emoji-model {ENDPOINT_PREFIX}NAME or --plain-model {ENDPOINT_PREFIX}NAME"
            )

        if self.cluster.ray is not None and all(
            self._asks_endpoint(side) or getattr(self, f"{side}_model") in (PLACE, STRIP) for side in ("emoji", "plain")
        ):
            raise SettingsError(
                f"--ray {self.cluster.ray}: is for models that workers load, and no writer is one; leave it out"
            )

    def _check_writer(self, side: str) -> None:
        model = getattr(self, f"{side}_model")
        url, own = self.url_of(side), getattr(self.endpoint, f"{side}_base_url")
        require(model not in ("", ENDPOINT_PREFIX), f"--{side}-model", repr(model), "name a model")
        if url is not None and self._asks_endpoint(side):
            check_address(url, setting=f"{side}_base_url" if own else "base_url")
        if own is not None and not self._asks_endpoint(side):
            raise SettingsError(
                f"--{side}-base-url {mask_address(own)}: is for an endpoint, so pass --{side}-model "
                f"{ENDPOINT_PREFIX}NAME"
            )

    def _asks_endpoint(self, side: str) -> bool:
        model: str = getattr(self, f"{side}_model")
        return model.startswith(ENDPOINT_PREFIX)

    def url_of(self, side: str) -> str | None:
        """Return the endpoint's address of one side."""
        own: str | None = getattr(self.endpoint, f"{side}_base_url")
        return own or self.endpoint.base_url

    def shares(self) -> dict[PairKind, float]:
        """Return the shares of what pairs teach; the first score sees presence and nothing else."""
        if self.mix is None and self.scorer == "contains_emoji":
            return {"presence": 1.0}
        return dict(DEFAULT_MIX) if self.mix is None else parse_mix(self.mix)

    def palette_size(self) -> int | tuple[str, ...]:
        """Return how many emojis to choose for placing, 0 for all, or the emojis that the user names."""
        if self.palette is None:
            return _PALETTE if self._has_default_writers() else 0
        if self.palette.strip().isdecimal():
            return int(self.palette)
        emojis = tuple(span.text for span in find_emojis(self.palette))
        if not emojis or strip_emojis(self.palette).strip(" ,"):
            raise SettingsError(f"{self.palette}: is no number and not emojis alone", setting="palette")
        return emojis

    def out_folder(self) -> Path:
        """Return the folder to write to."""
        return resolve_user_path(self.out) if self.out is not None else default_data_folder()

    def writers(self) -> list[WriterSpec]:
        """Return who writes: both sides, or the tuned model alone."""
        if self.from_adapter is not None:
            from orpo.chat_model.adapters import adapter_base_name

            return [WriterSpec("tuned", adapter_base_name(self.from_adapter), adapter=self.from_adapter)]
        sides: tuple[tuple[Side, str, str], ...] = (
            ("emoji", self.emoji_model, self.emoji_system),
            ("plain", self.plain_model, self.plain_system),
        )
        return [WriterSpec(side, model, system or None, self.url_of(side)) for side, model, system in sides]

    def uses_examples(self) -> bool:
        """Whether a writer may be shown examples, or pairs are made of them."""
        count = self.example.examples
        may_be_small = count is None and any(
            not spec.is_endpoint and not spec.is_derived and spec.adapter is None for spec in self.writers()
        )
        return may_be_small or bool(count) or self.example_pair_count() != 0

    def example_pair_count(self) -> int:
        """Return how many examples become pairs."""
        if self.example.example_pairs is not None:
            return self.example.example_pairs
        return _EXAMPLE_PAIRS if self._has_default_writers() and self.prompts == EMBEDDED else 0

    def _has_default_writers(self) -> bool:
        return self.plain_model == DEFAULT_MODEL and self.emoji_model == PLACE and self.from_adapter is None


_EXAMPLE_PAIRS: Final = 450
"""Enough to teach restraint and obedience beside the prompts' own pairs; all 1,501 would double the training."""
