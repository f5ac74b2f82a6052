"""A model in this process as a distilabel LLM: many prompts at once, one random stream for each."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from pydantic import PrivateAttr
from transformers import PreTrainedTokenizerBase

from orpo.chat_model.chat_template import encode_prompt
from orpo.chat_model.generation import iterate_replies
from orpo.command.errors import InputError
from orpo.generating.local_models import LoadedModel, ModelFacts
from orpo.generating.stored_writer import Answer, Failed, Parts, Request, StoredLLM
from orpo.records.messages import Message

TOO_LONG: Final = "prompt too long"
HOLDS_MARKER: Final = "prompt holds a turn marker of the model's chat template"

_SMALL_PARAMETERS: Final = 1_000_000_000
_EXAMPLES_FOR_SMALL: Final = 5


class ChatModelLLM(StoredLLM):
    """A model whose weights this project loads, here or elsewhere.

    Small ones are shown examples, since they follow those and not their system prompt.
    """

    _facts: ModelFacts | None = PrivateAttr(None)
    _tokenizer: PreTrainedTokenizerBase = PrivateAttr()

    def _know(self, facts: ModelFacts, tokenizer: PreTrainedTokenizerBase) -> None:
        """Take note of what the model is."""
        self._facts, self._tokenizer, self._identity = facts, tokenizer, facts.identity

    @property
    def facts(self) -> ModelFacts:
        """What is known of the model since `load`."""
        if self._facts is None:
            raise RuntimeError("the model is not loaded")
        return self._facts

    def example_count(self) -> int:
        """Return how many examples the model is shown: what was asked for, else some if it is small and untuned."""
        if self._run.example_count is not None:
            return self._run.example_count
        is_small = self.facts.parameters < _SMALL_PARAMETERS and self._spec.adapter is None
        return _EXAMPLES_FOR_SMALL if is_small else 0

    def conversation(self, messages: Sequence[Message]) -> list[Message]:
        """Return what the model is to see, with fewer examples where its context holds no more."""
        for count in range(self.example_count(), 0, -1):
            shown = self._shown_after(count, messages)
            if self._refusal(shown) is None:
                return shown
        return self._shown_after(0, messages)

    def _refusal(self, messages: Sequence[Message]) -> Failed | None:
        """Return why the model cannot be asked this."""
        try:
            length = len(encode_prompt(self._tokenizer, messages))
        except InputError:
            return Failed(HOLDS_MARKER)
        limit = self.facts.context_length
        is_too_long = limit is not None and length > limit - self._run.sampling.max_new_tokens
        return Failed(TOO_LONG) if is_too_long else None

    def _ask(self, requests: list[Request]) -> Parts:
        groups: defaultdict[tuple[int, str], list[Request]] = defaultdict(list)
        for request in requests:
            if (refusal := self._refusal(request.messages)) is not None:
                yield [(request.key, refusal)]
            else:
                groups[request.seed, self._beginning(request)].append(request)
        for group in groups.values():
            yield from self._generate(group)

    def _beginning(self, request: Request) -> str:
        """Return what a prompt shares with others, its fixed examples, so that the model reads them once."""
        is_shared = self._run.examples is not None and self._run.examples.are_fixed
        return repr(request.messages[:-1]) if is_shared else ""

    def _examples_in(self, requests: Sequence[Request]) -> int:
        """Return with how many messages all of these begin alike."""
        return len(requests[0].messages) - 1 if self._beginning(requests[0]) else 0

    def _generate(self, requests: list[Request]) -> Parts:
        """Yield the replies to requests of one seed in parts as they come, each kept already."""
        raise NotImplementedError


class LocalLLM(ChatModelLLM):
    """A model in this process."""

    _loaded: LoadedModel | None = PrivateAttr(None)

    def load(self) -> None:
        """Load the model, or take the one that the other writer has loaded."""
        super().load()
        spec = self._spec
        self._loaded = self._run.models.load(spec.model, side=spec.side, adapter=spec.adapter)
        self._know(self._loaded.facts, self._loaded.tokenizer)

    def unload(self) -> None:
        """Let go of the model."""
        self._loaded = None

    def _generate(self, requests: list[Request]) -> Parts:
        """Yield each reply as it ends, when a waiting prompt takes its place in the batch."""
        run, loaded = self._run, self._loaded
        if loaded is None:
            raise RuntimeError("the model is not loaded")
        # One writer at a time for each model: two at once would need twice the memory and no less time.
        with loaded.lock:
            run.check_stop()
            replies = iterate_replies(
                loaded.model,
                loaded.tokenizer,
                [request.messages for request in requests],
                run.sampling,
                seed=requests[0].seed,
                batch_size=run.local.batch_size,
                examples=self._examples_in(requests),
                on_step=run.check_stop,  # a stop waits for a token, not for a batch
            )
            for number, reply in replies:
                part: list[tuple[str, Answer]] = [(requests[number].key, reply)]
                self._keep(part)
                yield part
