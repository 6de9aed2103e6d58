"""`xray-vqa train` with accelerate told that a group of CPU processes may shard a model as one of GPUs may.

On its own it ignores FSDP there. What is sharded, gathered and written is the same; only NCCL's place is gloo's.
"""

from typing import Any

from accelerate.state import DistributedType, PartialState

from xray_vqa.cli.main import main
from xray_vqa.training import recipe

_begin = PartialState.__init__


def _begin_as_gpus(state: PartialState, *arguments: Any, **named: Any) -> None:
    _begin(state, *arguments, **named)
    if state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.MULTI_GPU


if __name__ == "__main__":
    PartialState.__init__ = _begin_as_gpus
    recipe.check_arguments = lambda *arguments, **named: None  # it would ask for GPUs
    raise SystemExit(main())
