"""Show what the tuned model answers, beside the base model: on held-out prompts, on your own, or in a conversation.

    uv run orpo/inference.py                              base and tuned on 8 held-out prompts
    uv run orpo/inference.py --summary                    measured on 100 of them, with perplexity
    uv run orpo/inference.py --prompt "I got the job!"    your own message
    uv run orpo/inference.py --chat                       a conversation

The newest trained adapter is taken unless --adapter names one. Nothing is written unless --report names a folder.
Results go to stdout, progress to stderr.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orpo.command.errors import InputError, SettingsError
from orpo.command.run_command import run_command
from orpo.command.settings import parse_settings, require, setting
from orpo.scoring import DEFAULT_SCORER, SCORERS

if TYPE_CHECKING:
    from orpo.comparing.comparison import Comparison
    from orpo.records.prompts import Prompt
    from orpo.records.replies import Sampling


@dataclass(kw_only=True)
class InferenceSettings:
    """What `inference` can be told."""

    prompt: list[str] = setting([], "messages to answer, each in quotes", short="-p")
    prompts: str | None = setting(None, "answer the prompts of a file (JSONL, CSV, Parquet, text) or Hub data set")
    prompts_config: str | None = setting(None, "configuration of a Hub data set")
    prompts_split: str = setting("train", "split of a Hub data set, or of a folder that `datasets` saved")
    prompts_column: str | None = setting(None, "the column of --prompts that holds them")
    chat: bool = setting(False, "talk with the tuned model")
    summary: bool = setting(False, "measure --measure prompts, and perplexity, instead of only those shown")
    count: int | None = setting(
        None, "prompts to show side by side, 0 for all that are answered (default: 8, or all of --prompts)"
    )
    measure: int | None = setting(
        None, "prompts that --summary measures, those shown at least, 0 for all (default: 100, or all of --prompts)"
    )
    json: bool = setting(False, "print JSON lines: one for each prompt, then the summary")
    report: Path | None = setting(None, "write report.json, a picture and run.json to this new folder")
    overwrite: bool = setting(False, "replace an earlier report")

    adapter: Path | None = setting(None, "folder of the adapter; the newest one in trained/ if not given")
    model: str | None = setting(None, "base model: a folder, a GGUF file or a Hub id; the adapter's own if not given")
    base_only: bool = setting(False, "load no adapter and show the base model alone")
    system: str | None = setting(None, "system prompt for every conversation, as text or @FILE", file_allowed=True)
    chat_template: Path | None = setting(None, "Jinja file that replaces the tokenizer's chat template")
    trust_remote_code: bool = setting(False, "run Python code that comes with the model")

    temperature: float = setting(0.4, "0 takes the likeliest token; higher is more varied")
    top_p: float = setting(0.95, "sample from the likeliest tokens that together have this probability")
    top_k: int = setting(0, "sample from so many likeliest tokens; 0 for no limit")
    repetition_penalty: float = setting(1.0, "above 1 makes words that the reply already holds less likely")
    max_new_tokens: int = setting(80, "longest reply in tokens")
    seed: int = setting(0, "the same seed gives the same replies")
    scorer: str = setting(DEFAULT_SCORER, "the score of the replies", choices=SCORERS)
    batch_size: int = setting(16, "prompts at once; changes the speed, not the replies")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps")
    dtype: str = setting("auto", "number format of the weights", choices=["auto", "float32", "bfloat16", "float16"])

    def __post_init__(self) -> None:
        """Check ranges and which flags go together."""
        require(self.count is None or self.count >= 0, "--count", self.count, "must be 0 (all) or above")
        require(self.measure is None or self.measure >= 0, "--measure", self.measure, "must be 0 (all) or above")
        require(self.batch_size >= 1, "--batch-size", self.batch_size, "must be at least 1")
        require(all(text.strip() for text in self.prompt), "--prompt", "''", "is empty; give a message in quotes")
        modes = [
            flag
            for flag, given in [("--prompt", self.prompt), ("--prompts", self.prompts), ("--chat", self.chat)]
            if given
        ]
        if len(modes) > 1:
            raise SettingsError(f"{' and '.join(modes)} do not go together; give one of them")
        if self.chat and (self.json or self.report or self.summary):
            raise SettingsError("--chat does not go together with --json, --report or --summary")
        if self.base_only and self.adapter:
            raise SettingsError("--base-only loads no adapter, so --adapter does not go with it; give one of them")

    def show_count(self) -> int:
        """Return how many prompts to show; 0 for all."""
        if self.count is not None:
            return self.count
        return 0 if self.prompt or (self.prompts and not self.summary) else 8

    def answer_count(self) -> int:
        """Return how many prompts to answer; 0 for all."""
        if not self.summary:
            return self.show_count()
        measure = (0 if self.prompts else 100) if self.measure is None else self.measure
        return max(measure, self.show_count()) if measure else 0


def main(argv: list[str]) -> int:
    """Parse, load, answer, show."""
    settings = parse_settings(InferenceSettings, argv, prog="inference.py", description=__doc__)
    adapter = _find_adapter(settings)
    _check_before_loading(settings, adapter)

    from orpo.command.run_record import RunRecord

    record = RunRecord("inference", settings)
    sampling = _sampling(settings)
    prompts = [] if settings.chat else _collect_prompts(settings)
    model, tokenizer = _load(settings, adapter)
    facts = {"adapter": str(adapter) if adapter else None, "model": _model_name(settings, adapter)}
    if settings.chat:
        from orpo.comparing.chat import TerminalChat

        TerminalChat(model, tokenizer, sampling, seed=settings.seed, system=settings.system).run()
        return 0
    comparison = _compare(settings, model, tokenizer, prompts, sampling)
    _show(settings, comparison, facts)
    if settings.report is not None:
        record.device = str(next(model.parameters()).device)
        _write_report(settings, settings.report, record, comparison, facts)
    return 0


def _find_adapter(settings: InferenceSettings) -> Path | None:
    from orpo.command.paths import default_training_folder, newest_adapter, resolve_user_path

    if settings.base_only:
        return None
    if settings.adapter is not None:
        return resolve_user_path(settings.adapter)
    found = newest_adapter()
    if found is None:
        raise InputError(
            f"{default_training_folder()} holds no trained adapter yet; `uv run orpo/train.py` makes one, "
            "--adapter names another, --base-only shows the base model alone"
        )
    return found


def _check_before_loading(settings: InferenceSettings, adapter: Path | None) -> None:
    """Find what is wrong with paths before a model is loaded."""
    if settings.report is not None:
        from orpo.command.output_folder import check_output_folder

        check_output_folder(settings.report, overwrite=settings.overwrite)
    from orpo.chat_model.adapters import check_adapter_folder
    from orpo.chat_model.loading import locate_model
    from orpo.chat_model.options import resolve_device

    resolve_device(settings.device)
    if adapter is not None:
        check_adapter_folder(adapter)
    locate_model(_model_name(settings, adapter))


def _model_name(settings: InferenceSettings, adapter: Path | None) -> str:
    from orpo.chat_model.adapters import adapter_base_name
    from orpo.chat_model.default_model import DEFAULT_MODEL

    if settings.model is not None:
        return settings.model
    return DEFAULT_MODEL if adapter is None else adapter_base_name(adapter)


def _sampling(settings: InferenceSettings) -> Sampling:
    from orpo.records.replies import Sampling

    return Sampling(
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        repetition_penalty=settings.repetition_penalty,
        max_new_tokens=settings.max_new_tokens,
    )


def _collect_prompts(settings: InferenceSettings) -> list[Prompt]:
    """Return what is to be answered: the user's messages, their file, or held-out prompts of the embedded set."""
    from orpo.comparing.comparison import choose_prompts
    from orpo.records.prompts import Prompt, embedded_prompts, read_prompts

    if settings.prompt:  # however many: each was asked for by itself
        return [Prompt(f"prompt-{number}", text) for number, text in enumerate(settings.prompt, start=1)]
    if settings.prompts is None:
        found = embedded_prompts("held_out")
    else:
        found = read_prompts(
            settings.prompts,
            column=settings.prompts_column,
            config=settings.prompts_config,
            split=settings.prompts_split,
        ).prompts
    return choose_prompts(found, settings.answer_count())


def _load(settings: InferenceSettings, adapter: Path | None) -> tuple[Any, Any]:
    from orpo.chat_model.adapters import load_with_adapter
    from orpo.chat_model.loading import load_model, load_tokenizer
    from orpo.command.display import console_err

    name = _model_name(settings, adapter)
    console_err.print(f"loading {name}" + (f" with {adapter}" if adapter else ""), soft_wrap=True)
    if adapter is not None:
        return load_with_adapter(
            settings.model,
            adapter,
            device=settings.device,
            dtype=settings.dtype,
            trust_remote_code=settings.trust_remote_code,
            chat_template=settings.chat_template,
        )
    remote = settings.trust_remote_code
    tokenizer = load_tokenizer(name, trust_remote_code=remote, chat_template=settings.chat_template)
    return load_model(name, device=settings.device, dtype=settings.dtype, trust_remote_code=remote), tokenizer


def _compare(
    settings: InferenceSettings, model: Any, tokenizer: Any, prompts: list[Prompt], sampling: Sampling
) -> Comparison:
    from orpo.command.display import progress_bar
    from orpo.comparing.comparison import compare, plain_texts

    sides = 2 if hasattr(model, "disable_adapter") else 1
    with progress_bar("answering", sides * len(prompts)) as advance:
        return compare(
            model,
            tokenizer,
            prompts,
            sampling,
            seed=settings.seed,
            batch_size=settings.batch_size,
            system=settings.system,
            texts=plain_texts() if settings.summary or settings.report else (),
            scorer=settings.scorer,
            on_batch=advance,
        )


def _show(settings: InferenceSettings, comparison: Comparison, facts: dict[str, Any]) -> None:
    if settings.json:
        for row in comparison.rows():
            print(json.dumps(row, ensure_ascii=False))
        print(json.dumps({"summary": comparison.summary(), **facts}, ensure_ascii=False))
        return
    from orpo.comparing.report import print_side_by_side, print_summary

    print_side_by_side(comparison, settings.show_count() or len(comparison.prompts))
    print_summary(comparison)


def _write_report(
    settings: InferenceSettings, folder: Path, record: Any, comparison: Comparison, facts: dict[str, Any]
) -> None:
    from orpo.command.display import console_err
    from orpo.command.output_folder import new_folder
    from orpo.command.run_record import fingerprint_rows
    from orpo.comparing.report import write_report

    record.metrics = comparison.summary()
    record.facts = facts
    record.data_fingerprint = fingerprint_rows({"prompt": prompt.text} for prompt in comparison.prompts)
    with new_folder(folder, overwrite=settings.overwrite) as temporary:
        write_report(temporary, comparison, facts)
        record.write(temporary)
    console_err.print(f"report: {folder}", soft_wrap=True)


if __name__ == "__main__":
    run_command(main)
