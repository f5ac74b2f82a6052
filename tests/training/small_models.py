"""Small models of the usual shapes with random weights, and a plain reference for the ORPO loss to compare with."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orpo.command.settings import build_settings
from orpo.training.fast.packing import ReplyGroup
from orpo.training.settings import TrainSettings

VOCABULARY = 97


@dataclass(frozen=True)
class Pair:
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    row: int = 0


def settings_from(**values: Any) -> TrainSettings:
    """Return training settings from flat keys, as a command line or a recipe gives them."""
    return build_settings(TrainSettings, values)


def groups_of(pairs: Sequence[Pair]) -> list[ReplyGroup]:
    """Return the pairs as groups of two replies."""
    return [ReplyGroup(pair.prompt_ids, (pair.chosen_ids, pair.rejected_ids)) for pair in pairs]


def make_pairs(lengths: Sequence[tuple[int, int, int]], seed: int = 0) -> list[Any]:
    """Pairs of random ids; they have what trainers read of a TokenizedPair, and no text."""
    generator = torch.Generator().manual_seed(seed)

    def ids(count: int) -> list[int]:
        return torch.randint(3, VOCABULARY, (count,), generator=generator).tolist()

    return [Pair(ids(p), ids(c), ids(r), row) for row, (p, c, r) in enumerate(lengths)]


LENGTHS = [(9, 7, 5), (4, 1, 6), (12, 3, 1), (1, 5, 4), (6, 11, 13)]
"""Chosen longer and shorter than rejected, completions of one token, a prompt of one token."""

_SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,  # large, so that a wrong mask shows
}

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama_untied": ("llama", {"tie_word_embeddings": False}),
    "smollm2_tied": ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "llama_with_biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2_sliding": ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "mistral_sliding": ("mistral", {"sliding_window": 6}),
    "gemma": ("gemma", {"head_dim": 16}),
    "gemma2_softcap": (
        "gemma2",
        {"head_dim": 16, "sliding_window": 5, "final_logit_softcapping": 3.0, "attn_logit_softcapping": 5.0},
    ),
    "phi": ("phi", {"partial_rotary_factor": 0.5}),
    "phi3_sliding": ("phi3", {"sliding_window": 7}),
    "granite_scaled": ("granite", {"logits_scaling": 4.0, "embedding_multiplier": 2.0}),
}


def make_model(shape: str, seed: int = 0) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, changes = SHAPES[shape]
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**_SMALL, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms start as zeros and ones: make them matter
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def with_lora(model: Any, seed: int = 0, **settings: Any) -> Any:
    """Put a LoRA adapter with random weights on a model (B = 0, as it starts, would hide half of the gradients)."""
    from peft import LoraConfig, get_peft_model

    settings = {"target_modules": "all-linear", "r": 4, "lora_alpha": 8, "lora_dropout": 0.0, **settings}
    torch.manual_seed(seed)
    peft_model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for name, parameter in peft_model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn_like(parameter))
    return peft_model


def copy_of(model: nn.Module) -> Any:
    return copy.deepcopy(model)


def sequence_log_probs(model: Any, prompt: Sequence[int], completion: Sequence[int]) -> Tensor:
    """Log-probabilities of all tokens after the first, by the model's own logits, one sequence at a time."""
    ids = torch.tensor([[*prompt, *completion]])
    logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
    return torch.log_softmax(logits, dim=-1).gather(1, ids[0, 1:, None]).squeeze(1)


def reference_loss(model: Any, pairs: Sequence[Pair], *, beta: float, nll_on_prompt: bool) -> Tensor:
    """The paper's equations written down once more, with no code of the package."""
    nll_sum: Tensor | float = 0.0
    nll_count = 0
    odds_sum: Tensor | float = 0.0
    for pair in pairs:
        chosen = sequence_log_probs(model, pair.prompt_ids, pair.chosen_ids)
        rejected = sequence_log_probs(model, pair.prompt_ids, pair.rejected_ids)
        nll_part = chosen if nll_on_prompt else chosen[-len(pair.chosen_ids) :]
        nll_sum, nll_count = nll_sum - nll_part.sum(), nll_count + len(nll_part)
        log_p = chosen[-len(pair.chosen_ids) :].mean().double()
        log_q = rejected[-len(pair.rejected_ids) :].mean().double()
        log_odds = torch.log(torch.exp(log_p) / (1 - torch.exp(log_p)))
        log_odds = log_odds - torch.log(torch.exp(log_q) / (1 - torch.exp(log_q)))
        odds_sum = odds_sum + torch.log(1 / (1 + torch.exp(-log_odds)))
    assert isinstance(nll_sum, Tensor) and isinstance(odds_sum, Tensor)
    return nll_sum / nll_count - beta * odds_sum / len(pairs)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def largest_relative_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Over all parameters: the norm of the difference over the norm of the reference."""
    assert ours.keys() == theirs.keys() and ours
    worst = 0.0
    for name, reference in theirs.items():
        norm = reference.norm().item()
        difference = (ours[name] - reference).norm().item()
        worst = max(worst, difference / norm if norm else (math.inf if difference else 0.0))
    return worst


def make_tokenizer() -> Any:
    """A tokenizer of whole words, made here; only its special ids matter to the trainers."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", *(f"w{i}" for i in range(VOCABULARY - 3))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<pad>"
    )


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TOPICS = ("the exam", "my garden", "a new job", "rainy days", "the train", "our cat", "a cake", "the sea", "a song")


def make_chat_tokenizer(
    template: str = CHATML, special: tuple[str, ...] = ("<|pad|>", "<|im_start|>", "<|im_end|>"), **roles: Any
) -> Any:
    """A byte-level tokenizer of 300 entries with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([f"Tell me about {topic} please." for topic in TOPICS], trainer)
    roles = roles or {
        "pad_token": "<|pad|>",
        "eos_token": "<|im_end|>",
        "additional_special_tokens": ["<|im_start|>"],
    }
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **roles)
    made.chat_template = template
    return made


def save_chat_model(folder: Path) -> Path:
    """Save a random Llama of two layers with its ChatML tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_chat_tokenizer()
    sizes = {**_SMALL, "vocab_size": 304, "intermediate_size": 64, "max_position_embeddings": 512}
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    sizes.pop("initializer_range")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**{**sizes, **ids}, tie_word_embeddings=True)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
