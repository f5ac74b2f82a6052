"""Build the tokenizer and the two token sets that the base model is trained on.

    python build_corpus.py --data ../../../shared/data

Stage 1 is broad (human dialogues, assistant replies, word problems and written conversations), stage 2 is
what the model is for: everyday messages written for this project, under system prompts that ask for emojis,
forbid them, or do not mention them; a twentieth of it is plain prose outside any chat, so that the model still
knows what that looks like. Everything is seeded: the same inputs give the same files.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import system_prompts
from arithmetic import draw_arithmetic
from corpora import Conversation, read_assistant_replies, read_dialogues, read_word_problems
from emoji_lexicon import EmojiLexicon, add_emojis
from held_out import HeldOutPrompts
from orpo.preferences.prompts import embedded_prompts
from written import draw_written, load_intents

HERE = Path(__file__).parent
PAD, START, END = "<|pad|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_WITH_FRIEND = [
    "You are chatting with a friend.",
    "Chat with a friend.",
    "This is a chat between friends.",
    "You are a person in a chat.",
]

Message = tuple[str, str]
PROSE = "prose"  # the role of a document that is no chat: its text stands alone, and every token of it counts


class ConversationDresser:
    """Turns conversations into messages: draws the system prompt and writes the replies to match it."""

    def __init__(self, lexicon: EmojiLexicon, rng: random.Random) -> None:
        """Use `lexicon` for the emojis and `rng` for every draw."""
        self.lexicon = lexicon
        self.rng = rng

    def _emojify(self, turns: list[str], mood: str) -> list[str]:
        return [
            add_emojis(self.lexicon, turn, turns[i - 1], mood, self.rng) if i % 2 else turn
            for i, turn in enumerate(turns)
        ]

    def __call__(self, conversation: Conversation) -> list[Message]:
        """The messages, with or without a system prompt, with emojis in the replies only where they were asked for."""
        turns, rng = list(conversation.turns), self.rng
        human = conversation.source in (
            "self_dialogue",
            "synthetic_persona_chat",
            "topical_chat",
            "casino",
            "taskmaster4",
        )
        draw, system = rng.random(), None
        if draw < 0.36:
            system, turns = system_prompts.asking(rng), self._emojify(turns, conversation.mood)
        elif draw < 0.56:
            system = system_prompts.forbidding(rng)
        elif draw < 0.61:
            system = system_prompts.neutral(rng)
        elif draw < 0.67 and len(turns) == 2 and "\n" not in turns[1]:
            wanted = rng.random() < 0.5
            if wanted:
                turns = self._emojify(turns, conversation.mood)
            mark = "" if turns[0][-1] in ".!?" else "."
            turns[0] = f"{turns[0]}{mark} {system_prompts.in_message(wanted, rng)}"
        if human:  # people speak of their own lives: the assistant must not do so unasked
            system = f"{rng.choice(_WITH_FRIEND)} {system}" if system else rng.choice(_WITH_FRIEND)
        messages = [("system", system)] if system else []
        return messages + [("assistant" if i % 2 else "user", turn) for i, turn in enumerate(turns)]


def join_some(conversations: Iterable[Conversation], rng: random.Random, share: float = 0.12) -> Iterator[Conversation]:
    """Now and then two single exchanges become one longer chat, so that the latest message is what gets answered."""
    waiting: Conversation | None = None
    for conversation in conversations:
        if waiting is not None:
            yield Conversation(conversation.source, waiting.turns + conversation.turns, conversation.mood)
            waiting = None
        elif rng.random() < share and len(conversation.turns) == 2:
            waiting = conversation
        else:
            yield conversation


def as_prose(conversation: Conversation) -> list[Message]:
    """What was said as running text: the reply of an assistant, or the turns of people one after the other."""
    turns = conversation.turns[1:] if conversation.source == "open_assistant" else conversation.turns
    return [(PROSE, " ".join(turns))]


def emoji_lines(lexicon: EmojiLexicon, dressed: Iterable[str], common: int = 300) -> Iterator[str]:
    """Lines that make every emoji of the lexicon a token, and the `common` ones also together with their space."""
    frequent = {e for pairs in [*lexicon.by_stem.values(), *lexicon.by_mood.values()] for e, _ in pairs}
    used = Counter(emoji for text in dressed for emoji in frequent & set(text.split()))
    for emoji in sorted(frequent):
        yield from [emoji] * 600
    for emoji, _ in used.most_common(common):
        yield from [f" {emoji}"] * 400


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE; digits stand alone so that sums can be learnt; common emojis are one or two tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Save in the form that `AutoTokenizer` reads, with the ChatML template and <|im_end|> as EOS."""
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    fast.add_special_tokens({"additional_special_tokens": [START]})
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)


def encode(tokenizer: Tokenizer, messages: list[Message], max_tokens: int) -> tuple[list[int], list[int]] | None:
    """Token ids in ChatML and, per token, 1 where an assistant's reply (or its EOS) stands, or prose."""
    if messages[0][0] == PROSE:
        ids = tokenizer.encode(messages[0][1]).ids[:max_tokens]
        return ids, [1] * len(ids)
    start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
    newline = tokenizer.encode("\n").ids
    ids: list[int] = []
    is_reply: list[int] = []
    for role, content in messages:
        head = [start, *tokenizer.encode(f"{role}\n").ids]
        body = [*tokenizer.encode(content).ids, end]
        ids += head + body + newline
        is_reply += [0] * len(head) + [int(role == "assistant")] * len(body) + [0] * len(newline)
    ids, is_reply = ids[: -len(newline)], is_reply[: -len(newline)]
    return (ids, is_reply) if len(ids) <= max_tokens else None


def write_tokens(path: Path, tokenizer: Tokenizer, documents: Iterable[list[Message]], max_tokens: int = 256) -> int:
    """Write token ids, reply flags and document bounds to an .npz file; returns the number of tokens."""
    ids: list[np.ndarray] = []
    flags: list[np.ndarray] = []
    for messages in documents:
        encoded = encode(tokenizer, messages, max_tokens)
        if encoded is not None:
            ids.append(np.array(encoded[0], dtype=np.uint16))
            flags.append(np.array(encoded[1], dtype=np.uint8))
    bounds = np.concatenate([[0], np.cumsum([len(x) for x in ids])]).astype(np.int64)
    np.savez(path, ids=np.concatenate(ids), is_reply=np.concatenate(flags), bounds=bounds)
    return int(bounds[-1])


def main() -> None:
    """Read, clean, dress, tokenize and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with chat/ and emoji/ (homes in README.md)")
    parser.add_argument("--out", type=Path, default=HERE / "build")
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument(
        "--written", type=int, default=60_000, help="written conversations in stage 1; stage 2 has six times as many"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=["stage1", "stage2"], help="keep the tokenizer, rebuild one stage")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    began, rng = time.time(), random.Random(args.seed)

    def say(text: str) -> None:
        print(f"[{time.time() - began:6.0f} s] {text}", file=sys.stderr, flush=True)

    lexicon = EmojiLexicon(args.data / "emoji")
    intents = load_intents(HERE / "intents")
    held_out = HeldOutPrompts(prompt.text for prompt in embedded_prompts("held_out"))
    dialogues = list(read_dialogues(args.data / "chat"))
    replies = list(read_assistant_replies(args.data / "chat"))
    problems = list(read_word_problems(args.data / "chat"))
    say(
        f"{len(dialogues)} dialogue pieces, {len(replies)} assistant replies, {len(problems)} word problems, "
        f"{len(intents)} intents"
    )

    tokenizer_file = args.out / "tokenizer.json"
    if args.only is None:
        sample = rng.sample(dialogues, min(30_000, len(dialogues))) + replies + list(draw_written(intents, 60_000, rng))
        texts = (turn for c in sample for turn in c.turns)
        prompts = [system_prompts.asking(rng) for _ in range(500)] + [
            system_prompts.forbidding(rng) for _ in range(500)
        ]
        roles = ["user\n", "assistant\n", "system\n"] * 20_000
        dressed = [add_emojis(lexicon, c.turns[1], c.turns[0], c.mood, rng) for c in draw_written(intents, 20_000, rng)]
        tokenizer = train_tokenizer([*texts, *prompts, *roles, *emoji_lines(lexicon, dressed)], args.vocab_size)
        tokenizer.save(str(tokenizer_file))
        save_tokenizer(tokenizer, args.out / "tokenizer")
        say("tokenizer trained")
    tokenizer = Tokenizer.from_file(str(tokenizer_file))

    dress = ConversationDresser(lexicon, rng)

    def documents(conversations: list[Conversation]) -> Iterator[list[Message]]:
        rng.shuffle(conversations)
        kept = (c for c in conversations if not any(map(held_out.is_near, c.turns[::2])))
        return (dress(c) for c in join_some(kept, rng))

    if args.only in (None, "stage1"):
        stage1 = (
            dialogues
            + replies
            + problems
            + list(draw_written(intents, args.written, rng))
            + list(draw_arithmetic(6_000, rng))
        )
        say(f"stage 1: {write_tokens(args.out / 'stage1.npz', tokenizer, documents(stage1)):,} tokens")
    if args.only in (None, "stage2"):
        stage2 = rng.sample(dialogues, min(8_000, len(dialogues))) + rng.sample(replies, min(6_000, len(replies)))
        stage2 += list(draw_written(intents, 6 * args.written, rng)) + list(
            draw_arithmetic(6 * args.written // 14, rng)
        )
        prose = [*map(as_prose, rng.sample(dialogues, min(14_000, len(dialogues))) + 2 * replies)]
        mixed = [*documents(stage2), *prose]
        rng.shuffle(mixed)
        say(f"stage 2: {write_tokens(args.out / 'stage2.npz', tokenizer, mixed):,} tokens")


if __name__ == "__main__":
    main()
