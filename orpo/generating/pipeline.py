"""The distilabel pipeline: prompts, two writers, and the scores of what they wrote.

load_prompts ──┬── emoji_writer ──┬── score_replies
               └── plain_writer ──┘
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from distilabel.steps import GeneratorStep, Step, StepInput
from distilabel.steps.tasks import TextGeneration
from pydantic import PrivateAttr

from orpo.generating.thread_pipeline import ThreadPipeline
from orpo.generating.writers import WriterSpec, WritingRun, make_llm
from orpo.records.messages import system_message, with_system
from orpo.records.prompts import Prompt
from orpo.scoring import get_scorer

Row = dict[str, Any]

SMALLEST_STEP_BATCH: Final = 50  # distilabel spends about as much on a batch of 10 as on one of 50


@dataclass(frozen=True)
class WrittenReply:
    """What one writer made of one prompt.

    Attributes:
        text: The reply; empty when the call failed.
        score: What the scorer says of it.
        finished: Whether the model ended it.
        failure: Why there is no reply; empty when there is one.
    """

    text: str
    score: float
    finished: bool = True
    failure: str = ""


@dataclass(frozen=True)
class WrittenPrompt:
    """A prompt with the replies of both writers."""

    prompt: Prompt
    emoji: WrittenReply
    plain: WrittenReply


class LoadPrompts(GeneratorStep):  # type: ignore[misc]
    """Hands out the prompts in batches.

    They are kept outside the step's fields, since distilabel serialises those for every signature that it computes.
    """

    _prompts: "_Shared" = PrivateAttr()

    @property
    def outputs(self) -> list[str]:
        """Return the columns of a prompt."""
        return ["prompt_id", "instruction", "system", "messages"]

    def process(self, offset: int = 0) -> Iterator[tuple[list[Row], bool]]:
        """Yield batches of rows, and whether a batch is the last."""
        prompts: Sequence[Prompt] = self._prompts.value
        for start in range(offset, len(prompts), self.batch_size):
            batch = prompts[start : start + self.batch_size]
            rows = [
                {
                    "prompt_id": prompt.prompt_id,
                    "instruction": prompt.text,
                    "system": system_message(prompt.conversation()),
                    "messages": prompt.conversation(),
                }
                for prompt in batch
            ]
            yield rows, start + self.batch_size >= len(prompts)


class WriteReplies(TextGeneration):  # type: ignore[misc]
    """distilabel's TextGeneration over whole conversations, with the writer's own system prompt."""

    @property
    def inputs(self) -> list[str]:
        """Return the columns it reads."""
        return ["instruction", "messages"]

    def format_input(self, input: Row) -> list[dict[str, str]]:
        """Return the conversation that the writer's model sees."""
        return with_system(self.system_prompt, input["messages"])


class ScoreReplies(Step):  # type: ignore[misc]
    """Joins the two writers' rows by prompt and scores both replies."""

    scorer: str

    @property
    def inputs(self) -> list[str]:
        """Return the columns that both writers hand on."""
        return ["prompt_id", "instruction", "system"]

    @property
    def outputs(self) -> list[str]:
        """Return the columns of a row that is done."""
        return ["prompt_id", "emoji", "plain"]

    def process(self, *inputs: StepInput) -> Iterator[list[Row]]:
        """Yield one row for each prompt, with both replies and their scores."""
        scorer = get_scorer(self.scorer)
        sides = [{row["prompt_id"]: row for row in rows} for rows in inputs]
        if any(side.keys() != sides[0].keys() for side in sides):
            raise RuntimeError("the writers' batches hold different prompts")
        done: list[Row] = []
        for prompt_id in sides[0]:
            joined: Row = {}
            for side in sides:
                joined |= side[prompt_id]
            row: Row = {"prompt_id": prompt_id}
            for name in ("emoji", "plain"):
                text = joined[f"{name}_reply"]
                row[name] = WrittenReply(
                    text,
                    scorer.score(text, joined["instruction"], system=joined["system"]),
                    joined[f"llm_{name}_writer_finished"],
                    joined[f"llm_{name}_writer_failure"],
                )
            done.append(row)
        yield done


class _Shared:
    """A value that distilabel's deep copies of a step hand on as it is."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Shared":
        return self


def write_replies(
    prompts: Sequence[Prompt], emoji_writer: WriterSpec, plain_writer: WriterSpec, run: WritingRun, *, scorer: str
) -> list[WrittenPrompt]:
    """Let both writers answer every prompt and score what they wrote; the order is that of the prompts.

    Every answer is in the run's store from the moment it exists, so after an exception of any kind, or a kill, the same
    call goes on where it ended.
    """
    by_id = {prompt.prompt_id: prompt for prompt in prompts}
    if len(by_id) < len(prompts):
        raise ValueError("prompt ids must be unique")
    size = max(SMALLEST_STEP_BATCH, run.batch_size)
    pipeline = ThreadPipeline("preferences", stop=run.stop)
    with pipeline:
        load = LoadPrompts(name="load_prompts", batch_size=size)
        load._prompts = _Shared(prompts)
        writers = [
            WriteReplies(
                name=f"{spec.name}_writer",
                llm=make_llm(spec, run),
                system_prompt=spec.system or None,
                input_batch_size=size,
                output_mappings={"generation": f"{spec.name}_reply", "model_name": f"{spec.name}_model"},
                add_raw_input=False,
                add_raw_output=False,
            )
            for spec in (emoji_writer, plain_writer)
        ]
        score = ScoreReplies(name="score_replies", scorer=scorer, input_batch_size=size)
        load >> writers >> score
    rows = {row["prompt_id"]: row for row in pipeline.run_rows()}
    if rows.keys() != by_id.keys():
        raise RuntimeError(f"distilabel returned {len(rows)} of {len(by_id)} prompts")
    return [WrittenPrompt(prompt, rows[key]["emoji"], rows[key]["plain"]) for key, prompt in by_id.items()]
