"""The way from a data source to checked, tokenized pairs, split by prompt; no model is needed for it."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from orpo.command.display import print_warnings
from orpo.command.errors import InputError
from orpo.command.output_folder import check_output_folder, check_resumable
from orpo.command.paths import default_data_folder
from orpo.command.ranks import is_main_process
from orpo.command.run_record import fingerprint_rows
from orpo.records.columns import PairColumns
from orpo.records.pairs import Messages, PreferencePair
from orpo.records.prompts import EMBEDDED, HELD_OUT, embedded_prompts, read_prompts
from orpo.records.read_pairs import read_pairs
from orpo.training.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from orpo.training.tokenization import TokenizedPair, TokenizedPairs


@dataclass(frozen=True)
class TrainingData:
    """What a run trains on and is measured with."""

    pairs: list[PreferencePair]
    tokenized: "TokenizedPairs"
    train: "list[TokenizedPair]"
    evaluation: "list[TokenizedPair]"
    fingerprint: str


def check_and_read(settings: TrainSettings) -> list[PreferencePair]:
    """Return the pairs to train on; what can be found wrong without torch is told before it is imported."""
    check_reporters(settings)
    if not settings.estimate and is_main_process():
        if settings.resume:
            check_resumable(settings.run_folder)
        else:
            check_output_folder(settings.run_folder, overwrite=settings.overwrite)
    return read_checked_pairs(settings)


def check_reporters(settings: TrainSettings) -> None:
    """Raise InputError for a package that is to be reported to and is not there."""
    for name in settings.watch.report_to:
        if name != "none" and find_spec(name) is None:
            raise InputError(
                f"{name}: needs the package {name}; `uv sync --extra {name}` or `uv pip install {name}` installs it",
                setting="report_to",
            )


def read_checked_pairs(settings: TrainSettings) -> list[PreferencePair]:
    """Read the pairs, say what was not read, and raise for whatever is wrong with their text, with row numbers."""
    if settings.data is None and not default_data_folder().exists():
        raise InputError(
            f"there are no preference pairs yet in {default_data_folder()}; make some with `uv run orpo/generate.py`, "
            "or name others"
        )
    found = read_pairs(
        settings.data_source,
        config=settings.data_config,
        split=settings.data_split,
        columns=PairColumns(
            settings.prompt_column, settings.chosen_column, settings.rejected_column, settings.system_column
        ),
        limit=settings.limit,
        bad_rows=settings.bad_rows,
    )
    print_warnings(found.warnings)
    return found.pairs


def prepare_data(
    pairs: list[PreferencePair], tokenizer: "PreTrainedTokenizerBase", settings: TrainSettings
) -> TrainingData:
    """Tokenize the pairs and split them into training and evaluation."""
    from orpo.training.tokenization import tokenize_pairs

    tokenized = tokenize_pairs(
        pairs,
        tokenizer,
        settings.lengths.max_length,
        settings.lengths.max_prompt_length,
        settings.lengths.length_policy,
        settings.bad_rows,
    )
    keys = [prompt_key(one.pair.prompt) for one in tokenized.pairs]
    train, evaluation = split_by_prompt(tokenized.pairs, keys, settings.watch.eval_share, settings.seed)
    said = [{"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in pairs]
    return TrainingData(pairs, tokenized, train, evaluation, fingerprint_rows(said))


def split_by_prompt(
    pairs: "Sequence[TokenizedPair]", keys: Sequence[str], share: float, seed: int
) -> "tuple[list[TokenizedPair], list[TokenizedPair]]":
    """Split into training and evaluation so that no prompt is in both; with one prompt there is no evaluation."""
    prompts = list(dict.fromkeys(keys))
    random.Random(seed).shuffle(prompts)
    count = min(max(round(share * len(prompts)), 1), len(prompts) - 1) if share > 0 else 0
    held_back = set(prompts[:count])
    train = [pair for pair, key in zip(pairs, keys, strict=True) if key not in held_back]
    return train, [pair for pair, key in zip(pairs, keys, strict=True) if key in held_back]


def prompt_key(messages: Messages) -> str:
    """Return what makes two prompts the same, whatever their letters' case and spacing."""
    said = [(message["role"], " ".join(message["content"].casefold().split())) for message in messages]
    return json.dumps(said, ensure_ascii=False)


def held_out_conversations(settings: TrainSettings, trained_on: Sequence[PreferencePair]) -> list[Messages]:
    """Return the prompts to answer at each evaluation, without those that the pairs contain."""
    if settings.watch.eval_prompt_count == 0:
        return []
    if settings.watch.eval_prompts == EMBEDDED:
        prompts = embedded_prompts(HELD_OUT)
    else:
        found = read_prompts(settings.watch.eval_prompts, bad_rows=settings.bad_rows, setting="eval_prompts")
        print_warnings(found.warnings)
        prompts = found.prompts
    seen = {prompt_key(pair.prompt) for pair in trained_on}
    unseen = [talk for talk in (prompt.conversation() for prompt in prompts) if prompt_key(talk) not in seen]
    if not unseen:
        raise InputError(
            f"{settings.watch.eval_prompts}: the preference pairs contain every one of these prompts; name "
            "others, or ask for none",
            setting="eval_prompts",
        )
    random.Random(settings.seed).shuffle(unseen)
    return unseen[: settings.watch.eval_prompt_count]
