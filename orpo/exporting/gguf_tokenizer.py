"""A tokenizer as llama.cpp keeps it: tokens, merges, how text is cut, what ends a reply, the chat template."""

import json
from typing import TYPE_CHECKING, Final, TypeAlias

from transformers import PreTrainedTokenizerBase

from orpo.chat_model.chat_template import is_plain, turn_end_id
from orpo.command.errors import ExportError
from orpo.command.run_record import JsonValue

if TYPE_CHECKING:
    import gguf

_Steps: TypeAlias = tuple[tuple[str, object], ...]

_WORDS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_SIGNS: Final = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WAYS: Final[dict[_Steps, str]] = {
    (("ByteLevel", True),): "gpt-2",
    (("Digits", True), ("ByteLevel", True)): "smollm",
    (("Split", rf"{_WORDS}|\p{{N}}{_SIGNS}"), ("ByteLevel", False)): "qwen2",
    (("Split", rf"{_WORDS}|\p{{N}}{{1,3}}{_SIGNS}"), ("ByteLevel", False)): "llama-bpe",
}
"""How a byte-level tokenizer cuts text before it merges, as tokenizers says it, and llama.cpp's name of that."""


def add_tokenizer(writer: "gguf.GGUFWriter", tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Write a byte-level BPE tokenizer with its template.

    Args:
        writer: Where to.
        tokenizer: The tokenizer; one of another kind is an ExportError.
        rows: How many tokens the model has vectors for; those that the tokenizer lacks are named and never written.
    """
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    way = _way_of(spec)
    if is_plain(tokenizer):
        raise ExportError(
            "the model has no chat template, so other programs would not know how to ask it nor where its replies end; "
            "train it with a `chat_template` of your own"
        )
    tokens, types = _tokens(tokenizer, rows)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(way)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in spec["model"]["merges"]])
    ids = {
        writer.add_bos_token_id: tokenizer.bos_token_id,
        writer.add_eos_token_id: tokenizer.eos_token_id,
        writer.add_eot_token_id: turn_end_id(tokenizer),
        writer.add_pad_token_id: tokenizer.pad_token_id,
        writer.add_unk_token_id: tokenizer.unk_token_id,
    }
    for add, token in ids.items():
        if isinstance(token, int):
            add(token)
    writer.add_add_bos_token(_adds_bos(tokenizer))
    writer.add_add_space_prefix(False)
    assert isinstance(tokenizer.chat_template, str)
    writer.add_chat_template(tokenizer.chat_template)


def _way_of(spec: dict[str, JsonValue]) -> str:
    """Return llama.cpp's name of how a tokenizer cuts text; ExportError where it has none that is known to be right."""
    model, normalizer = spec["model"], spec["normalizer"]
    assert isinstance(model, dict)
    # llama.cpp does not compose characters; texts that are composed already, as nearly all are, are read the same.
    is_plain_text = normalizer is None or (isinstance(normalizer, dict) and normalizer["type"] == "NFC")
    steps = _steps(spec["pre_tokenizer"])
    if model["type"] != "BPE" or model.get("byte_fallback") or not is_plain_text or steps not in _WAYS:
        raise ExportError(
            "the tokenizer is not one that is exported to GGUF: byte-level BPE that cuts text as GPT-2, SmolLM, Qwen 2 "
            "or Llama 3 do; `to` merged makes a folder that llama.cpp's own converter may know"
        )
    return _WAYS[steps]


def _steps(spec: JsonValue) -> _Steps:
    if not isinstance(spec, dict):
        return ()
    if spec["type"] == "Sequence":
        parts = spec["pretokenizers"]
        assert isinstance(parts, list)
        return tuple(step for part in parts for step in _steps(part))
    if spec["type"] == "Split":
        pattern = spec["pattern"]
        is_known = spec["behavior"] == "Isolated" and not spec["invert"] and isinstance(pattern, dict)
        return (("Split", pattern.get("Regex") if is_known and isinstance(pattern, dict) else None),)
    if spec["type"] == "ByteLevel" and not spec["add_prefix_space"]:
        return (("ByteLevel", spec["use_regex"]),)
    return ((str(spec["type"]), spec.get("individual_digits")),)


def _tokens(tokenizer: PreTrainedTokenizerBase, rows: int) -> tuple[list[str], list[int]]:
    import gguf

    by_id = {number: token for token, number in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    special = {number for number, token in added.items() if token.special} | set(tokenizer.all_special_ids)
    count = max(rows, 1 + max(by_id))
    if count > rows:
        raise ExportError(f"the tokenizer has {count} tokens and the model vectors for {rows}")
    types = [
        gguf.TokenType.CONTROL
        if number in special
        else gguf.TokenType.USER_DEFINED
        if number in added
        else gguf.TokenType.NORMAL
        if number in by_id
        else gguf.TokenType.UNUSED
        for number in range(count)
    ]
    return [by_id.get(number, f"[PAD{number}]") for number in range(count)], [int(kind) for kind in types]


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether the tokenizer writes BOS by itself before text that no template wrote."""
    bos, ids = tokenizer.bos_token_id, tokenizer("a")["input_ids"]
    return bos is not None and isinstance(ids, list) and ids[:1] == [bos]
