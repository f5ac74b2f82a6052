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
from orpo.records.columns import PairColumns, has_labels
from orpo.records.labelled import LabelledReply, read_labelled
from orpo.records.pairs import Messages, PreferencePair
from orpo.records.prompts import EMBEDDED, HELD_OUT, embedded_prompts, read_prompts
from orpo.records.read_pairs import pairs_of_rows
from orpo.records.read_rows import read_rows
from orpo.training.data_sets import DataSet, DataSetCounts, split_weight, weighted
from orpo.training.examples import Example, SourceRow, TokenizedPairs
from orpo.training.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TrainingData:
    """What a run trains on and is measured with.

    Attributes:
        rows: All rows that were read.
        tokenized: What became of them.
        train: What an epoch sees; a row of a set with a weight above 1 stands in it more than once.
        evaluation: The rows kept for evaluation, each once.
        fingerprint: Of the rows.
        sets: What became of each data set.
        tokenized_sets: What became of its rows.
    """

    rows: list[SourceRow]
    tokenized: "TokenizedPairs[Example]"
    train: "list[Example]"
    evaluation: "list[Example]"
    fingerprint: str
    sets: list[DataSetCounts]
    tokenized_sets: "list[TokenizedPairs[Example]]"


def check_and_read(settings: TrainSettings) -> list[DataSet]:
    """Return the data sets to train on; what can be found wrong without torch is told before it is imported."""
    check_reporters(settings)
    if not settings.estimate and is_main_process():
        if settings.resume:
            check_resumable(settings.run_folder)
        else:
            check_output_folder(settings.run_folder, overwrite=settings.overwrite)
    return read_data_sets(settings)


def check_reporters(settings: TrainSettings) -> None:
    """Raise InputError for a package that is to be reported to and is not there."""
    for name in settings.watch.report_to:
        if name != "none" and find_spec(name) is None:
            raise InputError(
                f"{name}: needs the package {name}; `uv sync --extra {name}` or `uv pip install {name}` installs it",
                setting="report_to",
            )


def read_data_sets(settings: TrainSettings) -> list[DataSet]:
    """Read the rows, say what was not read, and raise for whatever is wrong with their text, with row numbers."""
    if settings.data is None and not default_data_folder().exists():
        raise InputError(
            f"there are no preference pairs yet in {default_data_folder()}; make some with `uv run orpo/generate.py`, "
            "or name others"
        )
    sets = [_read_data_set(*split_weight(source), settings) for source in settings.data_sources]
    labelled = [one.name for one in sets if one.rows and isinstance(one.rows[0], LabelledReply)]
    if 0 < len(labelled) < len(sets):
        pairs = ", ".join(one.name for one in sets if one.name not in labelled)
        raise InputError(
            f"{', '.join(labelled)}: holds single replies with labels, and {pairs} holds pairs; name one kind",
            setting="data",
        )
    return sets


def _read_data_set(name: str, weight: float, settings: TrainSettings) -> DataSet:
    columns = PairColumns(
        settings.prompt_column, settings.chosen_column, settings.rejected_column, settings.system_column
    )
    method = settings.objective.method
    rows = read_rows(name, setting="data", config=settings.data_config, split=settings.data_split)
    if has_labels(rows, columns):
        if method != "kto":
            raise InputError(
                f"{name}: holds single replies with labels, which `method` {method} cannot learn from; choose kto, or "
                "name pairs",
                setting="data",
            )
        labelled, warnings = read_labelled(
            rows, columns, limit=settings.limit, bad_rows=settings.bad_rows, setting="data"
        )
        read: list[PreferencePair] | list[LabelledReply] = labelled
    else:
        found = pairs_of_rows(rows, columns=columns, limit=settings.limit, bad_rows=settings.bad_rows)
        read, warnings = found.pairs, found.warnings
    print_warnings(warnings)
    return DataSet(name, weight, read)


def prepare_data(
    sets: Sequence[DataSet], tokenizer: "PreTrainedTokenizerBase", settings: TrainSettings
) -> TrainingData:
    """Tokenize the rows, split them into training and evaluation, and see each set as often as its weight says."""
    tokenized = [_tokenize(one, tokenizer, settings, is_alone=len(sets) == 1) for one in sets]
    everything = TokenizedPairs.joined(tokenized)
    keys = [prompt_key(one.source.prompt) for one in everything.pairs]
    train, evaluation = split_by_prompt(everything.pairs, keys, settings.watch.eval_share, settings.seed)
    if settings.objective.method == "grpo":  # which writes the replies itself
        train = _first_of_each_prompt(train)
    to_train = {id(one) for one in train}
    seen: list[Example] = []
    counts = []
    for number, (one, found) in enumerate(zip(sets, tokenized, strict=True)):
        own = [pair for pair in found.pairs if id(pair) in to_train]
        again = weighted(own, one.weight, settings.seed + number)
        if own and not again:
            raise InputError(
                f"{one.name}: with the weight {one.weight:g} none of its {len(own)} rows is seen; raise it, or leave "
                "the set out",
                setting="data",
            )
        seen += again
        counts.append(DataSetCounts(one.name, one.weight, len(one.rows), len(own), len(again)))
    rows = [row for one in sets for row in one.rows]
    said = [_said(row) for row in rows]
    return TrainingData(rows, everything, seen, evaluation, fingerprint_rows(said), counts, tokenized)


def _tokenize(
    data_set: DataSet, tokenizer: "PreTrainedTokenizerBase", settings: TrainSettings, *, is_alone: bool
) -> "TokenizedPairs[Example]":
    """Tokenize one set; an error names it where there are others."""
    from orpo.training.tokenization import tokenize_rows

    lengths = settings.lengths
    limits = lengths.max_length, lengths.max_prompt_length, lengths.length_policy
    try:
        return tokenize_rows(data_set.rows, tokenizer, *limits, settings.bad_rows)
    except InputError as problem:
        if is_alone:
            raise
        raise InputError(f"{data_set.name}: {problem}", setting="data") from None


def _said(row: SourceRow) -> dict[str, object]:
    if isinstance(row, LabelledReply):
        return {"prompt": row.prompt, "completion": row.completion, "label": row.label}
    return {"prompt": row.prompt, "chosen": row.chosen, "rejected": row.rejected}


def split_by_prompt(
    pairs: "Sequence[Example]", keys: Sequence[str], share: float, seed: int
) -> "tuple[list[Example], list[Example]]":
    """Split into training and evaluation so that no prompt is in both; with one prompt there is no evaluation."""
    prompts = list(dict.fromkeys(keys))
    random.Random(seed).shuffle(prompts)
    count = min(max(round(share * len(prompts)), 1), len(prompts) - 1) if share > 0 else 0
    held_back = set(prompts[:count])
    train = [pair for pair, key in zip(pairs, keys, strict=True) if key not in held_back]
    return train, [pair for pair, key in zip(pairs, keys, strict=True) if key in held_back]


def _first_of_each_prompt(rows: "Sequence[Example]") -> "list[Example]":
    first: dict[str, Example] = {}
    for row in rows:
        first.setdefault(prompt_key(row.source.prompt), row)
    return list(first.values())


def prompt_key(messages: Messages) -> str:
    """Return what makes two prompts the same, whatever their letters' case and spacing."""
    said = [(message["role"], " ".join(message["content"].casefold().split())) for message in messages]
    return json.dumps(said, ensure_ascii=False)


def held_out_conversations(
    settings: TrainSettings, trained_on: Sequence[PreferencePair | LabelledReply]
) -> list[Messages]:
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
