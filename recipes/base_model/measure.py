"""Measure the base model on held-out prompts and write its model card.

    uv run recipes/base_model/measure.py                 # measures the shipped model, rewrites its card
    uv run recipes/base_model/measure.py --model build/run/model --no-card

The prompts are 200 of the embedded held-out ones, the system prompts those of `system_prompts.MEASURED`: no training
text holds any of them.
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import system_prompts

HERE = Path(__file__).parent
CONDITIONS: dict[str, list[str | None]] = {**system_prompts.MEASURED, "no_system_prompt": [None]}


def measure_condition(model, tokenizer, prompts: list[str], systems: list[str | None], seed: int) -> dict:
    """Rates over the replies to `prompts`, whose system prompts take turns."""
    from orpo.chat_model.messages import user_message, with_system
    from orpo.chat_model.replies import Sampling, generate_replies
    from orpo.evaluation.held_out import measure_replies

    chats = [with_system(systems[i % len(systems)], user_message(p)) for i, p in enumerate(prompts)]
    began = time.time()
    replies = generate_replies(model, tokenizer, chats, Sampling(max_new_tokens=80), seed=seed, batch_size=50)
    seconds = time.time() - began
    measures = measure_replies(replies, seconds)
    return {
        "with_emoji": measures.emoji_rate,
        "emojis_per_reply": measures.mean_emojis,
        "most_emojis": measures.max_emojis,
        "ended_by_eos": measures.finished_share,
        "repeats_4gram_3_times": measures.repeated_share,
        "words_per_reply": np.mean([len(r.text.split()) for r in replies]).item(),
        "tokens_per_second": measures.tokens_per_second,
        "replies": [r.text for r in replies],
    }


@torch.no_grad()
def perplexity_per_word(model, tokenizer, path: Path, documents: int = 600) -> float:
    """exp(summed NLL of the held-out replies / their words), on the last documents of a token set."""
    with np.load(path) as arrays:
        ids, flags, bounds = arrays["ids"], arrays["is_reply"], arrays["bounds"]
    total, words = 0.0, 0
    for i in range(len(bounds) - 1 - documents, len(bounds) - 1):
        row = torch.from_numpy(ids[bounds[i] : bounds[i + 1]].astype(np.int64))
        reply = torch.from_numpy(flags[bounds[i] : bounds[i + 1]].astype(bool))
        logits = model(row[None]).logits[0, :-1].float()
        total += F.cross_entropy(logits[reply[1:]], row[1:][reply[1:]], reduction="sum").item()
        words += len(tokenizer.decode(row[reply], skip_special_tokens=True).split())
    return math.exp(total / words)


def write_card(path: Path, facts: dict, samples: list[str]) -> None:
    """Fill card_template.md with the measured figures."""
    text = (HERE / "card_template.md").read_text(encoding="utf-8")
    for name, value in facts.items():
        text = text.replace("{{" + name + "}}", str(value))
    path.write_text(text.replace("{{samples}}", "\n".join(samples)), encoding="utf-8")


def main() -> None:
    """Measure, print JSON, write the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--build", type=Path, default=HERE / "build")
    parser.add_argument("--run", type=Path, default=HERE / "build" / "run", help="whose log the card quotes")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-card", action="store_true")
    args = parser.parse_args()

    from orpo.chat_model.loading import load_model, load_tokenizer
    from orpo.preferences.prompts import embedded_prompts

    tokenizer = load_tokenizer(args.model)
    model = load_model(args.model, device=torch.device("cpu"), dtype=torch.float32)
    held_out = embedded_prompts("held_out")
    prompts = [p.text for p in random.Random(args.seed).sample(held_out, min(args.count, len(held_out)))]
    results = {name: measure_condition(model, tokenizer, prompts, s, args.seed) for name, s in CONDITIONS.items()}

    samples = []
    for i in range(20):
        condition = ["no_system_prompt", "use_emojis", "no_emojis"][i % 3]
        reply = results[condition]["replies"][i].replace("\n", "  \n> ")
        samples.append(f"**{prompts[i]}** ({condition.replace('_', ' ')})\n> {reply}\n")
    facts = {"parameters": f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M", "prompts": len(prompts)}
    for name, result in results.items():
        del result["replies"]
        for key, value in result.items():
            shares = ("with_emoji", "ended_by_eos", "repeats_4gram_3_times")
            facts[f"{name}.{key}"] = f"{value:.1%}" if key in shares else f"{value:.3g}"
    for stage in (1, 2):
        if (args.build / f"stage{stage}.npz").exists():
            value = perplexity_per_word(model, tokenizer, args.build / f"stage{stage}.npz")
            results[f"perplexity_per_word_stage{stage}"] = value
            facts[f"perplexity_stage{stage}"] = f"{value:.1f}"
    print("\n".join(samples))
    if not args.no_card:
        from orpo.running.places import embedded_model_folder

        log = (args.run / "log.jsonl").read_text().splitlines()
        last = json.loads(log[-1])
        facts |= {"steps": last["of"], "minutes": last["minutes"], "held_out_loss": last["held_out_loss"]}
        write_card(embedded_model_folder() / "README.md", facts, samples)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
