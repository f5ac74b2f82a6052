"""A model on the machines of a Ray cluster as a distilabel LLM: Ray Data hands batches of prompts to workers.

A worker that is lost is replaced, and what it had not answered is asked again; replies are the same whoever writes
them, since each has random numbers of its own. Only the process that asks has the reply store, so a reply is kept once,
from the moment that its batch comes back.
"""

import json
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from orpo.chat_model.adapters import load_adapter_tokenizer
from orpo.chat_model.generation import iterate_replies
from orpo.chat_model.loading import load_tokenizer
from orpo.chat_model.settings import LocalModelSettings
from orpo.command.errors import InputError, OrpoError
from orpo.generating.cluster import ClusterSettings
from orpo.generating.local_models import LoadedModels, ModelFacts
from orpo.generating.local_writer import ChatModelLLM
from orpo.generating.settings import WriterSpec
from orpo.generating.stored_writer import Answer, Parts, Request
from orpo.records.messages import Message
from orpo.records.replies import Reply, Sampling

_BATCHES_AT_ONCE: Final = 4
"""A worker is handed this many batches together: a reply that ends makes room, and only the last ones leave gaps."""

_REACHED_WITHIN_SECONDS: Final = 10.0

Row = dict[str, object]


class RayWriter:
    """What stands in a worker: one model, loaded once."""

    def __init__(self, spec: WriterSpec, settings: LocalModelSettings, expected: str = "") -> None:
        """Load the model; ModelError where it is not the one that the others have."""
        self._loaded = LoadedModels(settings).load(spec.model, side=spec.side, adapter=spec.adapter)
        self._batch_size = settings.batch_size
        if expected and self._loaded.facts.identity != expected:
            raise InputError(
                f"{spec.model}: a worker has another model or number format ({self._loaded.facts.identity}) than the "
                f"first one ({expected}); give all machines the same files, and name the `dtype`",
                setting="ray",
            )

    @property
    def facts(self) -> ModelFacts:
        """What is known of the model."""
        return self._loaded.facts

    def __call__(self, batch: dict[str, list[str]], sampling: Sampling, seed: int, examples: int) -> Row:
        """Answer conversations; the columns are `number` and what `Reply` consists of."""
        conversations: list[list[Message]] = [json.loads(text) for text in batch["messages"]]
        written = iterate_replies(
            self._loaded.model,
            self._loaded.tokenizer,
            conversations,
            sampling,
            seed=seed,
            batch_size=self._batch_size,
            examples=examples,
        )
        found = [(batch["number"][number], reply) for number, reply in written]
        return {
            "number": [number for number, _ in found],
            **{name: [getattr(reply, name) for _, reply in found] for name in ("text", "finished", "tokens")},
        }


class RayLLM(ChatModelLLM):
    """A model that the workers of a cluster load."""

    def load(self) -> None:
        """Connect to the cluster, and have a worker say what the model is."""
        super().load()
        import ray

        spec, run = self._spec, self._run
        connect(run.cluster)
        describe = ray.remote(_describe).options(**run.cluster.resources())
        with worker_errors():
            facts = ray.get(describe.remote(spec, run.local))
        template, remote = run.local.chat_template, run.local.trust_remote_code
        if spec.adapter is None:
            tokenizer = load_tokenizer(spec.model, trust_remote_code=remote, chat_template=template)
        else:
            tokenizer = load_adapter_tokenizer(
                spec.model, spec.adapter, trust_remote_code=remote, chat_template=template
            )
        self._know(facts, tokenizer)

    def _generate(self, requests: list[Request]) -> Parts:
        """Yield each reply as its batch comes back."""
        import ray
        from ray.data import ActorPoolStrategy

        run, cluster = self._run, self._run.cluster
        rows = [{"number": number, "messages": json.dumps(request.messages)} for number, request in enumerate(requests)]
        size = cluster.batch_rows(len(rows), run.local.batch_size * _BATCHES_AT_ONCE)
        written = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // size)).map_batches(
            RayWriter,
            batch_size=size,
            batch_format="numpy",
            fn_constructor_args=(self._spec, run.local, self.facts.identity),
            fn_kwargs={
                "sampling": run.sampling,
                "seed": requests[0].seed,
                "examples": self._examples_in(requests),
            },
            compute=ActorPoolStrategy(min_size=1, max_size=cluster.ray_workers),
            **cluster.resources(),
        )
        with worker_errors():
            for row in written.iter_rows():
                run.check_stop()
                reply = Reply(str(row["text"]), bool(row["finished"]), int(row["tokens"]))
                part: list[tuple[str, Answer]] = [(requests[int(row["number"])].key, reply)]
                self._keep(part)
                yield part


def _describe(spec: WriterSpec, settings: LocalModelSettings) -> ModelFacts:
    return RayWriter(spec, settings).facts


def connect(cluster: ClusterSettings) -> None:
    """Join the cluster, or start one on this machine; InputError, in one line, where there is none."""
    import ray

    _check_reachable(cluster.ray or "")
    if ray.is_initialized():
        return
    where: dict[str, object] = {"include_dashboard": False} if cluster.ray == "local" else {"address": cluster.ray}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as problem:
        first = str(problem).strip().splitlines()[0]
        raise InputError(f"{cluster.ray}: no Ray cluster answers there ({first})", setting="ray") from problem
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def _check_reachable(address: str) -> None:
    """Raise InputError where nobody listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():  # auto, local
        return
    try:
        socket.create_connection((host, int(port)), timeout=_REACHED_WITHIN_SECONDS).close()
    except OSError as problem:
        raise InputError(
            f"{address}: no Ray cluster answers there ({problem.strerror or problem}); `ray start` starts one",
            setting="ray",
        ) from problem


@contextmanager
def worker_errors() -> Iterator[None]:
    """Raise what went wrong in a worker as it would be raised here."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as problem:
        cause: BaseException | None = problem
        while cause is not None:
            if isinstance(cause, OrpoError):
                raise cause from problem
            cause = getattr(cause, "cause", None) or cause.__cause__
        raise InputError(
            f"the workers of the cluster failed ({str(problem).strip().splitlines()[-1]})", setting="ray"
        ) from problem
