"""The settings of one training run: every field is a flag of `train.py`, a key of a recipe, and a line of its help."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from orpo.chat_model.default_model import DEFAULT_MODEL
from orpo.command.errors import SettingsError
from orpo.command.paths import default_data_folder, default_training_folder, resolve_user_path
from orpo.command.settings import require, setting, settings_group
from orpo.records.rows import BadRowsPolicy
from orpo.scoring import DEFAULT_SCORER, SCORERS
from orpo.training.methods import GROUP_SIZE, KL_WEIGHT, METHODS, RATIO_WEIGHT, Method, MethodName

NllTokens = Literal["completion", "prompt_and_completion"]
REPORTERS: Final = ("tensorboard", "trackio", "wandb", "mlflow", "none")

_OF_METHODS: Final = ("beta", "nll", "margin", "label_smoothing", "likelihood_weight")
_WEIGHTS_OF_METHODS: Final = ("desirable_weight", "undesirable_weight")
_OF_GRPO: Final = ("group_size", "kl_weight", "ratio_weight")


@dataclass(kw_only=True)
class LoraSettings:
    """The adapter: W' = W + (alpha / rank) B A.

    r=16, alpha=32, no dropout, all linear layers: rank matters little on small data, the layers adapted matter much
    (QLoRA, arXiv 2305.14314, figure 2; "LoRA Without Regret": attention alone falls behind).
    """

    rank: int = setting(16, "rank r of the adapter", at_least=1)
    alpha: int = setting(32, "the adapter is scaled by alpha / rank", at_least=1)
    dropout: float = setting(0.0, "dropout in front of the adapter, 0 to 1", at_least=0, below=1)
    targets: list[str] = setting(["all-linear"], "layers that get an adapter: `all-linear`, or names as q_proj")

    def __post_init__(self) -> None:
        require(bool(self.targets), "--lora-targets", "(nothing)", "must name layers, or all-linear")


@dataclass(kw_only=True)
class MethodSettings:
    """The loss. What a method does not read must not be given."""

    method: MethodName = setting("orpo", "the loss; docs/methods.md tells what each does")
    beta: float | None = setting(
        None,
        "weight of the preference; ORPO: of the odds ratio term, the paper's lambda; DPO, IPO, CPO, KTO: how close to "
        f"the base model; grpo: of the score in R(y) (default: {METHODS['orpo'].beta:g} for orpo, whose pairs differ "
        f"in an emoji; simpo 2; grpo {METHODS['grpo'].beta:g}; others 0.1)",
    )
    # The paper's equation 6 has log P(y|x), the reply given the prompt; learning to write the user's part teaches the
    # emoji nothing. TRL and the paper's code take the prompt in.
    nll: NllTokens | None = setting(
        None, "orpo, sft, cpo: tokens of the likelihood term, as TRL with the prompt (default: completion)"
    )
    margin: float | None = setting(None, "simpo: gamma / beta, the margin of the mean log-probabilities (default: 0.5)")
    label_smoothing: float | None = setting(None, "dpo, cpo: share of labels taken for wrong (default: 0)")
    likelihood_weight: float | None = setting(None, "cpo: weight of the likelihood term (default: 1)")
    desirable_weight: float | None = setting(
        None, "kto: weight of good replies (default: 1; of single replies, by their numbers)"
    )
    undesirable_weight: float | None = setting(None, "kto: weight of bad replies (default: likewise)")
    group_size: int | None = setting(None, f"grpo: replies sampled for each prompt (default: {GROUP_SIZE})")
    kl_weight: float | None = setting(
        None, f"grpo: weight of the penalty on the distance from the reference (default: {KL_WEIGHT:g})"
    )
    ratio_weight: float | None = setting(
        None,
        "grpo: weight of log(pi / pi_ref) in R(y); above 0 it rewards leaving the reference, below 0 it is a penalty "
        f"(default: {RATIO_WEIGHT:g})",
    )

    def __post_init__(self) -> None:
        """Refuse by name what the method does not read, and check the ranges."""
        for name in (*_OF_METHODS, *_WEIGHTS_OF_METHODS, *_OF_GRPO):
            value, flag = getattr(self, name), "--" + name.replace("_", "-")
            if value is None:
                continue
            readers = ", ".join(method for method, about in METHODS.items() if name in about.reads)
            require(name in self.about.reads, flag, value, f"is not read by --method {self.method}, only by {readers}")
            if name == "label_smoothing":
                require(0 <= value < 0.5, flag, value, "must be at least 0 and below 0.5")
            elif name == "group_size":
                require(value >= 2, flag, value, "must be at least 2: a reply is judged beside others to its prompt")
            elif name not in ("nll", "ratio_weight"):
                above_zero = name == "beta" and self.method == "ipo"  # the target is 1 / (2 beta)
                require(value > 0 if above_zero else value >= 0, flag, value, "must be 0 or more, for ipo above 0")

    @property
    def about(self) -> Method:
        """What is known of the method."""
        return METHODS[self.method]

    @property
    def nll_on_prompt(self) -> bool:
        """Whether the likelihood term runs over the prompt too."""
        return self.nll == "prompt_and_completion"

    @property
    def replies_per_prompt(self) -> int:
        """How many replies grpo samples to each prompt."""
        return self.group_size or GROUP_SIZE

    @property
    def strength(self) -> float:
        """Beta as given, or the method's default; 0 where it has none."""
        return (self.about.beta or 0.0) if self.beta is None else self.beta


@dataclass(kw_only=True)
class OptimiserSettings:
    """AdamW, the rate and its course, and how much a step holds."""

    learning_rate: float | None = setting(
        None, "peak learning rate (default: by the model's width and family, and the method)", above=0
    )
    schedule: Literal["linear", "cosine", "constant"] = setting("linear", "how the rate falls after the warm-up")
    warmup_share: float = setting(0.1, "share of the steps in which the rate rises", at_least=0, below=1)
    weight_decay: float = setting(0.0, "AdamW's weight decay", at_least=0)
    max_gradient_norm: float = setting(1.0, "gradients are clipped to this norm; 0 leaves them as they are", at_least=0)
    epochs: float = setting(1.0, "passes over the pairs", above=0)
    max_steps: int | None = setting(None, "stop after this many steps, whatever --epochs says", at_least=1)
    batch_size: int = setting(8, "pairs per step and device", at_least=1)
    gradient_accumulation_steps: int = setting(
        1, "micro-batches per step; the step sees batch size times this", at_least=1
    )


@dataclass(kw_only=True)
class LengthSettings:
    """How long prompts and replies may be, and what happens to longer ones."""

    max_length: int = setting(512, "tokens of prompt and reply together", at_least=8)
    max_prompt_length: int | None = setting(None, "tokens of the prompt")
    length_policy: Literal["drop", "truncate", "raise"] = setting(
        "drop", "pairs over a limit: leave them out, shorten them (the end token stays), or stop"
    )

    def __post_init__(self) -> None:
        limit = self.max_prompt_length
        fits = limit is None or 1 <= limit <= self.max_length - 2
        room = f"must be between 1 and {self.max_length - 2}, so that a reply fits into --max-length {self.max_length}"
        require(fits, "--max-prompt-length", limit, room)


@dataclass(kw_only=True)
class WatchSettings:
    """What is measured, logged and kept while the run goes on."""

    eval_share: float = setting(0.1, "share of the prompts whose pairs are kept for evaluation", at_least=0, below=1)
    eval_steps: int | None = setting(None, "evaluate after every N steps (default: four times in the run)", at_least=1)
    eval_prompts: str = setting("embedded", "held-out prompts to answer at each evaluation: `embedded`, or a file")
    eval_prompt_count: int = setting(32, "how many of them; 0 answers none", at_least=0)
    reward_pairs: int = setting(16, "evaluation pairs whose reward R(y) is measured; 0 measures none", at_least=0)
    reward_beta: float | None = setting(
        None,
        "weight of the score in R(y) = log(pi / pi_ref) + reward beta * advantage (default: 0.1; grpo's is --beta)",
        at_least=0,
    )
    # As many as the comparison of base and tuned allows: with 120 the probes of a short run took 95 of its 251 seconds.
    max_new_tokens: int = setting(80, "longest reply that is sampled, at an evaluation and by grpo", at_least=1)
    scorer: str = setting(DEFAULT_SCORER, "the score of sampled replies, also within R(y)", choices=SCORERS)
    save_steps: int | None = setting(
        None, "write a checkpoint after every N steps (default: at evaluations)", at_least=1
    )
    keep_checkpoints: int = setting(2, "how many checkpoints stay", at_least=1)
    early_stopping: int | None = setting(
        None, "stop after N evaluations without a lower loss; the best checkpoint's adapter is written", at_least=1
    )
    logging_steps: int = setting(5, "log after every N steps", at_least=1)
    report_to: list[str] = setting(
        ["tensorboard"],
        "where the figures go, one or several; trackio, wandb and mlflow are packages of their own",
        choices=REPORTERS,
    )

    def __post_init__(self) -> None:
        named = self.report_to
        is_clear = bool(named) and ("none" not in named or len(named) == 1)
        require(is_clear, "--report-to", " ".join(named) or "(nothing)", "must name one or several, or none alone")
        stops = self.early_stopping
        has_pairs = stops is None or self.eval_share > 0
        require(has_pairs, "--early-stopping", stops, "needs evaluation pairs, and --eval-share 0 keeps none")
        only = "leave it out: with --early-stopping a checkpoint is written at each evaluation (--eval-steps)"
        require(stops is None or self.save_steps is None, "--save-steps", self.save_steps, only)


@dataclass(kw_only=True)
class DeviceSettings:
    """Where and in which numbers the run computes, and how much memory it may take."""

    device: Literal["auto", "cuda", "mps", "cpu"] = setting("auto", "where to compute; auto takes the fastest there is")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto",
        "the base model's numbers; auto is bfloat16 on CUDA, and on a CPU float32 with the frozen weights and their "
        "products in bfloat16 where the processor is faster in it: with AMX, and AMD's with AVX-512 BF16",
    )
    attention: Literal["auto", "sdpa", "eager", "flex_attention", "flash_attention_2"] = setting(
        "auto", "the model's attention; auto is its own default. flex_attention is for CUDA"
    )
    quantize: Literal["none", "4bit"] = setting(
        "none", "4bit keeps the base model in NF4 (QLoRA), on CUDA; needs bitsandbytes: `uv sync --extra qlora`"
    )
    token_budget: int | None = setting(
        None,
        "trainer `fast`: most tokens of one forward pass; the step's pairs are packed (default: 2048 on a CPU)",
        at_least=1,
    )
    gradient_checkpointing: bool = setting(False, "less memory, about a third more time")


@dataclass(kw_only=True)
class TrainSettings:
    """What `train.py` can be told."""

    model: str = setting(DEFAULT_MODEL, "base model: a local folder, a GGUF file, or a Hub id", short="-m")
    data: list[str] | None = setting(
        None,
        "preference pairs: a folder of generate.py, a JSONL, CSV or Parquet file, a glob, a folder, or a Hub id; "
        "several are trained on together, and NAME:2 is seen twice as often (default: data/preferences)",
        short="-d",
    )
    prompt_column: str | None = setting(None, "column of the prompt, where it has none of the usual names")
    chosen_column: str | None = setting(None, "column of the better reply")
    rejected_column: str | None = setting(None, "column of the worse reply")
    system_column: str | None = setting(None, "column of the system prompt")
    bad_rows: BadRowsPolicy = setting(
        "raise", "rows that cannot be used: stop and name them, or leave them out and list them"
    )
    data_config: str | None = setting(None, "configuration of a Hub data set")
    data_split: str = setting("train", "split of a Hub data set or of a datasets folder")
    limit: int | None = setting(
        None, "use only this many pairs of each set, from the start; generate.py puts the clearest first", at_least=1
    )
    out: Path | None = setting(None, "run folder (default: trained/<model>-<method>)", short="-o")
    from_adapter: Path | None = setting(None, "go on training this adapter; its rank and layers stay as they are")
    # Both give the same numbers (docs/training_speed.md); the fast one has not been run on a GPU yet.
    trainer: Literal["auto", "fast", "trl"] = setting(
        "auto", "training loop: this project's own, or TRL's ORPOTrainer (orpo only); auto is trl on CUDA for orpo"
    )
    objective: MethodSettings = settings_group(MethodSettings, "method")
    lora: LoraSettings = settings_group(LoraSettings, "adapter", prefix="lora")
    optimiser: OptimiserSettings = settings_group(OptimiserSettings, "optimiser")
    lengths: LengthSettings = settings_group(LengthSettings, "lengths")
    watch: WatchSettings = settings_group(WatchSettings, "watching")
    compute: DeviceSettings = settings_group(DeviceSettings, "device and memory")
    estimate: bool = setting(False, "trainer `fast`: say how much memory a step will take, and train nothing")
    resume: bool = setting(False, "go on with an unfinished run from its last checkpoint")
    overwrite: bool = setting(False, "replace an earlier run")
    seed: int = setting(42, "seeds the adapter, the order of the pairs and the sampled replies", at_least=0)
    chat_template: Path | None = setting(None, "a Jinja file to use instead of the tokenizer's chat template")
    add_chat_tokens: bool = setting(
        False, "add the chat template's markers that the tokenizer lacks as tokens, and train them too (base models)"
    )
    trust_remote_code: bool = setting(False, "run code that comes with a model; only for authors you trust")

    def __post_init__(self) -> None:
        require(bool(self.model.strip()), "--model", repr(self.model), "must name a model")
        if self.trainer == "trl" and self.objective.method != "orpo":
            raise SettingsError(
                f"--trainer trl: knows the method orpo only; --trainer fast has {self.objective.method}"
            )
        if self.objective.method == "grpo":
            only = "is not read by --method grpo, whose R(y) has --beta for it"
            require(self.watch.reward_beta is None, "--reward-beta", self.watch.reward_beta, only)
            no_loss = "cannot go with --method grpo, whose loss does not fall as replies get better"
            require(self.watch.early_stopping is None, "--early-stopping", self.watch.early_stopping, no_loss)
        if self.estimate and self.trainer == "trl":
            raise SettingsError("--estimate: knows the memory of --trainer fast only, not of trl")
        if self.add_chat_tokens and self.from_adapter is not None:
            raise SettingsError("--add-chat-tokens: the tokens of --from-adapter stay as they are; leave it out")
        if self.resume and self.overwrite:
            raise SettingsError("--resume and --overwrite exclude each other: go on with the run, or start it again")

    def trainer_on(self, device_type: str) -> Literal["fast", "trl"]:
        """The training loop on a kind of device."""
        if self.trainer != "auto":
            return self.trainer
        return "fast" if device_type == "cpu" or self.objective.method != "orpo" else "trl"

    @property
    def reward_beta(self) -> float:
        """The weight of the score in R(y)."""
        if self.objective.method == "grpo":
            return self.objective.strength
        return 0.1 if self.watch.reward_beta is None else self.watch.reward_beta

    @property
    def data_sources(self) -> list[str]:
        """Where the pairs are read from."""
        return self.data or [str(default_data_folder())]

    @property
    def run_folder(self) -> Path:
        """Where the run is written."""
        if self.out is not None:
            return resolve_user_path(self.out)
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self.model.rstrip("/").rsplit("/", 1)[-1]).strip("-.") or "model"
        return default_training_folder() / f"{name}-{self.objective.method}"
