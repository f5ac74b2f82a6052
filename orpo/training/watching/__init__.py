"""What watches a training run: TensorBoard, guards, sampled replies, the reward.

The short names are what transformers hands to every hook of a callback.
"""

from transformers import TrainerControl as Control
from transformers import TrainerState as State
from transformers import TrainingArguments as Arguments

Logs = dict[str, float] | None

__all__ = ["Arguments", "Control", "Logs", "State"]
