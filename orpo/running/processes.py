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
