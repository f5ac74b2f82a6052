"""The settings of one training run: every field is a flag of `train.py`, a key of a recipe, and a line of its help."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orpo.chat_model.default_model import DEFAULT_MODEL
from orpo.command.errors import SettingsError
from orpo.command.paths import default_data_folder, default_training_folder, resolve_user_path
from orpo.command.settings import require, setting
from orpo.scoring import DEFAULT_SCORER, SCORERS

# The paper trains all weights at 8e-6 (arXiv 2403.07691, appendix C). LoRA wants about ten times the rate of full
# training (Schulman et al., "LoRA Without Regret", 2025, thinkingmachines.ai/blog/lora; TRL's PEFT page says the same
# and starts at 2e-4), and small data a little more than that.
_LEARNING_RATE = 2e-4
_DEFAULT_MODEL_RATE = 1e-3


@dataclass(kw_only=True)
class TrainSettings:
    """What `train.py` can be told."""

    model: str = setting(DEFAULT_MODEL, "base model: a local folder, a GGUF file, or a Hub id", short="-m")
    data: str | None = setting(
        None,
        "preference pairs: a folder of generate.py, a JSONL, CSV or Parquet file, a glob, a folder, or a Hub id "
        "(default: data/preferences)",
        short="-d",
    )
    prompt_column: str | None = setting(None, "column of the prompt, where it has none of the usual names")
    chosen_column: str | None = setting(None, "column of the better reply")
    rejected_column: str | None = setting(None, "column of the worse reply")
    system_column: str | None = setting(None, "column of the system prompt")
    bad_rows: Literal["raise", "drop"] = setting(
        "raise", "rows that cannot be used: stop and name them, or leave them out and list them"
    )
    data_config: str | None = setting(None, "configuration of a Hub data set")
    data_split: str = setting("train", "split of a Hub data set or of a datasets folder")
    limit: int | None = setting(None, "use only so many pairs, from the start; generate.py puts the clearest first")
    out: Path | None = setting(None, "run folder (default: trained/<model>-orpo)", short="-o")
    # Both give the same numbers (docs/training_speed.md); the fast one has not been run on a GPU yet.
    trainer: Literal["auto", "fast", "trl"] = setting(
        "auto", "training loop: this project's own, or TRL's ORPOTrainer; auto is fast on a CPU, trl elsewhere"
    )

    # r=16, alpha=32, no dropout, all linear layers: rank matters little on small data, the layers adapted matter much
    # (QLoRA, arXiv 2305.14314, fig. 2; "LoRA Without Regret": attention-only falls behind).
    lora_rank: int = setting(16, "rank r of the adapter")
    lora_alpha: int = setting(32, "the adapter is scaled by alpha / rank")
    lora_dropout: float = setting(0.0, "dropout in front of the adapter, 0 to 1")
    lora_targets: list[str] = setting(["all-linear"], "layers that get an adapter: `all-linear`, or names as q_proj")

    beta: float = setting(0.1, "weight of the odds ratio term; the paper's lambda")
    # The paper's equation 6 has log P(y|x), the reply given the prompt; learning to write the user's part teaches the
    # emoji nothing. TRL and the paper's code take the prompt in.
    nll: Literal["completion", "prompt_and_completion"] = setting(
        "completion", "tokens of the likelihood term: the chosen reply, or the prompt too as TRL does"
    )
    learning_rate: float | None = setting(
        None, "peak learning rate (default: 1e-3 for the default model, 2e-4 for any other)"
    )
    schedule: Literal["linear", "cosine", "constant"] = setting("linear", "how the rate falls after the warm-up")
    warmup_share: float = setting(0.1, "share of the steps in which the rate rises")
    weight_decay: float = setting(0.0, "AdamW's weight decay")
    max_gradient_norm: float = setting(1.0, "gradients are clipped to this norm; 0 leaves them as they are")
    epochs: float = setting(1.0, "passes over the pairs")
    max_steps: int | None = setting(None, "stop after so many steps, whatever --epochs says")
    batch_size: int = setting(8, "pairs per step and device")
    gradient_accumulation_steps: int = setting(1, "micro-batches per step; the step sees batch size times this")
    token_budget: int | None = setting(
        None, "trainer `fast`: most tokens of one forward pass; the step's pairs are packed (default: 2048 on a CPU)"
    )
    onednn: bool = setting(True, "trainer `fast`: fp32 products on a CPU go through oneDNN, which is faster")
    gradient_checkpointing: bool = setting(False, "less memory, about a third more time")

    max_length: int = setting(512, "tokens of prompt and reply together")
    max_prompt_length: int | None = setting(None, "tokens of the prompt")
    length_policy: Literal["drop", "truncate", "raise"] = setting(
        "drop", "pairs over a limit: leave them out, shorten them (the end token stays), or stop"
    )

    eval_share: float = setting(0.1, "share of the prompts whose pairs are kept for evaluation")
    eval_steps: int | None = setting(None, "evaluate every so many steps (default: four times in the run)")
    eval_prompts: str = setting("embedded", "held-out prompts to answer at each evaluation: `embedded`, or a file")
    eval_prompt_count: int = setting(32, "how many of them; 0 answers none")
    reward_pairs: int = setting(16, "evaluation pairs whose reward R(y) is measured; 0 measures none")
    max_new_tokens: int = setting(80, "longest reply that is sampled at an evaluation")
    scorer: str = setting(DEFAULT_SCORER, "the score of sampled replies, also within R(y)", choices=SCORERS)

    save_steps: int | None = setting(None, "checkpoint every so many steps (default: at each evaluation)")
    keep_checkpoints: int = setting(2, "how many checkpoints stay")
    logging_steps: int = setting(5, "log every so many steps")
    estimate: bool = setting(False, "trainer `fast`: say how much memory a step will take, and train nothing")
    resume: bool = setting(False, "go on with an unfinished run from its last checkpoint")
    overwrite: bool = setting(False, "replace an earlier run")

    device: Literal["auto", "cuda", "mps", "cpu"] = setting("auto", "where to compute; auto takes the fastest there is")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto", "the base model's numbers; auto is bfloat16 on CUDA, float32 elsewhere"
    )
    attention: Literal["auto", "sdpa", "eager", "flex_attention", "flash_attention_2"] = setting(
        "auto", "the model's attention; auto is its own default. flex_attention is for CUDA"
    )
    quantize: Literal["none", "4bit"] = setting(
        "none", "4bit keeps the base model in NF4 (QLoRA), on CUDA; needs bitsandbytes: `uv sync --extra qlora`"
    )
    seed: int = setting(42, "seeds the adapter, the order of the pairs and the sampled replies")
    chat_template: Path | None = setting(None, "a Jinja file to use instead of the tokenizer's chat template")
    trust_remote_code: bool = setting(False, "run code that comes with a model; only for authors you trust")

    def __post_init__(self) -> None:
        """Check the ranges, naming the flag."""
        self._check_optimisation()
        self._check_lengths()
        for name in ("lora_rank", "batch_size", "gradient_accumulation_steps", "keep_checkpoints", "logging_steps"):
            require(getattr(self, name) >= 1, _flag(name), getattr(self, name), "must be 1 or more")
        for name in ("limit", "max_steps", "eval_steps", "save_steps", "token_budget"):
            value = getattr(self, name)
            require(value is None or value >= 1, _flag(name), value, "must be 1 or more")
        for name in ("eval_prompt_count", "reward_pairs", "seed"):
            require(getattr(self, name) >= 0, _flag(name), getattr(self, name), "must be 0 or more")
        require(0 <= self.eval_share < 1, "--eval-share", self.eval_share, "must be at least 0 and below 1")
        require(bool(self.model.strip()), "--model", repr(self.model), "must name a model")
        if self.estimate and self.trainer == "trl":
            raise SettingsError("--estimate: knows the memory of --trainer fast only, not of trl")
        if self.resume and self.overwrite:
            raise SettingsError("--resume and --overwrite exclude each other: go on with the run, or start it again")

    def _check_optimisation(self) -> None:
        rate = self.learning_rate
        require(rate is None or rate > 0, "--learning-rate", rate, "must be above 0")
        require(self.beta >= 0, "--beta", self.beta, "must be 0 or more")
        require(self.lora_alpha >= 1, "--lora-alpha", self.lora_alpha, "must be 1 or more")
        require(0 <= self.lora_dropout < 1, "--lora-dropout", self.lora_dropout, "must be at least 0 and below 1")
        require(bool(self.lora_targets), "--lora-targets", "(nothing)", "must name layers, or all-linear")
        require(0 <= self.warmup_share < 1, "--warmup-share", self.warmup_share, "must be at least 0 and below 1")
        require(self.weight_decay >= 0, "--weight-decay", self.weight_decay, "must be 0 or more")
        require(self.max_gradient_norm >= 0, "--max-gradient-norm", self.max_gradient_norm, "must be 0 or more")
        require(self.epochs > 0, "--epochs", self.epochs, "must be above 0")

    def _check_lengths(self) -> None:
        require(self.max_length >= 8, "--max-length", self.max_length, "must be 8 or more")
        require(self.max_new_tokens >= 1, "--max-new-tokens", self.max_new_tokens, "must be 1 or more")
        limit = self.max_prompt_length
        fits = limit is None or 1 <= limit <= self.max_length - 2
        room = f"must be between 1 and {self.max_length - 2}, so that a reply fits into --max-length {self.max_length}"
        require(fits, "--max-prompt-length", limit, room)

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate given, or the one that suits the model."""
        if self.learning_rate is not None:
            return self.learning_rate
        return _DEFAULT_MODEL_RATE if self.model == DEFAULT_MODEL else _LEARNING_RATE

    def trainer_on(self, device_type: str) -> str:
        """The training loop on a kind of device."""
        if self.trainer != "auto":
            return self.trainer
        return "fast" if device_type == "cpu" else "trl"

    @property
    def data_source(self) -> str:
        """Where the pairs are read from."""
        return self.data or str(default_data_folder())

    @property
    def run_folder(self) -> Path:
        """Where the run is written."""
        if self.out is not None:
            return resolve_user_path(self.out)
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self.model.rstrip("/").rsplit("/", 1)[-1]).strip("-.") or "model"
        return default_training_folder() / f"{name}-orpo"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
