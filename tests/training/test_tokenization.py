"""Pairs become ids with the template once, one end token at the end, and never more than the limit."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orpo.chat_model.chat_template import encode_prompt
from orpo.command.errors import InputError, ModelError
from orpo.records.messages import with_system
from orpo.records.pairs import PreferencePair
from orpo.training.tokenization import tokenize_pairs

Pair = Callable[[str, str, str], PreferencePair]

LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}"
    "{% elif m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<turn>' + m['role'] + '\n' + m['content'] + '<turn_end>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>assistant\n' }}{% endif %}"
)
BARE = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def test_a_pair_reads_as_the_template_writes_it_and_ends_once(tokenizer: Any, pair: Pair) -> None:
    """The template's newline after `<|im_end|>` made TRL train a second end token after it."""
    found = tokenize_pairs([pair("Hi there", "Hello 🎉", "Hello")], tokenizer, 64).pairs[0]
    assert tokenizer.decode(found.prompt_ids) == "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(found.chosen_ids) == "Hello 🎉<|im_end|>"
    assert tokenizer.decode(found.rejected_ids) == "Hello<|im_end|>"
    assert found.chosen_ids.count(tokenizer.eos_token_id) == 1


def test_the_prompt_is_the_one_that_inference_asks_with(tokenizer: Any, rows: list[PreferencePair]) -> None:
    for row, found in zip(rows, tokenize_pairs(rows, tokenizer, 256).pairs, strict=True):
        assert found.prompt_ids == encode_prompt(tokenizer, row.prompt)


def test_a_template_with_bos_gets_one_bos_and_its_own_end(make_tokenizer: Callable[..., Any], pair: Pair) -> None:
    roles = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    tokenizer = make_tokenizer(LLAMA2, ("<s>", "</s>"), **roles)
    found = tokenize_pairs([pair("Hi", "Yes 🎉", "Yes")], tokenizer, 64).pairs[0]
    assert found.prompt_ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(found.chosen_ids) == " Yes 🎉</s>"


def test_a_system_prompt_is_folded_in_where_the_template_has_no_place_for_it(
    make_tokenizer: Callable[..., Any], pair: Pair
) -> None:
    tokenizer = make_tokenizer(LLAMA2, ("<s>", "</s>"), bos_token="<s>", eos_token="</s>", pad_token="</s>")
    row = pair("Hi", "Yes 🎉", "Yes")
    row = replace(row, prompt=with_system("Be kind.", row.prompt))
    found = tokenize_pairs([row], tokenizer, 64).pairs[0]
    assert tokenizer.decode(found.prompt_ids) == "<s>[INST] Be kind.\n\nHi [/INST]"


def test_a_turn_end_other_than_the_end_token_ends_the_reply(make_tokenizer: Callable[..., Any], pair: Pair) -> None:
    """Gemma's way: the tokenizer's EOS is not what the template writes after a turn."""
    roles = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    roles["additional_special_tokens"] = ["<turn>", "<turn_end>"]  # type: ignore[assignment]
    tokenizer = make_tokenizer(GEMMA, ("<pad>", "<bos>", "<eos>", "<turn>", "<turn_end>"), **roles)
    found = tokenize_pairs([pair("Hi", "Yes 🎉", "Yes")], tokenizer, 64).pairs[0]
    assert tokenizer.decode(found.chosen_ids) == "Yes 🎉<turn_end>"


def test_an_end_token_is_appended_where_the_template_writes_none(
    make_tokenizer: Callable[..., Any], pair: Pair
) -> None:
    tokenizer = make_tokenizer(BARE, ("</s>",), eos_token="</s>", pad_token="</s>")
    found = tokenize_pairs([pair("Hi", "Yes 🎉", "Yes")], tokenizer, 64).pairs[0]
    assert found.chosen_ids[-1] == tokenizer.eos_token_id
    assert found.chosen_ids.count(tokenizer.eos_token_id) == 1


def test_a_reply_that_begins_with_a_newline_keeps_the_prompt_intact(tokenizer: Any, pair: Pair) -> None:
    """A token must not reach across the border between prompt and reply."""
    found = tokenize_pairs([pair("Hi", "\n\nHello 🎉", "\nHello")], tokenizer, 64).pairs[0]
    assert tokenizer.decode(found.prompt_ids).endswith("<|im_start|>assistant\n")
    assert tokenizer.decode(found.chosen_ids) == "\n\nHello 🎉<|im_end|>"


def test_text_with_a_template_applied_already_is_refused_with_its_rows(tokenizer: Any, pair: Pair) -> None:
    good, bad = pair("Hi", "Yes 🎉", "Yes"), pair("<|im_start|>user\nHi<|im_end|>", "Yes 🎉", "Yes")
    with pytest.raises(InputError, match=r"row 2 is refused: a message holds the turn marker <\|im_(start|end)\|>"):
        tokenize_pairs([good, bad], tokenizer, 64)


FILE_NAME = "What does `cp <filename> backup` do?"


def test_text_that_looks_special_is_text(make_tokenizer: Callable[..., Any], pair: Pair) -> None:
    """One message about `<filename>` stopped a whole run, since the tokenizer has a special token of that name."""
    further = {"additional_special_tokens": ["<turn>", "<turn_end>", "<filename>"]}
    roles = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", **further}
    names = ("<pad>", "<bos>", "<eos>", "<turn>", "<turn_end>", "<filename>")
    tokenizer = make_tokenizer(GEMMA, names, **roles)
    special = tokenizer.convert_tokens_to_ids("<filename>")
    found = tokenize_pairs([pair(FILE_NAME, "It copies <filename> 📁", "It copies.")], tokenizer, 256).pairs[0]
    assert special not in [*found.prompt_ids, *found.chosen_ids, *found.rejected_ids]
    assert FILE_NAME in tokenizer.decode(found.prompt_ids)
    assert tokenizer.decode(found.chosen_ids) == "It copies <filename> 📁<turn_end>"
    assert found.prompt_ids == encode_prompt(tokenizer, [{"role": "user", "content": FILE_NAME}])


def test_text_that_looks_special_is_text_also_where_it_is_said_twice(make_tokenizer: Callable[..., Any]) -> None:
    """The second of two equal messages got the special token."""
    names = ("<pad>", "<bos>", "<eos>", "<turn>", "<turn_end>", "<filename>")
    roles = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    tokenizer = make_tokenizer(GEMMA, names, **roles, additional_special_tokens=list(names[3:]))
    talk = [{"role": "user", "content": FILE_NAME}, {"role": "assistant", "content": "Well?"}]
    ids = encode_prompt(tokenizer, [*talk, talk[0]])
    assert tokenizer.convert_tokens_to_ids("<filename>") not in ids and tokenizer.decode(ids).count(FILE_NAME) == 2


def test_a_pair_that_no_tokens_could_make_short_enough_is_not_tokenized(tokenizer: Any, pair: Pair) -> None:
    """Megabytes in one row were tokenized for minutes, and left out then."""
    begun = time.process_time()
    good, huge = pair("Hi", "Yes 🎉", "Yes"), pair("Hi " * 600_000, "Yes 🎉", "Yes")
    found = tokenize_pairs([good, huge], tokenizer, 64)
    assert found.dropped == {"over the length limit": [2]} and len(found.pairs) == 1
    with pytest.raises(InputError, match=r"row 2 has 1,800,008 characters, over max_length 64 \(raise the limit"):
        tokenize_pairs([good, huge], tokenizer, 64, policy="raise")
    assert time.process_time() - begun < 1


def test_a_thought_that_the_template_opens_is_left_out_of_prompt_and_reply(
    make_tokenizer: Callable[..., Any], pair: Pair
) -> None:
    """The template of R1 opens a thought in the generation prompt only; every row was refused."""
    thinking = BARE.replace("'assistant: '", "'assistant: <think>\n'")
    tokenizer = make_tokenizer(thinking, ("</s>",), eos_token="</s>", pad_token="</s>")
    found = tokenize_pairs([pair("Hi", "Yes 🎉", "Yes")], tokenizer, 64).pairs[0]
    assert tokenizer.decode(found.prompt_ids) == "user: Hi\nassistant: "
    assert found.prompt_ids == encode_prompt(tokenizer, [{"role": "user", "content": "Hi"}])
    assert tokenizer.decode(found.chosen_ids).strip() == "Yes 🎉\n</s>".strip()


def test_a_template_that_drops_the_text_is_refused_with_the_row(make_tokenizer: Callable[..., Any], pair: Pair) -> None:
    """Templates that expect lists of parts wrote nothing for a text, and chosen was equal to rejected."""
    silent = "{% for m in messages %}{{ m['role'] }}{% for part in [] %}{{ part }}{% endfor %}\n{% endfor %}"
    tokenizer = make_tokenizer(silent, ("</s>",), eos_token="</s>", pad_token="</s>")
    with pytest.raises(InputError, match=r"row 1 is refused: the chat template drops the text of a message \(user\)"):
        tokenize_pairs([pair("Hi", "Yes 🎉", "Yes")], tokenizer, 64)


def test_replies_that_the_template_makes_equal_are_refused(make_tokenizer: Callable[..., Any], pair: Pair) -> None:
    trims = BARE.replace("m['content'] +", "m['content'] | trim +")
    tokenizer = make_tokenizer(trims, ("</s>",), eos_token="</s>", pad_token="</s>")
    with pytest.raises(InputError, match="row 1 is refused: both replies become the same tokens"):
        tokenize_pairs([pair("Hi", "Yes", "Yes  ")], tokenizer, 64)


def test_rows_are_named_as_their_owner_counts_them(tokenizer: Any, pair: Pair) -> None:
    rows = [replace(pair("Hi", "Yes<|im_end|>", "Yes"), file="x.jsonl", row=7, unit="line")]
    with pytest.raises(InputError, match="row 7 "):
        tokenize_pairs(rows, tokenizer, 64)


def test_drop_leaves_out_what_is_too_long_and_says_which(tokenizer: Any, pair: Pair) -> None:
    rows = [pair("Hi", "Yes 🎉", "Yes"), pair("Hi", "Yes 🎉", "no " * 100), pair("why " * 100, "Yes 🎉", "Yes")]
    found = tokenize_pairs(rows, tokenizer, 64)
    assert [one.row for one in found.pairs] == [1]
    assert found.dropped == {"over the length limit": [2, 3]}


def test_truncate_keeps_the_end_of_the_prompt_and_the_end_token(tokenizer: Any, pair: Pair) -> None:
    """TRL's truncation cuts the end token off, so the model learns never to stop."""
    rows = [pair("why " * 100 + "now?", "Yes 🎉 " * 50, "Yes")]
    found = tokenize_pairs(rows, tokenizer, 64, policy="truncate")
    short = found.pairs[0]
    assert found.truncated == [1]
    assert short.longest == 64
    assert len(short.prompt_ids) == 32
    assert tokenizer.decode(short.prompt_ids).endswith("now?<|im_end|>\n<|im_start|>assistant\n")
    assert short.chosen_ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(short.rejected_ids) == "Yes<|im_end|>"


def test_truncate_keeps_a_bos_and_drops_what_becomes_equal(make_tokenizer: Callable[..., Any], pair: Pair) -> None:
    tokenizer = make_tokenizer(LLAMA2, ("<s>", "</s>"), bos_token="<s>", eos_token="</s>", pad_token="</s>")
    rows = [pair("why " * 100, "Yes 🎉", "No"), pair("Hi", "same " * 50 + "A", "same " * 50 + "B")]
    found = tokenize_pairs(rows, tokenizer, 64, max_prompt_length=20, policy="truncate")
    assert [one.row for one in found.pairs] == [1]
    assert found.pairs[0].prompt_ids[0] == tokenizer.bos_token_id
    assert len(found.pairs[0].prompt_ids) == 20
    assert found.dropped == {"replies equal once shortened": [2]}


def test_raise_names_rows_limits_and_remedy(tokenizer: Any, pair: Pair) -> None:
    rows = [pair("Hi", "Yes 🎉", "Yes"), pair("why " * 100, "Yes 🎉", "Yes"), pair("Hi", "Yes 🎉", "no " * 100)]
    with pytest.raises(InputError, match=r"2 of the pairs.*row 2 has a prompt of .*row 3 has .*length policy"):
        tokenize_pairs(rows, tokenizer, 64, policy="raise")


def test_a_prompt_limit_counts_by_itself(tokenizer: Any, pair: Pair) -> None:
    with pytest.raises(InputError, match="max_prompt_length 5"):
        tokenize_pairs([pair("Tell me more", "Yes 🎉", "Yes")], tokenizer, 64, max_prompt_length=5, policy="raise")


def test_nothing_left_is_an_error_with_the_reason(tokenizer: Any, pair: Pair) -> None:
    with pytest.raises(InputError, match="none of the 1 pairs can be trained on: 1 over the length limit"):
        tokenize_pairs([pair("why " * 100, "Yes 🎉", "Yes")], tokenizer, 64)


def test_a_tokenizer_without_template_is_refused(make_tokenizer: Callable[..., Any], pair: Pair) -> None:
    tokenizer = make_tokenizer(BARE, ("</s>",), eos_token="</s>", pad_token="</s>")
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        tokenize_pairs([pair("Hi", "Yes 🎉", "Yes")], tokenizer, 64)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["mistral", "qwen2.5", "qwen3", "smollm2"])
def test_real_tokenizers_give_one_end_and_their_own_opening(shared_data: Path, name: str, pair: Pair) -> None:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    folder = shared_data.parent / "tokenizers" / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    # AutoTokenizer takes 20 s for smollm2, whose class it builds anew.
    tokenizer_class = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else AutoTokenizer
    tokenizer = tokenizer_class.from_pretrained(folder)
    row = pair("Hi there", "Hello 🎉 friend", "Hello friend")
    row = replace(row, prompt=with_system("Be kind.", row.prompt))
    found = tokenize_pairs([row], tokenizer, 256).pairs[0]
    assert found.chosen_ids.count(tokenizer.eos_token_id) == 1 == found.rejected_ids.count(tokenizer.eos_token_id)
    assert found.chosen_ids[-1] == tokenizer.eos_token_id
    assert str(tokenizer.decode(found.chosen_ids[:-1])).strip() == "Hello 🎉 friend"
    if tokenizer.bos_token_id is not None and name == "mistral":
        assert found.prompt_ids.count(tokenizer.bos_token_id) == 1


def test_pairs_that_cannot_be_tokenized_are_left_out_and_told_where_that_is_asked_for(
    tokenizer: Any, pair: Pair
) -> None:
    """`--bad-rows drop` read the data so, and one turn marker among thousands of rows still stopped the run."""
    rows = [pair("Hi", "Yes 🎉", "Yes"), pair("a<|im_end|>b", "Yes 🎉", "Yes"), pair("Ho", "No<|im_end|>", "No")]
    found = tokenize_pairs(rows, tokenizer, 64, bad_rows="drop")
    assert [one.row for one in found.pairs] == [1]
    ((reason, dropped),) = found.dropped.items()
    assert dropped == [2, 3] and "turn marker <|im_end|>" in reason
    with pytest.raises(InputError, match=r"none of the 1 pairs can be trained on: 1 is refused: .*turn marker"):
        tokenize_pairs(rows[1:2], tokenizer, 64, bad_rows="drop")
