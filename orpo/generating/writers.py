"""Prompts in, replies out: distilabel's TextGeneration task for each writer, in a thread of its own.

distilabel's pipeline is not used: it starts a process for each step, loses rows at Ctrl-C, and serialises its whole
graph after every batch. The task itself formats, asks and collects, and a failed call stays visible in its columns.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from distilabel.steps.tasks import TextGeneration

from orpo.generating.endpoint_writer import EndpointLLM
from orpo.generating.local_writer import LocalLLM
from orpo.generating.settings import Side, WriterSpec
from orpo.generating.stored_writer import THREAD_NAMES, Answer, Failed, StoredLLM, WritingRun
from orpo.records.messages import Message
from orpo.records.prompts import Prompt
from orpo.records.replies import Reply

_POLL_SECONDS: Final = 0.1
_PATIENCE_SECONDS: Final = 10.0


class WriteReplies(TextGeneration):  # type: ignore[misc]
    """distilabel's TextGeneration over whole conversations, as the writer's model is to see them."""

    @property
    def inputs(self) -> list[str]:
        """Return the columns it reads."""
        return ["instruction", "messages"]

    def format_input(self, input: dict[str, object]) -> list[Message]:
        """Return the conversation that the model sees."""
        shown: list[Message] = self.llm.conversation(input["messages"])
        return shown


def write_replies(
    prompts: Sequence[Prompt], writers: Sequence[WriterSpec], run: WritingRun
) -> dict[Side, list[list[Answer]]]:
    """Let every writer answer every prompt, `run.candidates` times; the order is that of the prompts.

    Every answer is in the run's store from the moment it exists, so after an exception of any kind, or a kill, the same
    call goes on where it ended.
    """
    if len({prompt.prompt_id for prompt in prompts}) < len(prompts):
        raise ValueError("prompt ids must be unique")
    answers: dict[Side, list[list[Answer]]] = {}
    problems: list[BaseException] = []

    def write(spec: WriterSpec) -> None:
        try:
            answers[spec.side] = _write_side(prompts, spec, run)
        except BaseException as problem:
            problems.append(problem)
            run.stop.set()  # the other writer need not go on

    threads = [
        threading.Thread(target=write, args=(spec,), daemon=True, name=f"{THREAD_NAMES} {spec.side} writer")
        for spec in writers
        if not spec.is_derived
    ]
    with _quiet_distilabel():
        _run_all(threads, run)
    if problems:
        raise problems[0]
    return answers


def _run_all(threads: Sequence[threading.Thread], run: WritingRun) -> None:
    """Start the threads and wait in short steps, since a thread that waits for a lock does not notice Ctrl-C."""
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(_POLL_SECONDS)
    except BaseException:
        run.stop.set()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        for thread in threads:  # those stuck in a long call are daemons and end with the process
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
        raise


def _write_side(prompts: Sequence[Prompt], spec: WriterSpec, run: WritingRun) -> list[list[Answer]]:
    name = f"{spec.side}_writer"
    task = WriteReplies(
        name=name, llm=_make_llm(spec, run), num_generations=run.candidates, add_raw_input=False, add_raw_output=False
    )
    try:
        task.load()
        asked = [{"instruction": prompt.text, "messages": prompt.conversation()} for prompt in prompts]
        rows = next(task.process(asked))
    finally:
        task.unload()
    if len(rows) != len(prompts) * run.candidates:
        raise RuntimeError(f"distilabel returned {len(rows)} replies to {len(prompts)} prompts")
    replies: list[Answer] = [
        Failed(row[f"llm_{name}_failure"])
        if row[f"llm_{name}_failure"]
        else Reply(row["generation"], row[f"llm_{name}_finished"], row[f"llm_{name}_tokens"])
        for row in rows
    ]
    return [replies[start : start + run.candidates] for start in range(0, len(replies), run.candidates)]


def _make_llm(spec: WriterSpec, run: WritingRun) -> StoredLLM:
    llm: StoredLLM
    if spec.is_endpoint:
        llm = EndpointLLM()
    elif run.cluster.ray is not None:
        from orpo.generating.ray_writer import RayLLM  # its library is an extra

        llm = RayLLM()
    else:
        llm = LocalLLM()
    llm._spec, llm._run = spec, run
    return llm


@contextmanager
def _quiet_distilabel() -> Iterator[None]:
    """Keep its chatter off the terminal, such as that a task belongs to no pipeline."""
    ours = logging.getLogger("distilabel")
    level = ours.level
    ours.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        ours.setLevel(level)
