"""From the settings of `report` to every approach's answers on the same prompts, and to the folder that proves it."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from orpo.chat_model.adapters import adapter_base_name
from orpo.command.display import console_err, progress_bar
from orpo.command.errors import InputError, SettingsError
from orpo.command.output_folder import check_output_folder, new_folder, write_whole
from orpo.command.paths import newest_adapter, public_name, resolve_user_path, without_folders
from orpo.command.run_record import RunRecord, as_json_value, fingerprint_rows, read_run_record
from orpo.comparing.answering import AnsweringModel
from orpo.comparing.approaches import BASE, Approach, adapter_names
from orpo.comparing.card import update_card
from orpo.comparing.comparison import Asking, Comparison, ask, replies_to_write
from orpo.comparing.intervals import FEWEST_PROMPTS
from orpo.comparing.judges import find_judge, judge_comparison
from orpo.comparing.judging import Judgement
from orpo.comparing.kept_answers import telling_what_is_kept
from orpo.comparing.page import ReportFacts, write_page
from orpo.comparing.run import base_model_name, check_before_loading, collect_held_out, newest_trained_adapter
from orpo.comparing.settings import ReportSettings
from orpo.comparing.sides import HeldOut, Side
from orpo.records.messages import Message, last_message
from orpo.records.prompts import OUT_OF_PLACE
from orpo.records.shipped import Example, shipped_examples
from orpo.scoring import contains_emoji

REPORT_NAME: Final = "report.json"
PAGE_NAME: Final = "report.html"


@dataclass(frozen=True)
class Report:
    """What was compared and where it is written.

    Attributes:
        comparison: Every side's replies and figures.
        judgements: What the judge says of them; empty without one.
        facts: What else there is to know.
        folder: Where report.html, report.json and run.json are.
    """

    comparison: Comparison
    judgements: list[Judgement]
    facts: ReportFacts
    folder: Path


def run_report(settings: ReportSettings) -> Report:
    """Check everything that can be checked, have every approach answer, and write the folder."""
    record = RunRecord("report", settings)
    adapters = _find_adapters(settings)
    name = _shared_base(settings, adapters)
    check_before_loading(settings.base, adapters, name)
    judge = find_judge(settings)
    folder = check_output_folder(resolve_user_path(settings.out), overwrite=settings.overwrite)
    trained = {key: _training_settings(adapter) for key, adapter in zip(adapter_names(adapters), adapters, strict=True)}
    held_out = collect_held_out(settings.own, settings.measure, settings.count, unseen_by=settings.unseen_by)
    approaches = approaches_of(settings, adapters)
    _warn_of_few(held_out)
    seeds = range(settings.seed, settings.seed + settings.seeds)
    asking = Asking(settings.sampling, seeds, settings.scorer)
    with telling_what_is_kept(reuse=settings.base.reuse_replies):
        sides, record.device = _ask_all(settings, name, approaches, held_out, asking)
        comparison = Comparison(held_out, sides, asking.scorer)
        judgements = judge_comparison(comparison, judge)
        facts: ReportFacts = {
            "model": public_name(name),
            "judge": public_name(settings.judge) if settings.judge else None,
            "seeds": list(seeds),
            "sampling": asdict(asking.sampling),
            "sides": {side.name: side.approach.described() for side in sides},
            "training": trained,
        }
        report = Report(comparison, judgements, facts, folder)
        record.metrics = comparison.summary()
        record.data_fingerprint = fingerprint_rows({"prompt": prompt.text} for prompt in held_out.prompts)
        _write(settings, report, record)
    return report


def approaches_of(settings: ReportSettings, adapters: Sequence[Path]) -> list[Approach]:
    """Return what is compared, the base first."""
    system = settings.prompting_system
    found = [Approach(BASE)]
    if settings.prompting:
        found.append(Approach("prompting", system=system))
    if settings.few_shot:
        turns = example_turns(shipped_examples(), settings.few_shot)
        found.append(Approach(f"{settings.few_shot} examples", system=system, examples=turns))
    if settings.best_of:
        found.append(Approach(f"best of {settings.best_of}", system=system, best_of=settings.best_of))
    return [*found, *(Approach(name, path) for name, path in zip(adapter_names(adapters), adapters, strict=True))]


def example_turns(examples: Sequence[Example], count: int) -> list[Message]:
    """Return `count` examples as earlier turns, always the same: emojis where in place, none in a quarter of them."""
    plain = [example for example in examples if len(example.prompt) == 1]
    restrained = [example for example in plain if example.category in OUT_OF_PLACE]
    lively = [
        example
        for example in plain
        if example.category not in (*OUT_OF_PLACE, "asks", "forbids") and contains_emoji(example.reply)
    ]
    dice = random.Random(0)
    quiet = count // 4
    most = next(n for n in range(count, -1, -1) if n // 4 <= len(restrained) and n - n // 4 <= len(lively))
    if most < count:
        raise SettingsError(f"{count}: only {most} examples ship; take that many or fewer", setting="few_shot")
    chosen = [*dice.sample(lively, count - quiet), *dice.sample(restrained, quiet)]
    dice.shuffle(chosen)
    return [
        message
        for example in chosen
        for message in (
            {"role": "user", "content": last_message(example.prompt)},
            {"role": "assistant", "content": example.reply},
        )
    ]


def _find_adapters(settings: ReportSettings) -> list[Path]:
    if settings.adapter:
        found = [resolve_user_path(adapter) for adapter in settings.adapter]
        twice = [str(adapter) for adapter in found if found.count(adapter) > 1]
        if twice:
            raise InputError(f"{twice[0]}: is given twice; name each adapter once", setting="adapter")
        return found
    newest = newest_adapter()
    if newest is None and (settings.prompting or settings.few_shot or settings.best_of):
        return []
    return [newest_trained_adapter()]


def _shared_base(settings: ReportSettings, adapters: Sequence[Path]) -> str:
    """Return the base model's name; InputError where the adapters were trained on different ones."""
    if not adapters:
        return base_model_name(settings.base, None)
    names = {adapter: adapter_base_name(adapter) for adapter in adapters}
    if settings.base.model is not None:
        _tell_other_bases(names, settings.base.model)
        return settings.base.model
    first, *others = adapters
    for other in others:
        if names[other] != names[first]:
            raise InputError(
                f"{other}: was trained on {names[other]}, and {first} on {names[first]}; a report compares adapters of "
                "one base model",
                setting="adapter",
            )
    return names[first]


def _tell_other_bases(names: Mapping[Path, str], given: str) -> None:
    """Say which adapters were trained on another base than the one given: a moved folder, or a mistake."""
    for adapter, name in names.items():
        if name != given:
            console_err.print(
                f"{adapter} was trained on {name} and is measured on {given}, the base model given", soft_wrap=True
            )


def _training_settings(adapter: Path) -> dict[str, object] | None:
    """Return how an adapter was trained; without a record it is measured all the same."""
    try:
        record = read_run_record(adapter)
    except InputError as problem:
        console_err.print(f"{problem}; the report cannot say how it was trained", soft_wrap=True)
        return None
    return {
        key: without_folders(record.get(key)) for key in ("settings", "metrics", "wall_seconds", "finished", "versions")
    }


def _warn_of_few(held_out: HeldOut) -> None:
    few = len(held_out.prompts)
    if 0 < few < FEWEST_PROMPTS:
        console_err.print(
            f"{few} prompts are few: intervals are wide, and nothing is called better; measure at least "
            f"{FEWEST_PROMPTS}",
            soft_wrap=True,
        )


def _ask_all(
    settings: ReportSettings, name: str, approaches: Sequence[Approach], held_out: HeldOut, asking: Asking
) -> tuple[list[Side], str]:
    """Ask every approach; those without an adapter are asked of the first model loaded, its adapter off."""
    total = sum(replies_to_write(approach, held_out, asking) for approach in approaches)
    answered: dict[str, Side] = {}
    device = ""
    with progress_bar("answering", total) as advance:
        adapters = [approach.adapter for approach in approaches if approach.adapter is not None]
        to_load: list[Path | None] = [*adapters] or [None]
        for adapter in to_load:
            model = AnsweringModel(settings.base, name, adapter)
            device = model.device
            for approach in approaches:
                if approach.name not in answered and approach.adapter in (None, adapter):
                    answered[approach.name] = ask(model, approach, held_out, asking, advance)
            del model  # before the next one is loaded
    return [answered[approach.name] for approach in approaches], device


def _write(settings: ReportSettings, report: Report, record: RunRecord) -> None:
    """Write the folder, whole or not at all, and then the cards."""
    content = {
        **report.facts,
        "scorer": report.comparison.scorer,
        "summary": report.comparison.summary(),
        "judgements": [asdict(judgement) for judgement in report.judgements],
        "replies": report.comparison.rows(),
    }
    with new_folder(report.folder, overwrite=settings.overwrite) as temporary:
        text = json.dumps(as_json_value(content), indent=1, ensure_ascii=False)
        write_whole(temporary / REPORT_NAME, text + "\n")
        write_whole(temporary / PAGE_NAME, write_page(report.comparison, report.judgements, report.facts))
        record.write(temporary)
    if settings.update_cards:
        for number, side in enumerate(report.comparison.sides):
            if side.approach.adapter is not None:
                update_card(side.approach.adapter, report.comparison, number)
