"""train.py under FSDP2 on CPUs: `torchrun --nproc-per-node 2 tests/training/fsdp_on_cpu.py FLAGS`.

accelerate cuts models over GPUs only: on CPUs it drops what it is told of FSDP and keeps a whole model in each process.
PyTorch's `fully_shard` itself works over gloo, so this takes that one decision back and leaves all else as it is: the
shards, the gathering, the checkpoints and this project's code are those of a run on GPUs.
"""

from typing import Any

from accelerate import state
from accelerate.utils import DistributedType

_set_up = state.AcceleratorState.__init__


def _set_up_with_fsdp(self: Any, *args: Any, fsdp_plugin: Any = None, **named: Any) -> None:
    is_new = "_mixed_precision" not in state.AcceleratorState._shared_state
    _set_up(self, *args, fsdp_plugin=fsdp_plugin, **named)
    if is_new and fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
        state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP


if __name__ == "__main__":
    state.AcceleratorState.__init__ = _set_up_with_fsdp
    from orpo.command.run_command import run_command
    from orpo.train import main

    run_command(main)
