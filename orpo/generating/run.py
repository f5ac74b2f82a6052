"""One run of `generate`, top to bottom: prompts, the writers' replies, their scores, pairs, and the folder."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from orpo.chat_model.loading import locate_model
from orpo.command.display import print_warnings, progress_bar
from orpo.command.errors import InputError
from orpo.command.output_folder import check_output_folder, new_folder
from orpo.command.paths import public_name
from orpo.command.run_record import RunRecord, fingerprint_rows
from orpo.command.signals import CleaningUp, count_writing
from orpo.generating.card import make_card
from orpo.generating.choosing import PairMaker
from orpo.generating.correcting import better_and_worse
from orpo.generating.example_pairs import as_written, choose_examples
from orpo.generating.examples import ExampleTurns, read_examples
from orpo.generating.local_models import LoadedModels, naming_writer
from orpo.generating.mix import stream
from orpo.generating.obedience import put_wishes
from orpo.generating.palette import choose_palette
from orpo.generating.placing import place, strip
from orpo.generating.reply_store import STORE_NAME, ReplyStore
from orpo.generating.result import (
    GenerationMetrics,
    GenerationResult,
    count_kinds,
    count_reasons,
    measure_sides,
    spread,
)
from orpo.generating.settings import PLACE, GenerateSettings, Side, WriterSpec
from orpo.generating.situations import find_situation
from orpo.generating.stored_writer import Answer, Failed, WritingRun
from orpo.generating.writers import write_replies
from orpo.generating.written import Dropped, WrittenPrompt, WrittenReply, best_reply, rewritten, scored_reply
from orpo.records.messages import last_message
from orpo.records.pairs import PreferencePair, write_pairs
from orpo.records.prompts import EMBEDDED, GRAVE, Prompt, read_prompts
from orpo.records.replies import Reply
from orpo.records.rows import BadRow
from orpo.records.shipped import Example, shipped_examples
from orpo.scoring import contains_emoji


def generate(settings: GenerateSettings) -> GenerationResult:
    """Make preference pairs and write their folder, whole or not at all."""
    out = settings.out_folder()
    check_output_folder(out, overwrite=settings.overwrite)
    settings.cluster.check_installed()
    record = RunRecord("generate", settings)
    writers = settings.writers()
    prompts, dropped = choose_prompts(settings)
    examples = _read_examples(settings)
    for spec in writers:  # last, since it may convert a model
        _check_writer(spec)
    with _writing(settings, examples, out) as run:
        pairs, metrics, palette = _write_and_choose(run, settings, prompts, writers, examples, dropped)
        record.metrics = dict(metrics)
        record.facts = {"replies_reused": run.reused, "reply_store": str(run.store.file)}
        record.facts["palette"] = "all" if palette is None else " ".join(palette)
        record.device = f"ray {settings.cluster.ray}" if settings.cluster.ray else str(run.models.device)
        record.data_fingerprint = fingerprint_rows(pair.as_row() for pair in pairs)
        with new_folder(out, overwrite=settings.overwrite) as folder:
            write_pairs(folder, pairs, card=make_card(pairs, metrics, writers, settings.scorer))
            with (folder / "dropped.jsonl").open("w", encoding="utf-8") as lines:
                lines.writelines(json.dumps(entry.as_row(), ensure_ascii=False) + "\n" for entry in dropped)
            record.write(folder)
    return GenerationResult(out, metrics, spread(pairs, settings.samples))


def _write_and_choose(
    run: WritingRun,
    settings: GenerateSettings,
    prompts: Sequence[Prompt],
    writers: Sequence[WriterSpec],
    examples: Sequence[Example],
    dropped: list[Dropped],
) -> tuple[list[PreferencePair], GenerationMetrics, tuple[str, ...] | None]:
    """Return the pairs, what there is to count, and the emojis to place; add to `dropped` what made no pair."""
    replies = sum(not spec.is_derived for spec in writers) * len(prompts) * settings.candidates
    with progress_bar("writing replies", replies) as advance:
        run.on_reply = lambda writer, count: advance(count, writer=writer)
        answers = write_replies(prompts, writers, run)
    for_pairs = choose_examples(
        examples, settings.example_pair_count(), puts_wishes=bool(settings.shares().get("obedience"))
    )
    palette = _find_palette(prompts, answers, for_pairs, settings)
    written = score_replies(
        prompts,
        writers,
        answers,
        scorer=settings.scorer,
        seed=settings.seed,
        min_margin=settings.min_margin,
        palette=palette,
    )
    written_examples = as_written(for_pairs, scorer=settings.scorer, palette=palette)
    pairs = _make_pairs(written, written_examples, settings, palette, dropped)
    metrics: GenerationMetrics = {
        "prompts": len(prompts),
        "examples": len(written_examples),
        "pairs": len(pairs),
        "kinds": count_kinds(pairs),
        "dropped": count_reasons(dropped),
        "sides": measure_sides(pairs, written),
    }
    return pairs, metrics, palette


def choose_prompts(settings: GenerateSettings) -> tuple[list[Prompt], list[Dropped]]:
    """Return the prompts to answer, and those left out beforehand: held-out ones are never trained on."""
    found = read_prompts(
        settings.prompts,
        column=settings.prompts_column,
        config=settings.prompts_config,
        split=settings.prompts_split,
        limit=settings.limit,
        for_training=True,
        bad_rows=settings.bad_rows,
    )
    print_warnings(found.warnings)
    # Every training prompt of the shipped set is meant; its held-out ones are not a loss to tell of.
    held_out = [] if settings.prompts == EMBEDDED else [Dropped("held out", prompt) for prompt in found.held_out]
    dropped = _as_dropped(found.left_out) + held_out + [Dropped("repeated prompt", prompt) for prompt in found.repeated]
    prompts = found.prompts
    if settings.from_adapter is not None:
        return put_wishes(prompts, settings.shares(), settings.seed, settings.scorer), dropped
    if settings.prompts == EMBEDDED and settings.example_pair_count() > 0:
        # What a small model says to somebody in grief is not to be learnt; the examples hold good answers.
        dropped += [Dropped("left to the examples", prompt) for prompt in prompts if prompt.category in GRAVE]
        prompts = [prompt for prompt in prompts if prompt.category not in GRAVE]
    return prompts, dropped


def _as_dropped(rows: Sequence[BadRow]) -> list[Dropped]:
    """Return rows that could not be read as prompts; the file is named without the folders of this machine."""
    return [
        Dropped(row.what, Prompt(f"{Path(row.place.file).name} {row.place.unit} {row.place.number}", ""))
        for row in rows
    ]


def score_replies(
    prompts: Sequence[Prompt],
    writers: Sequence[WriterSpec],
    answers: Mapping[Side, list[list[Answer]]],
    *,
    scorer: str,
    seed: int = 0,
    min_margin: float = 0.0,
    palette: tuple[str, ...] | None = None,
) -> list[WrittenPrompt]:
    """Score what was written, derive what is placed or stripped, and pick the best of each writer's candidates."""
    written: list[WrittenPrompt] = []
    for number, prompt in enumerate(prompts):
        sides: dict[str, list[WrittenReply]] = {}
        for spec in writers:
            if not spec.is_derived:
                name = public_name(str(spec.adapter or spec.model))
                sides[spec.side] = [
                    _scored(prompt, answer, spec.side, name, scorer) for answer in answers[spec.side][number]
                ]
        for spec in writers:
            if spec.is_derived:
                source = sides["plain" if spec.side == "emoji" else "emoji"]
                sides[spec.side] = [_derived(prompt, reply, spec.model, scorer, seed, palette) for reply in source]
        if "tuned" in sides:
            chosen = better_and_worse(
                prompt, sides["tuned"], scorer=scorer, seed=seed, min_margin=min_margin, palette=palette
            )
        else:
            chosen = _pick(sides, writers)
        written.append(WrittenPrompt(prompt, *chosen))
    return written


def _pick(sides: Mapping[str, list[WrittenReply]], writers: Sequence[WriterSpec]) -> tuple[WrittenReply, WrittenReply]:
    """Return the best candidate of each writer; a derived reply stays with its twin."""
    best = best_reply(sides["emoji"])
    if any(spec.is_derived for spec in writers):
        return best, sides["plain"][next(n for n, reply in enumerate(sides["emoji"]) if reply is best)]
    return best, best_reply(sides["plain"])


def _scored(prompt: Prompt, answer: Answer, writer: str, model: str, scorer: str) -> WrittenReply:
    if isinstance(answer, Failed):
        return scored_reply(prompt, Reply("", False, 0), writer, model, scorer, answer.reason)
    return scored_reply(prompt, answer, writer, model, scorer)


def _derived(
    prompt: Prompt, source: WrittenReply, how: str, scorer: str, seed: int, palette: tuple[str, ...] | None
) -> WrittenReply:
    if source.failure or not source.text.strip():
        return source
    if how == PLACE:
        text = place(source.text, prompt, scorer=scorer, rng=stream(seed, prompt.prompt_id, PLACE), palette=palette)
    else:
        text = strip(source.text)
    return rewritten(source, text, prompt, scorer, model=f"{source.model}+{how}")


def _make_pairs(
    written: Sequence[WrittenPrompt],
    examples: Sequence[WrittenPrompt],
    settings: GenerateSettings,
    palette: tuple[str, ...] | None,
    dropped: list[Dropped],
) -> list[PreferencePair]:
    """Return the pairs, and add to `dropped` what made none."""
    maker = PairMaker(
        scorer=settings.scorer,
        mix=settings.shares(),
        min_margin=settings.min_margin,
        seed=settings.seed,
        source=public_name(settings.prompts),
        palette=palette,
        own_words_only=settings.from_adapter is not None,
    )
    of_examples = replace(maker, source="examples", own_words_only=False)
    made = [one for of, rows in ((maker, written), (of_examples, examples)) for row in rows for one in of.make(row)]
    dropped += [row for row in made if isinstance(row, Dropped)]
    pairs = [row for row in made if isinstance(row, PreferencePair)]
    if not pairs:
        why = ", ".join(f"{reason} {count}" for reason, count in count_reasons(dropped).items())
        raise InputError(f"no pair came out of {len(written)} prompts ({why}); see the replies with other settings")
    # The clearest first, so that a limit takes the best of them; training shuffles them anyway.
    return sorted(pairs, key=lambda pair: pair.rejected_score - pair.chosen_score)


def _read_examples(settings: GenerateSettings) -> list[Example]:
    """Return the examples that writers are shown and pairs are made of; none where neither can be."""
    if not settings.uses_examples():
        return []
    if settings.example.examples_file is not None:
        return read_examples(settings.example.examples_file)
    return shipped_examples()


def _find_palette(
    prompts: Sequence[Prompt],
    answers: Mapping[Side, list[list[Answer]]],
    examples: Sequence[Example],
    settings: GenerateSettings,
) -> tuple[str, ...] | None:
    """Return the emojis that are to be placed, as the user names them or as serve the replies best; None for all."""
    size = settings.palette_size()
    if not isinstance(size, int):
        return size
    if size == 0:
        return None
    replies = [
        (answer.text, last_message(prompt.conversation()))
        for side in answers.values()
        for prompt, tries in zip(prompts, side, strict=True)
        for answer in tries[:1]
        if isinstance(answer, Reply) and find_situation(prompt, answer.text, settings.scorer) == "in place"
    ]
    replies += [(example.reply, last_message(example.prompt)) for example in examples if contains_emoji(example.reply)]
    return choose_palette(replies, size)


def _check_writer(spec: WriterSpec) -> None:
    """Find out now that a model is not there, and not after the other one has written for an hour."""
    if spec.is_endpoint or spec.is_derived:
        return
    with naming_writer(spec.side, spec.adapter):
        locate_model(spec.model)


@contextmanager
def _writing(settings: GenerateSettings, examples: Sequence[Example], out: Path) -> Iterator[WritingRun]:
    """Yield what the writers share; after an exception the user learns that the replies are kept."""
    turns = (
        ExampleTurns(examples, choice=settings.example.examples_choice, scorer=settings.scorer) if examples else None
    )
    run = WritingRun(
        store=ReplyStore(reply_store_file(out)),
        models=LoadedModels(settings.local),
        sampling=settings.sampling,
        seed=settings.seed,
        candidates=settings.candidates,
        local=settings.local,
        cluster=settings.cluster,
        concurrency=settings.endpoint.concurrency,
        endpoint=settings.endpoint.options(),
        reuse=settings.reuse_replies,
        examples=turns,
        example_count=settings.example.examples,
    )
    count_writing(1)
    try:
        yield run
    except BaseException as problem:
        with CleaningUp():
            if count := run.store.count():
                how = "the same command goes on from there"
                if not run.reuse:
                    how = "new ones took the place of earlier ones; with `reuse_replies` the same command takes them"
                problem.add_note(f"{count} replies are kept in {run.store.file}; {how}")
        raise
    finally:
        count_writing(-1)
        run.store.close()


def reply_store_file(out: Path) -> Path:
    """Return where the replies are kept: beside the result, so that replacing the result does not lose them."""
    return out.parent / f"{out.name}-replies" / STORE_NAME
