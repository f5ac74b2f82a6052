"""Pairs and labelled replies as token ids: the chat template applied once, one end token, no length over the limit.

Everything that can be wrong with a pair is found here, before a model is loaded. TRL's ORPOTrainer finds none of it:
a prompt over the limit makes its loss NaN, a template that writes a newline after `<|im_end|>` gets a second end
token, and its truncation cuts the end token off (measured on trl 1.16).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from orpo.chat_model.chat_template import encode_rendered, render_reply, special_texts, turn_end_id
from orpo.command.errors import InputError, ModelError
from orpo.records.labelled import LabelledReply
from orpo.records.messages import last_message
from orpo.records.pairs import PreferencePair
from orpo.records.rows import BadRowsPolicy
from orpo.training.examples import Example, SourceRow, TokenizedPair, TokenizedPairs, TokenizedReply

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LengthPolicy = Literal["drop", "truncate", "raise"]

_SHOWN_ROWS = 10
_CHUNK_ROWS = 1000
_HUGE = 100_000
"""Characters; a text of no more is tokenized before anything is said of its length."""


def tokenize_pairs(
    pairs: Sequence[PreferencePair],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    max_prompt_length: int | None = None,
    policy: LengthPolicy = "drop",
    bad_rows: BadRowsPolicy = "raise",
) -> TokenizedPairs[TokenizedPair]:
    """Turn preference pairs into token ids.

    Args:
        pairs: What `orpo.records` read, or pairs made here.
        tokenizer: The base model's, with a chat template.
        max_length: The most tokens that prompt and reply may have together.
        max_prompt_length: The most tokens of a prompt.
        policy: What happens to a pair over a limit. `truncate` keeps the end of the prompt, and the beginning of a
            reply with its end token.
        bad_rows: Whether a pair that the template or its tokens make useless stops everything, or is left out.

    Raises:
        InputError: with row numbers: a text holds a turn marker, the template refuses a conversation, or a pair is
            over a limit under the policy `raise`; or nothing is left.
    """
    made = tokenize_rows(pairs, tokenizer, max_length, max_prompt_length, policy, bad_rows)
    return cast(TokenizedPairs[TokenizedPair], made)


def tokenize_rows(
    rows: Sequence[SourceRow],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    max_prompt_length: int | None,
    policy: LengthPolicy,
    bad_rows: BadRowsPolicy,
) -> TokenizedPairs[Example]:
    """Turn pairs or labelled replies into token ids; see `tokenize_pairs`."""
    template = ChatTemplate(tokenizer)
    numbers = [row.row or place for place, row in enumerate(rows, start=1)]
    limits = _Limits(
        max_length, max_prompt_length, policy, tokenizer.bos_token_id, max(map(len, tokenizer.get_vocab()))
    )
    useless: list[tuple[int, str]] = []
    too_long: list[tuple[int, str]] = []
    result: TokenizedPairs[Example] = TokenizedPairs()
    for start in range(0, len(rows), _CHUNK_ROWS):
        chunk = zip(numbers[start : start + _CHUNK_ROWS], rows[start : start + _CHUNK_ROWS], strict=True)
        fitting = [one for one in chunk if not limits.takes_out_huge(*one, result, too_long)]
        for tokenized in template.encode(fitting, useless):
            limits.apply(tokenized, result, too_long)
    raise_for_rows(too_long if bad_rows == "drop" else useless + too_long)
    for row, reason in useless:
        result.drop(reason, row)
    if not result.pairs:
        raise InputError(_nothing_left(result.dropped, len(rows), max_length))
    return result


class ChatTemplate:
    """A tokenizer's chat template, and the token that ends a reply under it.

    Attributes:
        end_id: The id that closes a reply: what the template writes there (`<|im_end|>`, `<end_of_turn>`), or else the
            tokenizer's end token, which is then appended.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        """Find out how the template ends a reply; ModelError where that cannot be said."""
        if not tokenizer.chat_template:
            raise ModelError("the tokenizer has no chat template; name a file that holds one")
        self._tokenizer = tokenizer
        self._special = special_texts(tokenizer)
        template_end = turn_end_id(tokenizer)
        end = tokenizer.eos_token_id if template_end is None else template_end
        if end is None:
            raise ModelError("neither the tokenizer nor its chat template has an end token; set `eos_token` in it")
        self.end_id = int(end)

    def encode(self, rows: Sequence[tuple[int, SourceRow]], problems: list[tuple[int, str]]) -> Iterator[Example]:
        """Yield the ids of each numbered row that the template can render; the others go to `problems`."""
        rendered: list[tuple[int, SourceRow, str, list[str]]] = []
        for number, row in rows:
            try:
                if self._holds_special_text(row):
                    yield self._encode_carefully(number, row)
                else:
                    rendered.append((number, row, *self._render(row)))
            except (ModelError, InputError) as refusal:
                problems.append((number, f"is refused: {refusal}"))
        prompt_ids = self._ids([prompt for _, _, prompt, _ in rendered]) if rendered else []
        jobs = [
            (prompt, ending, ids)
            for (_, _, prompt, endings), ids in zip(rendered, prompt_ids, strict=True)
            for ending in endings
        ]
        replies = iter(self._completions(*map(list, zip(*jobs, strict=True)))) if jobs else iter(())
        for (number, row, _, endings), ids in zip(rendered, prompt_ids, strict=True):
            own = [next(replies) for _ in endings]
            if len(own) == 2 and own[0] == own[1]:
                problems.append((number, "is refused: both replies become the same tokens under the chat template"))
            else:
                yield _example(number, row, ids, own)

    def _render(self, row: SourceRow) -> tuple[str, list[str]]:
        """Return the text of the prompt, as inference renders it, and of what follows with each reply."""
        rendered = [render_reply(self._tokenizer, row.prompt, reply) for reply in _replies_of(row)]
        return rendered[0][0], [ending for _, ending in rendered]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        # The template writes the special tokens itself: adding them here would put a second BOS in front.
        encoded = self._tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return [list(ids) for ids in encoded]

    def _completions(
        self, prompts: Sequence[str], endings: Sequence[str], prompt_ids: Sequence[list[int]]
    ) -> list[list[int]]:
        """Tokenize the replies in their place, or by themselves where a token would reach across the border."""
        whole = self._ids([prompt + ending for prompt, ending in zip(prompts, endings, strict=True)])
        alone = self._ids(endings)
        return [
            self._close(_after(prompt, ids, own)) for ids, prompt, own in zip(whole, prompt_ids, alone, strict=True)
        ]

    def _encode_carefully(self, number: int, row: SourceRow) -> Example:
        """Tokenize a row in whose texts a special token is spelled out: it is text there, or a mistake."""
        opening, endings = self._render(row)
        contents = [message["content"] for message in row.prompt]
        prompt = encode_rendered(self._tokenizer, opening, contents)
        completions = []
        for ending, reply in zip(endings, _replies_of(row), strict=True):
            whole = encode_rendered(self._tokenizer, opening + ending, [*contents, reply])
            completions.append(self._close(_after(prompt, whole, encode_rendered(self._tokenizer, ending, [reply]))))
        return _example(number, row, prompt, completions)

    def _close(self, ids: list[int]) -> list[int]:
        """End a reply with exactly one end token: what the template writes after it, a newline mostly, goes."""
        if self.end_id in ids:
            return ids[: ids.index(self.end_id) + 1]
        return [*ids, self.end_id]

    def _holds_special_text(self, row: SourceRow) -> bool:
        texts = (*(message["content"] for message in row.prompt), *_replies_of(row))
        return any(token in text for text in texts for token in self._special)


def _replies_of(row: SourceRow) -> list[str]:
    if isinstance(row, LabelledReply):
        return [last_message(row.completion)]
    return [last_message(row.chosen), last_message(row.rejected)]


def _example(number: int, row: SourceRow, prompt: list[int], replies: list[list[int]]) -> Example:
    if isinstance(row, LabelledReply):
        return TokenizedReply(prompt, replies[0], row, number)
    return TokenizedPair(prompt, replies[0], replies[1], row, number)


def _after(prompt: list[int], whole: list[int], alone: list[int]) -> list[int]:
    return whole[len(prompt) :] if whole[: len(prompt)] == prompt else alone


@dataclass(frozen=True)
class _Limits:
    """The length limits and what happens to a pair over them."""

    max_length: int
    max_prompt_length: int | None
    policy: LengthPolicy
    bos_id: int | None
    longest_token: int

    def takes_out_huge(
        self, row: int, source: SourceRow, result: TokenizedPairs[Example], problems: list[tuple[int, str]]
    ) -> bool:
        """Tell whether a row is over the limit whatever its tokens are, and leave it out then: they take minutes."""
        texts = [*(message["content"] for message in source.prompt), *_replies_of(source)]
        characters = sum(map(len, texts))
        if self.policy == "truncate" or characters <= max(_HUGE, 2 * self.max_length * self.longest_token):
            return False
        self._leave_out(row, f"has {characters:,} characters, over max_length {self.max_length}", result, problems)
        return True

    def apply(self, pair: Example, result: TokenizedPairs[Example], problems: list[tuple[int, str]]) -> None:
        """Put the pair, or what the policy makes of it, into the result."""
        reason = self._excess(pair)
        if reason is None:
            result.pairs.append(pair)
        elif self.policy != "truncate":
            self._leave_out(pair.row, reason, result, problems)
        else:
            shorter = self._shorten(pair)
            if len(set(map(tuple, shorter.replies))) < len(shorter.replies):
                result.drop("replies equal once shortened", pair.row)
            else:
                result.pairs.append(shorter)
                result.truncated.append(pair.row)

    def _leave_out(
        self, row: int, reason: str, result: TokenizedPairs[Example], problems: list[tuple[int, str]]
    ) -> None:
        if self.policy == "raise":
            remedy = "raise the limit, or choose the length policy drop or truncate"
            problems.append((row, f"{reason} ({remedy})"))
        else:
            result.drop("over the length limit", row)

    def _excess(self, pair: Example) -> str | None:
        prompt = len(pair.prompt_ids)
        if self.max_prompt_length is not None and prompt > self.max_prompt_length:
            return f"has a prompt of {prompt} tokens, over max_prompt_length {self.max_prompt_length}"
        if prompt + 2 > self.max_length:
            return f"has a prompt of {prompt} tokens, so max_length {self.max_length} leaves no room for a reply"
        if pair.longest > self.max_length:
            return f"has {pair.longest} tokens with its longer reply, over max_length {self.max_length}"
        return None

    def _shorten(self, pair: Example) -> Example:
        limit = self.max_prompt_length or self.max_length // 2
        prompt = pair.prompt_ids
        if len(prompt) > limit and (self.max_prompt_length is not None or pair.longest > self.max_length):
            # The end of the prompt opens the assistant's turn, so the beginning goes; a BOS stays in front.
            head = prompt[:1] if self.bos_id is not None and prompt[0] == self.bos_id and limit > 1 else []
            prompt = head + prompt[len(prompt) - (limit - len(head)) :]
        return pair.cut(prompt, self.max_length - len(prompt))


def raise_for_rows(problems: Sequence[tuple[int, str]]) -> None:
    """Raise one InputError for problems with rows: the first few by number, and how many there are."""
    if not problems:
        return
    shown = "; ".join(f"row {row} {text}" for row, text in sorted(problems)[:_SHOWN_ROWS])
    more = f"; and {len(problems) - _SHOWN_ROWS} more" if len(problems) > _SHOWN_ROWS else ""
    is_refused = any("is refused" in text for _, text in problems)
    remedy = "; mend these rows, or leave them out with `bad_rows` drop" if is_refused else ""
    raise InputError(f"{len(problems)} of the pairs cannot be trained on: {shown}{more}{remedy}")


def _nothing_left(dropped: Mapping[str, Sequence[int]], count: int, max_length: int) -> str:
    reasons = ", ".join(f"{len(rows)} {reason}" for reason, rows in dropped.items())
    return f"none of the {count} pairs can be trained on: {reasons or 'there are none'} (max_length {max_length})"
