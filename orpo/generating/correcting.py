"""What a tuned model learns from its own replies: the same reply as the score would have it, against the one it wrote.

The rejected side is what the model says by itself, and the two differ in their emojis alone, so every pair teaches what
this model gets wrong now. Where it got everything right, its best reply is set against its worst.
"""

from collections.abc import Sequence

from orpo.generating.mix import stream
from orpo.generating.placing import place, strip
from orpo.generating.written import WrittenReply, best_reply, rewritten, worst_reply
from orpo.records.prompts import Prompt
from orpo.scoring.measures import repeats_itself


def better_and_worse(
    prompt: Prompt,
    replies: Sequence[WrittenReply],
    *,
    scorer: str,
    seed: int,
    min_margin: float,
    palette: Sequence[str] | None = None,
) -> tuple[WrittenReply, WrittenReply]:
    """Return the reply to choose and the one to reject, of a model's replies to one prompt.

    Emojis are placed from the palette; from all if None.
    """
    usable = [
        reply for reply in replies if not reply.failure and reply.finished and not repeats_itself(strip(reply.text))
    ]
    corrected = [(_corrected(prompt, reply, scorer, seed, palette), reply) for reply in usable if strip(reply.text)]
    if corrected:
        better, worse = max(corrected, key=lambda pair: pair[0].score - pair[1].score)
        if better.score > worse.score and better.score - worse.score >= min_margin:
            return better, worse
    return best_reply(replies), worst_reply(replies)


def _corrected(
    prompt: Prompt, reply: WrittenReply, scorer: str, seed: int, palette: Sequence[str] | None
) -> WrittenReply:
    """Return the reply with the emojis that the score places, or without any where they have no place."""
    text = place(reply.text, prompt, scorer=scorer, rng=stream(seed, prompt.prompt_id, "correct"), palette=palette)
    return rewritten(reply, text, prompt, scorer)
