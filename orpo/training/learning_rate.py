"""The learning rate that suits a model: LoRA's rule by width and family, unless the user gives one.

Schulman and Thinking Machines Lab, "LoRA Without Regret" (2025, thinkingmachines.ai/blog/lora) and `get_lr` in
their tinker-cookbook: LoRA wants ten times the rate of full training, and the best rate falls with the hidden size H,

    5e-5 * 10 * (2000 / H)^p        p = 0.781 for Llama models, 0.0775 for Qwen models

fitted to supervised training of adapters on all linear layers. ORPO's loss is mostly the likelihood of the chosen
reply, so it takes the rule as it is; what others multiply it by is in `methods`. Checked on the default model, where a
third and three times the rule's 1.3e-3 end with a higher evaluation loss (docs/experiments.md).
"""

from dataclasses import dataclass
from typing import Final

from transformers import PretrainedConfig

from orpo.training.settings import TrainSettings

FEW_PAIRS: Final = 200
"""Below this an epoch has too few steps to learn a habit at any safe rate."""

_FULL_TRAINING: Final = 5e-5
_LORA_FACTOR: Final = 10
_WIDTH: Final = 2000
_POWERS: Final = {"llama": 0.781, "qwen": 0.0775}


@dataclass(frozen=True)
class LearningRate:
    """A peak learning rate and where it comes from."""

    value: float
    source: str


def rule_of_width(model_type: str, hidden_size: int) -> float:
    """Return the rule's rate; families that were not fitted take Llama's power."""
    family = "qwen" if model_type.startswith("qwen") else "llama"
    return float(_FULL_TRAINING * _LORA_FACTOR * (_WIDTH / hidden_size) ** _POWERS[family])


def peak_learning_rate(settings: TrainSettings, config: PretrainedConfig) -> LearningRate:
    """Return the rate given, or the rule's for this model and method."""
    if settings.optimiser.learning_rate is not None:
        return LearningRate(settings.optimiser.learning_rate, "given")
    text = config.get_text_config()
    factor = settings.objective.about.rate_factor
    shown = f"5e-5 * 10 * (2000 / {text.hidden_size})^p for {text.model_type}, Thinking Machines, LoRA Without Regret"
    if factor != 1.0:
        shown += f"; times {factor:g} for {settings.objective.method}"
    return LearningRate(factor * rule_of_width(text.model_type, text.hidden_size), shown)
