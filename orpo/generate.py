"""Make preference pairs: two writers answer every prompt, one asked for emojis and one for none.

    uv run orpo/generate.py
    uv run orpo/generate.py --prompts my_prompts.csv --limit 100 --out data/mine
    uv run orpo/generate.py --emoji-model openai:NAME --base-url http://127.0.0.1:8000/v1

The reply that the scorer likes better is `chosen`, the other one `rejected`; the clearest pairs stand first. Every
reply is kept from the moment it is written, so the same command goes on where an earlier one was stopped. The key of an
endpoint is read from the environment variable OPENAI_API_KEY.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orpo.chat_model.default_model import DEFAULT_MODEL
from orpo.command.errors import InputError, SettingsError
from orpo.command.paths import default_data_folder
from orpo.command.run_command import run_command
from orpo.command.safe_text import mask_address
from orpo.command.settings import parse_settings, require, setting
from orpo.scoring import DEFAULT_SCORER, SCORERS

if TYPE_CHECKING:
    from orpo.command.run_record import RunRecord
    from orpo.generating.choosing import Dropped
    from orpo.generating.pipeline import WrittenPrompt
    from orpo.generating.writers import WriterSpec, WritingRun
    from orpo.records.pairs import PreferencePair
    from orpo.records.prompts import Prompt

EMOJI_SYSTEM: Final = "You are a friendly assistant. Use one to three fitting emojis in your reply."
PLAIN_SYSTEM: Final = "You are a friendly assistant. Do not use any emojis."
_ENDPOINT: Final = "openai:"


@dataclass(kw_only=True)
class GenerateSettings:
    """The settings of `generate`."""

    prompts: str = setting("embedded", "embedded, a JSONL, CSV, Parquet or text file, or a data set on the Hub")
    prompts_config: str | None = setting(None, "configuration of a Hub data set")
    prompts_split: str = setting("train", "split of a Hub data set")
    prompts_column: str | None = setting(None, "column that holds the prompts; found by its usual names if not given")
    limit: int | None = setting(None, "use only so many prompts, from the start")
    emoji_model: str = setting(DEFAULT_MODEL, "who writes with emojis: a folder, a GGUF file, a Hub id, or openai:NAME")
    plain_model: str = setting(DEFAULT_MODEL, "who writes without: a folder, a GGUF file, a Hub id, or openai:NAME")
    emoji_system: str = setting(
        EMOJI_SYSTEM, "system prompt of the emoji writer, as text or @FILE; '' for none", file_allowed=True
    )
    plain_system: str = setting(
        PLAIN_SYSTEM, "system prompt of the plain writer, as text or @FILE; '' for none", file_allowed=True
    )
    base_url: str | None = setting(None, "address of the OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1")
    emoji_base_url: str | None = setting(None, "the same for the emoji writer alone")
    plain_base_url: str | None = setting(None, "the same for the plain writer alone")
    concurrency: int = setting(8, "calls to an endpoint at the same time")
    timeout_seconds: float = setting(120.0, "how long to wait for one answer of an endpoint")
    retries: int = setting(4, "how often a failed call to an endpoint is repeated, with growing pauses")
    temperature: float = setting(0.4, "0 takes the likeliest token; larger is more varied")
    top_p: float = setting(0.95, "sample from the likeliest tokens that together have this probability")
    top_k: int = setting(0, "sample from this many likeliest tokens; 0 for no limit")
    repetition_penalty: float = setting(1.0, "above 1 makes repetition less likely")
    max_new_tokens: int = setting(80, "the most tokens a reply may have")
    seed: int = setting(0, "decides the replies, together with prompt and model")
    batch_size: int = setting(50, "prompts answered at once by a local model")
    device: str = setting("auto", "auto, cpu, cuda or mps")
    dtype: str = setting("auto", "auto, float32, bfloat16 or float16")
    chat_template: Path | None = setting(None, "Jinja file that replaces the chat template of the local models")
    trust_remote_code: bool = setting(False, "run Python code that comes with a model")
    scorer: str = setting(DEFAULT_SCORER, "which score decides what is chosen", choices=SCORERS)
    min_margin: float = setting(0.1, "drop pairs whose scores differ by less: they teach chance")
    reuse_replies: bool = setting(True, "take replies that an earlier run kept, where they are the same request")
    out: Path | None = setting(None, "folder to write to (default: data/preferences)", short="-o")
    overwrite: bool = setting(False, "replace an earlier result in --out")
    samples: int = setting(3, "how many pairs to show at the end")

    def __post_init__(self) -> None:
        """Check what can be checked before anything is loaded."""
        require(self.limit is None or self.limit >= 1, "--limit", self.limit, "must be at least 1")
        for name in ("concurrency", "batch_size"):
            value = getattr(self, name)
            require(value >= 1, "--" + name.replace("_", "-"), value, "must be at least 1")
        require(self.timeout_seconds > 0, "--timeout-seconds", self.timeout_seconds, "must be above 0")
        require(self.temperature >= 0, "--temperature", self.temperature, "must be 0 (greedy) or above")
        require(0 < self.top_p <= 1, "--top-p", self.top_p, "must be above 0 and at most 1")
        require(self.repetition_penalty > 0, "--repetition-penalty", self.repetition_penalty, "must be above 0")
        require(self.max_new_tokens >= 1, "--max-new-tokens", self.max_new_tokens, "must be at least 1")
        for name in ("retries", "top_k", "min_margin", "samples"):
            value = getattr(self, name)
            require(value >= 0, "--" + name.replace("_", "-"), value, "must be 0 or above")
        for side in ("emoji", "plain"):
            self._check_writer(side)
        if self.base_url is not None and not any(map(self._asks_endpoint, ("emoji", "plain"))):
            raise SettingsError(
                f"--base-url {mask_address(self.base_url)}: is for an endpoint, and no writer is one; give "
                f"--emoji-model {_ENDPOINT}NAME or --plain-model {_ENDPOINT}NAME"
            )

    def _check_writer(self, side: str) -> None:
        model = getattr(self, f"{side}_model")
        url = self.url_of(side)
        own = getattr(self, f"{side}_base_url")
        require(model not in ("", _ENDPOINT), f"--{side}-model", repr(model), "name a model")
        if url is not None and self._asks_endpoint(side):
            flag = f"--{side}-base-url" if own else "--base-url"
            is_web = url.startswith(("http://", "https://"))
            require(is_web, flag, mask_address(url), "must begin with http:// or https://")
        if own is not None and not self._asks_endpoint(side):
            raise SettingsError(
                f"--{side}-base-url {mask_address(own)}: is for an endpoint, so give --{side}-model {_ENDPOINT}NAME"
            )

    def _asks_endpoint(self, side: str) -> bool:
        model: str = getattr(self, f"{side}_model")
        return model.startswith(_ENDPOINT)

    def url_of(self, side: str) -> str | None:
        """Return the endpoint's address of one side."""
        own: str | None = getattr(self, f"{side}_base_url")
        return own or self.base_url


def main(argv: list[str]) -> int:
    """Run the command."""
    settings = parse_settings(GenerateSettings, argv, prog="generate.py", description=__doc__)
    from orpo.command.output_folder import check_output_folder
    from orpo.command.paths import resolve_user_path
    from orpo.command.run_record import RunRecord

    out = resolve_user_path(settings.out) if settings.out is not None else default_data_folder()
    check_output_folder(out, overwrite=settings.overwrite)
    prompts, dropped = _load_prompts(settings)
    record = RunRecord("generate", settings)
    written, run = _write_replies(settings, prompts, out)
    pairs = _make_pairs(settings, written, dropped)
    _save(settings, record, run, out, prompts, written, pairs, dropped)
    return 0


def _load_prompts(settings: GenerateSettings) -> "tuple[list[Prompt], list[Dropped]]":
    """Return the prompts to answer, and those left out beforehand: held-out ones are never trained on."""
    from orpo.command.display import console_err
    from orpo.command.safe_text import printable
    from orpo.generating.choosing import Dropped
    from orpo.records.prompts import EMBEDDED, read_prompts

    found = read_prompts(
        settings.prompts,
        column=settings.prompts_column,
        config=settings.prompts_config,
        split=settings.prompts_split,
        limit=settings.limit,
        for_training=True,
    )
    for warning in found.warnings:
        console_err.print(f"warning: {printable(warning)}", soft_wrap=True)
    # Every training prompt of the shipped set is meant; its held-out ones are not a loss to tell of.
    held_out = [] if settings.prompts == EMBEDDED else [Dropped("held out", prompt) for prompt in found.held_out]
    return found.prompts, held_out + [Dropped("repeated prompt", prompt) for prompt in found.repeated]


def _write_replies(
    settings: GenerateSettings, prompts: "list[Prompt]", out: Path
) -> "tuple[list[WrittenPrompt], WritingRun]":
    """Let both writers answer, with a progress bar."""
    from orpo.command.display import console_err, progress_bar

    console_err.print(f"loading the writers for {len(prompts)} prompts", soft_wrap=True)
    from orpo.generating.local_models import LoadedModels
    from orpo.generating.pipeline import write_replies
    from orpo.generating.reply_store import ReplyStore
    from orpo.generating.writers import WritingRun
    from orpo.records.replies import Sampling

    emoji, plain = _writer(settings, "emoji"), _writer(settings, "plain")
    sampling = Sampling(
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        repetition_penalty=settings.repetition_penalty,
        max_new_tokens=settings.max_new_tokens,
    )
    models = LoadedModels(
        device=settings.device,
        dtype=settings.dtype,
        trust_remote_code=settings.trust_remote_code,
        chat_template=settings.chat_template,
    )
    run = WritingRun(
        store=ReplyStore(reply_store_file(out)),
        models=models,
        sampling=sampling,
        seed=settings.seed,
        batch_size=settings.batch_size,
        concurrency=settings.concurrency,
        timeout_seconds=settings.timeout_seconds,
        retries=settings.retries,
        reuse=settings.reuse_replies,
    )
    try:
        with progress_bar("writing replies", 2 * len(prompts)) as advance:
            run.on_reply = lambda writer, count: advance(count, writer=writer)
            return write_replies(prompts, emoji, plain, run, scorer=settings.scorer), run
    except BaseException as problem:
        if len(run.store):
            how = "the same command goes on from there"
            if not run.reuse:
                how = "new ones took the place of earlier ones; without --no-reuse-replies the same command takes them"
            problem.add_note(f"{len(run.store)} replies are kept in {run.store.file}; {how}")
        raise
    finally:
        run.store.close()


def reply_store_file(out: Path) -> Path:
    """Return where the replies are kept: beside the result, so that replacing the result does not lose them."""
    from orpo.generating.reply_store import STORE_NAME

    return out.parent / f"{out.name}-replies" / STORE_NAME


def _writer(settings: GenerateSettings, side: str) -> "WriterSpec":
    from orpo.chat_model.loading import locate_model
    from orpo.command.errors import ModelError
    from orpo.generating.writers import WriterSpec

    model, system = getattr(settings, f"{side}_model"), getattr(settings, f"{side}_system")
    spec = WriterSpec(side, model, system or None, settings.url_of(side))
    if not spec.is_endpoint:
        try:
            locate_model(model)
        except ModelError as problem:
            raise ModelError(str(problem).replace("--model", f"--{side}-model")) from None
    return spec


def _make_pairs(
    settings: GenerateSettings, written: "list[WrittenPrompt]", dropped: "list[Dropped]"
) -> "list[PreferencePair]":
    """Return the pairs, and add to `dropped` what made none."""
    from orpo.generating.choosing import Dropped, make_pair

    pairs: list[PreferencePair] = []
    for row in written:
        made = make_pair(
            row.prompt,
            row.emoji,
            row.plain,
            emoji_model=_public_name(settings.emoji_model),
            plain_model=_public_name(settings.plain_model),
            source=_public_name(settings.prompts),
            min_margin=settings.min_margin,
        )
        if isinstance(made, Dropped):
            dropped.append(made)
        else:
            pairs.append(made)
    # The clearest first, so that `train.py --limit` takes the best of them; training shuffles them anyway.
    return sorted(pairs, key=lambda pair: pair.rejected_score - pair.chosen_score)


def _public_name(name: str) -> str:
    """Return a model's or file's name without the folders of this machine, since the data may be passed on."""
    path = Path(name).expanduser()
    return path.resolve().name if path.exists() else name


def _save(
    settings: GenerateSettings,
    record: "RunRecord",
    run: "WritingRun",
    out: Path,
    prompts: "list[Prompt]",
    written: "list[WrittenPrompt]",
    pairs: "list[PreferencePair]",
    dropped: "list[Dropped]",
) -> None:
    """Write the folder, whole or not at all, and print what came out."""
    import json

    from orpo.command.output_folder import new_folder
    from orpo.command.run_record import fingerprint_rows, settings_as_plain
    from orpo.generating.card import write_card
    from orpo.generating.choosing import count_reasons, measure_side, spread
    from orpo.records.pairs import write_pairs

    reasons = count_reasons(dropped)
    if not pairs:
        why = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
        raise InputError(f"no pair came out of {len(prompts)} prompts ({why}); see the replies with other settings")
    sides = {
        "chosen": measure_side([p.chosen[0]["content"] for p in pairs], [p.chosen_score for p in pairs]),
        "rejected": measure_side([p.rejected[0]["content"] for p in pairs], [p.rejected_score for p in pairs]),
    }
    for name in ("emoji", "plain"):
        replies = [reply for row in written if not (reply := getattr(row, name)).failure]
        sides[f"{name} writer"] = measure_side([r.text for r in replies], [r.score for r in replies])
    record.metrics = {"prompts": len(prompts), "pairs": len(pairs), "dropped": reasons, "sides": sides}
    record.facts = {"replies_reused": run.reused, "reply_store": str(run.store.file)}
    record.device = str(run.models.device)
    record.data_fingerprint = fingerprint_rows(pair.as_row() for pair in pairs)
    names = {f"{side}_model": _public_name(getattr(settings, f"{side}_model")) for side in ("emoji", "plain")}
    card = write_card(pairs, settings_as_plain(settings) | names, record.metrics, sides, reasons)
    with new_folder(out, overwrite=settings.overwrite) as folder:
        write_pairs(folder, pairs, card=card)
        with (folder / "dropped.jsonl").open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(entry.as_row(), ensure_ascii=False) + "\n" for entry in dropped)
        record.write(folder)
    _print_result(out, record.metrics, spread(pairs, settings.samples))


def _print_result(out: Path, metrics: dict[str, Any], samples: "list[PreferencePair]") -> None:
    from orpo.command.display import console_out, print_table
    from orpo.command.safe_text import printable

    counts = [["prompts", metrics["prompts"]], ["pairs", metrics["pairs"]]]
    counts += [[f"dropped: {reason}", count] for reason, count in metrics["dropped"].items()]
    print_table(["preference pairs", "count"], counts)
    columns = ["means per reply", "with an emoji", "emojis", "score", "words", "most words"]
    rows = [
        [name, f"{side['emoji_rate']:.1%}", round(side["mean_emojis"], 2), round(side["mean_score"], 2),
         round(side["mean_words"], 1), side["max_words"]]
        for name, side in metrics["sides"].items()
    ]  # fmt: skip
    print_table(columns, rows)
    for pair in samples:
        chosen, rejected = pair.chosen[0]["content"], pair.rejected[0]["content"]
        console_out.print(f"\nprompt    {printable(pair.prompt[-1]['content'])}", soft_wrap=True)
        console_out.print(f"chosen    {pair.chosen_score:.2f}  {printable(chosen)}", soft_wrap=True)
        console_out.print(f"rejected  {pair.rejected_score:.2f}  {printable(rejected)}", soft_wrap=True)
    console_out.print(f"\n{metrics['pairs']} pairs are in {out}", soft_wrap=True)


if __name__ == "__main__":
    run_command(main)
