"""Pretrain the embedded base model on the token sets of build_corpus.py.

    python pretrain.py                 # from the start, or on from the last checkpoint in build/run
    python pretrain.py --stage1-tokens 20e6 --stage2-tokens 60e6

Muon (Jordan et al. 2024, torch.optim.Muon) trains the matrices, AdamW the tied embedding and the norms; the learning
rate warms up, stays, and falls linearly to zero over the last part (WSD). Stage 1 learns from every token, stage 2 from
the replies only. Documents are batched by length, never packed, so each one starts at position 0 as in use.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # what TokenSet.tensors returns
BUCKETS = (48, 56, 64, 72, 80, 96, 128, 192, 256)  # padded lengths: one compiled graph each


class TokenSet:
    """Documents of an .npz written by build_corpus.py; the last `held_out` of them are never trained on."""

    def __init__(self, path: Path, held_out: int = 600) -> None:
        """Load ids, reply flags and bounds."""
        with np.load(path) as arrays:
            self.ids, self.is_reply, self.bounds = arrays["ids"], arrays["is_reply"], arrays["bounds"]
        self.lengths = np.diff(self.bounds)
        self.documents = len(self.lengths) - held_out

    def batches(self, tokens: int, batch_tokens: int, seed: int) -> list[np.ndarray]:
        """Document numbers of each micro-batch: same bucket, about `batch_tokens` padded tokens, in random order."""
        rng, chosen = np.random.default_rng(seed), []
        budget = tokens
        while budget > 0:
            order = rng.permutation(self.documents)
            kept = order[: np.searchsorted(np.cumsum(self.lengths[order]), budget) + 1]
            budget -= int(self.lengths[kept].sum())
            bucket_of = np.searchsorted(BUCKETS, self.lengths[kept])
            for number, width in enumerate(BUCKETS):
                rows = kept[bucket_of == number]
                size = batch_tokens // width
                chosen += [rows[i : i + size] for i in range(0, len(rows) - size + 1, size)]
        return [chosen[i] for i in rng.permutation(len(chosen))]

    def tensors(self, documents: np.ndarray, replies_only: bool) -> Batch:
        """`ids` (B, T) right-padded with 0, the positions (B, T-1) that predict a counted token, and those tokens."""
        width = BUCKETS[np.searchsorted(BUCKETS, self.lengths[documents].max())]
        ids = np.zeros((len(documents), width), dtype=np.int64)
        counted = np.zeros((len(documents), width), dtype=bool)
        for row, document in enumerate(documents):
            begin, end = self.bounds[document], self.bounds[document + 1]
            ids[row, : end - begin] = self.ids[begin:end]
            counted[row, : end - begin] = self.is_reply[begin:end] if replies_only else True
        tensor, where = torch.from_numpy(ids), torch.from_numpy(counted[:, 1:])
        return tensor, where, tensor[:, 1:][where]

    def held_out_batches(self) -> Iterator[np.ndarray]:
        """The held-out documents, 32 at a time, sorted by length."""
        rows = np.arange(self.documents, len(self.lengths))
        rows = rows[np.argsort(self.lengths[rows], kind="stable")]
        return (rows[i : i + 32] for i in range(0, len(rows), 32))


def build_model(hidden: int, layers: int, intermediate: int, heads: int, vocab: int) -> LlamaForCausalLM:
    """A Llama with a tied head. Attention is spelled out ("eager"): at these lengths it trains 12 to 27 % faster on a
    CPU than the fused kernel (docs/experiments.md)."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab, hidden_size=hidden, num_hidden_layers=layers, intermediate_size=intermediate,
            num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=1024, rope_theta=10_000.0,
            tie_word_embeddings=True, initializer_range=0.02, bos_token_id=None, eos_token_id=2, pad_token_id=0,
            attn_implementation="eager",
        )
    )  # fmt: skip


class Trainer:
    """One run: model, optimisers, schedule, log and checkpoints."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Build everything; nothing is read from a checkpoint yet."""
        self.args, self.step, self.spent = args, 0, 0.0
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(args.seed)
        self.tokenizer = AutoTokenizer.from_pretrained(args.build / "tokenizer")
        self.model = self._new_model().to(self.device)
        matrices = [p for n, p in self.model.named_parameters() if p.ndim == 2 and "embed" not in n]
        others = [p for n, p in self.model.named_parameters() if p.ndim != 2 or "embed" in n]
        self.optimizers = [
            torch.optim.Muon(matrices, lr=args.muon_lr, weight_decay=0.01, momentum=0.95),
            torch.optim.AdamW(others, lr=args.adam_lr, betas=(0.8, 0.95), weight_decay=0.0),
        ]
        self.base_rates = [args.muon_lr, args.adam_lr]
        compiled = not args.no_compile
        self.body = torch.compile(self._body, dynamic=False) if compiled else self._body
        self.head = torch.compile(self._head, dynamic=True) if compiled else self._head
        if compiled:
            torch._dynamo.config.cache_size_limit = 32

    def _new_model(self) -> LlamaForCausalLM:
        args = self.args
        return build_model(args.hidden, args.layers, args.intermediate, args.heads, len(self.tokenizer))

    def _body(self, ids: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            return self.model.model(input_ids=ids, use_cache=False).last_hidden_state

    def _head(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            logits = self.model.lm_head(hidden)
        return F.cross_entropy(logits.float(), targets, reduction="sum")

    def loss_sum(self, batch: Batch, body: Callable, head: Callable) -> torch.Tensor:
        """Summed cross-entropy over the counted tokens of a micro-batch."""
        ids, where, targets = (tensor.to(self.device) for tensor in batch)
        return head(body(ids)[:, :-1][where], targets)

    def set_rates(self, total_steps: int) -> float:
        """Warm up, hold, decay linearly to zero over the last `decay` share; returns the factor."""
        warm = min(1.0, (self.step + 1) / self.args.warmup_steps)
        factor = warm * min(1.0, (total_steps - self.step) / max(1.0, self.args.decay * total_steps))
        for optimizer, rate in zip(self.optimizers, self.base_rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        return factor

    def train_step(self, tokens: TokenSet, group: list[np.ndarray], replies_only: bool) -> float:
        """One update over the micro-batches of `group`, normalised by all their counted tokens."""
        batches = [tokens.tensors(rows, replies_only) for rows in group]
        counted = sum(len(targets) for *_, targets in batches)
        total = 0.0
        for batch in batches:
            loss = self.loss_sum(batch, self.body, self.head)
            (loss / counted).backward()
            total += loss.item()
        if not np.isfinite(total):
            sys.exit(f"error: the loss is {total} at step {self.step}; lower --muon-lr and run again, it resumes")
        torch.nn.utils.clip_grad_norm_(self.optimizers[1].param_groups[0]["params"], 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return total / counted

    @torch.no_grad()
    def held_out_loss(self, tokens: TokenSet) -> float:
        """Mean cross-entropy of the held-out replies, in nats per token."""
        total, count = 0.0, 0
        for rows in tokens.held_out_batches():
            batch = tokens.tensors(rows, replies_only=True)
            total += self.loss_sum(batch, self._body, self._head).item()  # odd shapes: not worth a graph each
            count += len(batch[2])
        return total / count

    def save(self) -> None:
        """Write the checkpoint (fp32 model and optimiser state as safetensors) and the exported bf16 model."""
        folder = self.args.run / "checkpoint"
        partial = folder.with_name("checkpoint.partial")
        partial.mkdir(parents=True, exist_ok=True)
        save_file(
            {n: p.detach().cpu().contiguous() for n, p in self.model.named_parameters()}, partial / "model.safetensors"
        )
        for number, optimizer in enumerate(self.optimizers):
            state = optimizer.state_dict()["state"]
            flat = {f"{i}/{k}": v.cpu().contiguous().clone() for i, values in state.items() for k, v in values.items()}
            save_file(flat, partial / f"optimizer{number}.safetensors")
        (partial / "state.json").write_text(json.dumps({"step": self.step, "spent": self.spent}))
        previous = folder.with_name("checkpoint.previous")
        shutil.rmtree(previous, ignore_errors=True)
        if folder.exists():
            folder.rename(previous)
        partial.rename(folder)
        self.export(self.args.run / "model")

    def export(self, folder: Path) -> None:
        """Write model and tokenizer as plain `AutoModelForCausalLM` and `AutoTokenizer` read them, in bf16."""
        shrunk = self._new_model()
        shrunk.load_state_dict(self.model.state_dict())
        shrunk.to(torch.bfloat16)
        shrunk.generation_config.update(eos_token_id=2, pad_token_id=0, max_new_tokens=80)
        shrunk.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def load_weights(self, folder: Path) -> None:
        """Take the fp32 weights of a checkpoint."""
        self.model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
        self.model.tie_weights()

    def resume(self) -> None:
        """Go on from the checkpoint, if there is a whole one; otherwise start, from the weights of `--start-from`."""
        folder = self.args.run / "checkpoint"
        if not (folder / "state.json").exists():
            folder = folder.with_name("checkpoint.previous")
        if not (folder / "state.json").exists():
            if self.args.start_from:
                self.load_weights(self.args.start_from)
            return
        self.load_weights(folder)
        for number, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, torch.Tensor]] = {}
            for name, value in load_file(folder / f"optimizer{number}.safetensors").items():
                index, key = name.split("/", 1)
                state.setdefault(int(index), {})[key] = value
            optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
        saved = json.loads((folder / "state.json").read_text())
        self.step, self.spent = saved["step"], saved["spent"]
        print(f"resuming at step {self.step}", file=sys.stderr)

    def run(self) -> None:
        """Train through both stages."""
        args = self.args
        args.run.mkdir(parents=True, exist_ok=True)
        steps1, steps2 = (int(t / args.batch_tokens) for t in (args.stage1_tokens, args.stage2_tokens))
        total, stage, tokens, groups = steps1 + steps2, 0, None, []
        began = time.time() - self.spent
        while self.step < total:
            wanted = 1 if self.step < steps1 else 2
            if wanted != stage:
                stage, tokens = wanted, TokenSet(args.build / f"stage{wanted}.npz")
                steps = steps1 if stage == 1 else steps2
                # A little more than needed: whole batches leave a remainder of every bucket behind.
                micro = tokens.batches(
                    int(steps * args.batch_tokens * 1.2), args.batch_tokens // args.accumulate, args.seed + stage
                )
                groups = [micro[i : i + args.accumulate] for i in range(0, len(micro), args.accumulate)]
            assert tokens is not None
            clock = time.time()
            factor = self.set_rates(total)
            group = groups[(self.step - (0 if stage == 1 else steps1)) % len(groups)]
            loss = self.train_step(tokens, group, replies_only=stage == 2)
            self.step += 1
            counted = sum(int(tokens.lengths[rows].sum()) for rows in group)
            row = {"step": self.step, "of": total, "stage": stage, "loss": round(loss, 4), "rate": round(factor, 4),
                   "tokens_per_second": round(counted / (time.time() - clock))}  # fmt: skip
            self.spent = time.time() - began
            if self.step % args.eval_steps == 0 or self.step == total:
                row["held_out_loss"] = round(self.held_out_loss(tokens), 4)
                self.save()
            if self.step % 10 == 0 or "held_out_loss" in row:
                left = (total - self.step) * (time.time() - clock)
                row |= {"minutes": round(self.spent / 60, 1), "minutes_left": round(left / 60, 1)}
                print(json.dumps(row), file=sys.stderr, flush=True)
                with (args.run / "log.jsonl").open("a") as log:
                    log.write(json.dumps(row) + "\n")


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=HERE / "build", help="what build_corpus.py wrote")
    parser.add_argument("--run", type=Path, default=HERE / "build" / "run", help="checkpoints, log and exported model")
    parser.add_argument(
        "--start-from",
        type=Path,
        help="checkpoint folder of an earlier run, whose weights a new run with a new schedule begins with",
    )
    parser.add_argument("--stage1-tokens", type=float, default=8e6)
    parser.add_argument("--stage2-tokens", type=float, default=22e6)
    parser.add_argument("--batch-tokens", type=int, default=16384)
    parser.add_argument("--accumulate", type=int, default=4, help="micro-batches an update")
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=3e-3)
    parser.add_argument("--warmup-steps", type=int, default=40)
    parser.add_argument("--decay", type=float, default=0.6, help="share of the steps over which the rate falls to zero")
    parser.add_argument("--eval-steps", type=int, default=100)
    parser.add_argument("--hidden", type=int, default=320)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--intermediate", type=int, default=832)
    parser.add_argument("--heads", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: all")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    trainer = Trainer(args)
    trainer.resume()
    trainer.run()


if __name__ == "__main__":
    main()
