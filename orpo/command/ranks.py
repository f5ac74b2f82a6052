"""Which of several processes this is: `torchrun` and `accelerate launch` say so in the environment.

One process, the main one, talks to the user and owns the output folder; the others compute.
"""

import os


def process_count() -> int:
    """Return how many processes run this command together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Tell whether this process is the one that prints and writes."""
    return int(os.environ.get("RANK", "0")) == 0


def local_rank() -> int:
    """Return this process's number on its machine, which is the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_process_count() -> int:
    """Return how many processes share this machine and its memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_model_sharded() -> bool:
    """Tell whether `accelerate launch` cuts the model over the processes (FSDP, DeepSpeed)."""
    return any(os.environ.get(name) == "true" for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"))
