"""The Modelfile: how Ollama asks a GGUF model, with the chat template in Go's template language.

Ollama does not run Jinja. The template is taken apart by what it writes around each role's text, and written anew;
conversations that are put together from those parts have to come out as the chat template writes them.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from transformers import PreTrainedTokenizerBase

from orpo.chat_model.chat_template import encode_text, render_prompt, turn_end_id
from orpo.command.errors import ExportError
from orpo.records.messages import Message
from orpo.records.replies import Sampling

MODELFILE: Final = "Modelfile"
_MARKS: Final = ("the first sentinel", "the second sentinel", "the third sentinel", "the fourth sentinel")


@dataclass(frozen=True)
class TemplateParts:
    """What a chat template writes around texts.

    Attributes:
        default_system: At the beginning where there is no system message.
        before: Before the text of each role.
        after: After every text.
        opening: At the end, where the reply begins.
    """

    default_system: str
    before: dict[str, str]
    after: str
    opening: str

    def render(self, messages: Sequence[Message]) -> str:
        """Return a conversation as Ollama will write it."""
        has_system = any(message["role"] == "system" for message in messages)
        turns = [self.before[message["role"]] + message["content"] + self.after for message in messages]
        return ("" if has_system else self.default_system) + "".join(turns) + self.opening

    def as_go_template(self) -> str:
        """Return them in Go's template language; texts stand in quotes, so that no blank of theirs is trimmed."""
        roles = [
            f'{{{{- {"if" if number == 0 else "else if"} eq .Role "{role}" }}}}\n'
            f"{{{{- {_quoted(before)} }}}}{{{{ .Content }}}}{{{{ {_quoted(self.after)} -}}}}\n"
            for number, (role, before) in enumerate(self.before.items())
        ]
        default = f"{{{{- if not .System }}}}{{{{ {_quoted(self.default_system)} }}}}{{{{ end -}}}}\n"
        return (
            (default if self.default_system else "")
            + f"{{{{- range .Messages -}}}}\n{''.join(roles)}{{{{- end -}}}}\n{{{{- end -}}}}\n"
            + f"{{{{- {_quoted(self.opening)} -}}}}"
        )


def make_modelfile(file: str, tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    """Return the Modelfile for a GGUF file beside it."""
    stops = [turn_end_id(tokenizer), tokenizer.eos_token_id]
    texts = dict.fromkeys(str(tokenizer.convert_ids_to_tokens(token)) for token in stops if isinstance(token, int))
    return "\n".join(
        [
            f"# {name}, for: ollama create NAME --file {MODELFILE}",
            f"FROM ./{file}",
            f'TEMPLATE """{template_parts(tokenizer).as_go_template()}"""',
            *(f"PARAMETER stop {_quoted(text)}" for text in texts),
            f"PARAMETER temperature {Sampling().temperature:g}",
            "",
        ]
    )


def template_parts(tokenizer: PreTrainedTokenizerBase) -> TemplateParts:
    """Take a chat template apart; ExportError where it is not a sequence of turns that end alike."""
    end_id = turn_end_id(tokenizer)
    system, user, assistant, again = _MARKS
    turns: list[Message] = [
        {"role": "user", "content": user},
        {"role": "assistant", "content": assistant},
        {"role": "user", "content": again},
    ]
    told: list[Message] = [{"role": "system", "content": system}, *turns]
    if end_id is None:
        raise _unknown()
    marker = str(tokenizer.convert_ids_to_tokens(end_id))
    start, *between = _split(_rendered(tokenizer, told), _MARKS)
    after = marker + ("\n" if all(text.startswith(f"{marker}\n") for text in between) else "")
    if not all(text.startswith(after) for text in between):
        raise _unknown()
    before_user, before_assistant, _, opening = (text.removeprefix(after) for text in between)
    bare_start = _split(_rendered(tokenizer, turns), _MARKS[1:])[0]
    before = {"system": start, "user": before_user, "assistant": before_assistant}
    parts = TemplateParts(bare_start.removesuffix(before_user), before, after, opening)
    for messages in (told, turns, told[:2], turns[:1]):
        if parts.render(messages) != _rendered(tokenizer, messages):
            raise _unknown()
    return parts


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """Return a conversation as the template writes it, without the BOS that Ollama adds by itself."""
    text, bos = render_prompt(tokenizer, messages), tokenizer.bos_token
    with_bos = tokenizer("a")["input_ids"] != encode_text(tokenizer, "a")
    return text.removeprefix(str(bos)) if with_bos and bos else text


def _split(text: str, marks: Sequence[str]) -> list[str]:
    parts = []
    for mark in marks:
        head, found, text = text.partition(mark)
        if not found:
            raise _unknown()
        parts.append(head)
    return [*parts, text]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _unknown() -> ExportError:
    return ExportError(
        "the chat template cannot be written for Ollama: it is no sequence of turns with one end; `to` gguf keeps it "
        "as it is, and llama.cpp runs it"
    )
