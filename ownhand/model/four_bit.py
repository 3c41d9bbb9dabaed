"""Four bits: the routed experts in NF4 by bitsandbytes, for GPUs that are too small for them.

The routed experts are 4.84 of the decoder's 5.87 GB; in NF4 with one scale for each 64 weights they are 1.36 GB. A stack
is turned back into `model.dtype` whenever its layer runs, which takes as much memory in passing as one layer's experts
have in that dtype (0.44 GB), and time: training pays it once a layer and pass, reading once a layer and token.
Without gradient checkpointing every stack that was turned back would stay until backward, and nothing would be saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import torch
from packaging.version import Version
from torch.nn.utils.parametrize import is_parametrized

from ownhand.errors import Refusal

ExpertWeights = Literal["as_is", "nf4"]
PACKAGE, LEAST_VERSION = "bitsandbytes", "0.50"  # before it, checkpointing leaked every stack that was turned back
EXPERTS, STACKS = ".mlp.experts", ("gate_up_proj", "down_proj")


def what_is_missing() -> str | None:
    """Why nf4 cannot be had here, as a clause; None when it can."""
    try:
        found = version(PACKAGE)
    except PackageNotFoundError:
        return f"{PACKAGE} is not installed"
    return None if Version(found) >= Version(LEAST_VERSION) else f"{PACKAGE} is {found}, {LEAST_VERSION} is the least"


REMEDY = 'pip install -e ".[4bit]" in this environment'


def quantise_experts(model: torch.nn.Module, device: torch.device | str = "cpu") -> None:
    """Turn the routed experts of `model` into NF4 on `device`, stack by stack; nothing else is moved.

    They are frozen from then on and cannot be moved to another device. Refusal without bitsandbytes, and for a model
    without routed experts.
    """
    if missing := what_is_missing():
        raise Refusal(f"expert_weights: nf4 cannot be had: {missing}. {REMEDY}")
    from bitsandbytes.nn.parametrize import replace_parameter_4bit

    replace: Callable[[torch.nn.Module, str], None] = replace_parameter_4bit
    stacks = list(_stacks(model))
    if not stacks:
        raise Refusal("expert_weights: nf4 needs a model with routed experts; this one has none: set it to as_is")
    for module, name in stacks:
        stack = getattr(module, name)
        setattr(module, name, torch.nn.Parameter(stack.data.to(device), requires_grad=False))
        replace(module, name)


def has_four_bits(model: torch.nn.Module) -> bool:
    """Whether the routed experts of `model` are in NF4."""
    return any(is_parametrized(module, name) for module, name in _stacks(model))


def scale_bytes(model: torch.nn.Module) -> int:
    """Bytes of the scales of all stacks in NF4: they are no parameters of the model."""
    return sum(
        module.parametrizations[name][0].quant_state.absmax.nbytes  # type: ignore[index, union-attr]
        for module, name in _stacks(model)
        if is_parametrized(module, name)
    )


def _stacks(model: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, str]]:
    for module_name, module in model.named_modules():
        if module_name.endswith(EXPERTS):
            for name in STACKS:
                if hasattr(module, name):
                    yield module, name
