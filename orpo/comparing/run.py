"""From the settings of `inference` to a comparison of base and tuned, or to a conversation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orpo.chat_model.adapters import adapter_base_name, check_adapter_folder
from orpo.chat_model.default_model import DEFAULT_MODEL
from orpo.chat_model.loading import locate_model
from orpo.chat_model.options import resolve_device
from orpo.command.display import print_warnings, progress_bar
from orpo.command.errors import InputError, OutputError
from orpo.command.paths import default_training_folder, newest_adapter, resolve_user_path
from orpo.comparing.answering import AnsweringModel
from orpo.comparing.approaches import BASE, TUNED, Approach
from orpo.comparing.comparison import Asking, Comparison, ask, replies_to_write
from orpo.comparing.kept_answers import telling_what_is_kept
from orpo.comparing.settings import BaseModelSettings, InferenceSettings, PromptSource
from orpo.comparing.sides import HeldOut, choose_prompts, prose_texts
from orpo.records.near_duplicates import KnownMessages
from orpo.records.prompts import Prompt, embedded_prompts, read_prompts, standard_prompts
from orpo.records.shipped import WISHES, held_out_wishes, short_questions


@dataclass(frozen=True)
class InferenceResult:
    """What base and tuned answered, and who they are."""

    comparison: Comparison
    facts: dict[str, object]


def run_inference(settings: InferenceSettings) -> InferenceResult | None:
    """Check, load, and compare; None after a conversation."""
    adapter = _find_adapter(settings)
    name = base_model_name(settings.base, adapter)
    check_before_loading(settings.base, [adapter] if adapter else [], name)
    if settings.picture is not None:
        _check_picture(settings.picture)
    if settings.chat:
        from orpo.comparing.chat import TerminalChat

        model = AnsweringModel(settings.base, name, adapter)
        TerminalChat(model.model, model.tokenizer, settings.sampling, seed=settings.seed, system=settings.system).run()
        return None
    held_out = _held_out(settings)
    return _compare(settings, AnsweringModel(settings.base, name, adapter), held_out)


def _compare(settings: InferenceSettings, model: AnsweringModel, held_out: HeldOut) -> InferenceResult:
    asking = Asking(settings.sampling, [settings.seed], settings.scorer)
    approaches = [Approach(BASE), *([Approach(TUNED, model.adapter)] if model.adapter else [])]
    total = sum(replies_to_write(approach, held_out, asking) for approach in approaches)
    with telling_what_is_kept(reuse=settings.base.reuse_replies), progress_bar("answering", total) as advance:
        sides = [ask(model, approach, held_out, asking, advance) for approach in approaches]
    facts: dict[str, object] = {
        "model": model.name,
        "adapter": str(model.adapter) if model.adapter else None,
        "replies_reused": model.reused,
    }
    return InferenceResult(Comparison(held_out, sides, asking.scorer), facts)


def base_model_name(settings: BaseModelSettings, adapter: Path | None) -> str:
    """Return the base model's name: the one given, the adapter's own, or the default one."""
    if settings.model is not None:
        return settings.model
    return DEFAULT_MODEL if adapter is None else adapter_base_name(adapter)


def check_before_loading(settings: BaseModelSettings, adapters: list[Path], model: str) -> None:
    """Find what is wrong with paths and devices before a model is loaded."""
    resolve_device(settings.device)
    for adapter in adapters:
        check_adapter_folder(adapter)
    locate_model(model)


def _held_out(settings: InferenceSettings) -> HeldOut:
    """Return what is to be asked: the user's messages where there are any, and what the settings say."""
    parts = settings.parts()
    if not settings.prompt:
        return collect_held_out(settings.own, parts, settings.answer_count(), system=settings.system)
    others = collect_held_out(settings.own, [part for part in parts if part != "prompts"], 0, system=settings.system)
    # However many: each was asked for by itself.
    prompts = [Prompt(f"prompt-{number}", text) for number, text in enumerate(settings.prompt, start=1)]
    return replace(others, prompts=prompts)


def collect_held_out(
    source: PromptSource,
    parts: Sequence[str],
    count: int,
    *,
    system: str | None = None,
    unseen_by: Sequence[str] = (),
) -> HeldOut:
    """Return what is to be asked: `count` prompts, a file's, unseen or standard ones, and the other parts."""
    prompts: list[Prompt] = []
    if "prompts" in parts:
        prompts = choose_prompts(_unseen_prompts(unseen_by) if unseen_by else _read_prompts(source), count)
    return HeldOut(
        prompts=prompts,
        obedience=held_out_wishes() if "obedience" in parts else [],
        questions=short_questions() if "questions" in parts else [],
        prose=prose_texts() if "prose" in parts else [],
        system=system,
    )


def _unseen_prompts(pairs: Sequence[str]) -> list[Prompt]:
    """Return the shipped prompts that no pair's prompt says, nearly says, or holds, but for wishes."""
    known = KnownMessages(prompt.text for prompt in read_prompts(pairs, setting="unseen_by").prompts)
    shipped = [prompt for prompt in embedded_prompts() if prompt.category not in WISHES]
    unseen = [prompt for prompt in shipped if not (known.is_near(prompt.text) or known.is_held(prompt.text))]
    if not unseen:
        raise InputError(
            f"{', '.join(pairs)}: says every shipped prompt or nearly so; name prompts of your own with `prompts`",
            setting="unseen_by",
        )
    return unseen


def _read_prompts(source: PromptSource) -> list[Prompt]:
    if source.prompts is None:
        return standard_prompts()
    found = read_prompts(
        source.prompts,
        column=source.prompts_column,
        config=source.prompts_config,
        split=source.prompts_split,
        bad_rows=source.bad_rows,
    )
    print_warnings(found.warnings)
    return found.prompts


def _find_adapter(settings: InferenceSettings) -> Path | None:
    if settings.base_only:
        return None
    return resolve_user_path(settings.adapter) if settings.adapter is not None else newest_trained_adapter()


def newest_trained_adapter() -> Path:
    """Return the adapter that was trained last; InputError, with what to do, where there is none."""
    found = newest_adapter()
    if found is None:
        raise InputError(
            f"{default_training_folder()} holds no trained adapter yet; `uv run orpo/train.py` makes one, "
            "`adapter` names another, `base_only` shows the base model alone"
        )
    return found


def _check_picture(file: Path) -> None:
    if file.suffix.lower() != ".svg":
        problem = "the picture is an SVG; use a file name that ends in .svg"
    elif file.exists():
        problem = "exists already; choose another name, or delete it"
    elif not file.absolute().parent.is_dir():
        problem = "there is no such folder; make it first"
    else:
        return
    raise OutputError(f"{file}: {problem}", setting="picture")
