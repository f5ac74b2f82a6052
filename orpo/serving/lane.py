"""The replies that one model is writing."""

from orpo.chat_model.generation import as_reply, decode_text, iterate_replies
from orpo.chat_model.open_loop import Writing
from orpo.chat_model.token_picker import row_keys
from orpo.serving.growing_text import GrowingText
from orpo.serving.jobs import Finished, Job, Piece, tell_failure
from orpo.serving.models import ServedModels


class Lane:
    """One model's loop, and whose reply is which; `len` is how many there are."""

    def __init__(self, models: ServedModels, name: str) -> None:
        """Make the model ready; it may take a second, for its weights are laid out for this processor."""
        self._models, self._name = models, name
        self._tokenizer, self._end_ids = models.tokenizer(name), models.end_ids(name)
        self._loop = models.open_loop(name)
        self._jobs: dict[Writing, tuple[Job, GrowingText]] = {}
        self._undriven: list[Job] = []

    def __len__(self) -> int:
        return len(self._jobs) + len(self._undriven)

    def join(self, jobs: list[Job]) -> None:
        """Begin these replies."""
        if self._loop is None:
            self._undriven += jobs
            return
        new = {}
        for job in jobs:
            key = row_keys([job.prompt] * job.repeat)[-1]
            new[Writing(job.prompt, job.sampling, job.seed, key)] = job, GrowingText(job.stops)
        self._jobs |= new
        try:
            self._loop.join(list(new))
            for one in new:
                self._tell(one)
        except Exception as problem:
            self._fail(problem)

    def step(self) -> None:
        """Write a token more of each reply; where only transformers drives the model, one whole reply."""
        if self._loop is None:
            if self._undriven:
                self._write_whole(self._undriven[0])
            return
        if not self._jobs:
            return
        try:
            for one in self._loop.step():
                self._tell(one)
        except Exception as problem:
            self._fail(problem)

    def drop_cancelled(self) -> None:
        """Leave the replies that nobody wants."""
        self._undriven = [job for job in self._undriven if not job.is_cancelled]
        for one in [one for one, (job, _) in self._jobs.items() if job.is_cancelled]:
            self._leave(one)

    def give_up(self, problem: Exception) -> None:
        """Tell everybody that no more comes."""
        for job in [*(job for job, _ in self._jobs.values()), *self._undriven]:
            tell_failure(job, problem)

    def _tell(self, one: Writing) -> None:
        """Tell what a new token adds, and whether it is the last."""
        job, text = self._jobs[one]
        assert self._loop is not None
        is_whole = self._loop.is_whole(one)
        if is_whole:
            reply = as_reply(self._tokenizer, one.ids, self._end_ids)
            piece, is_stopped = text.finish(reply.text)
            is_stopped |= reply.finished
        else:
            piece, is_stopped = text.feed(decode_text(self._tokenizer, one.ids))
        if piece:
            job.tell(Piece(piece))
        if is_whole or is_stopped:
            self._leave(one)
            job.tell(Finished("stop" if is_stopped else "length", len(one.ids)))

    def _leave(self, one: Writing) -> None:
        assert self._loop is not None
        del self._jobs[one]
        self._loop.leave(one)

    def _fail(self, problem: Exception) -> None:
        """Give up every reply of this model, and begin with a new loop next time."""
        jobs = [job for job, _ in self._jobs.values()]
        self._jobs = {}
        for job in jobs:
            tell_failure(job, problem)
        self._loop = self._models.open_loop(self._name)

    def _write_whole(self, job: Job) -> None:
        """Write a reply in transformers' own loop, in which only this one is written until it ends."""
        try:
            with self._models.switched_to(self._name):
                conversations = [job.messages] * job.repeat
                replies = dict(
                    iterate_replies(
                        self._models.model,
                        self._tokenizer,
                        conversations,
                        job.sampling,
                        seed=job.seed,
                        on_step=lambda: _stop_if_unwanted(job),
                    )
                )
            text = GrowingText(job.stops)
            reply = replies[job.repeat - 1]
            piece, is_stopped = text.finish(reply.text)
            job.tell(Piece(piece))
            job.tell(Finished("stop" if is_stopped or reply.finished else "length", reply.tokens))
        except _UnwantedError:
            pass
        except Exception as problem:
            tell_failure(job, problem)
        finally:
            self._undriven.remove(job)


class _UnwantedError(Exception):
    """Nobody wants the reply that is being written."""


def _stop_if_unwanted(job: Job) -> None:
    if job.is_cancelled:
        raise _UnwantedError
