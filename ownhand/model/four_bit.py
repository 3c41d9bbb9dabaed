"""Four bits: the routed experts in NF4 by bitsandbytes, for GPUs that have no room for them.

The routed experts are 4.84 of the decoder's 5.87 GB; in NF4, with a scale for each 64 weights, they are 1.36 GB. When a
layer runs, its experts are turned back into `model.dtype`: 0.44 GB in passing, and time. Training pays it once a layer
and pass, reading once a layer and token. Gradients need the same values again; without gradient checkpointing every
layer would keep them until backward, and nothing would be saved.

Used on CPU and CUDA. Tests hold outputs and gradients against those on the same values in `model.dtype`, on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import torch
from packaging.version import Version
from torch.nn.utils.parametrize import is_parametrized

from ownhand.errors import Refusal

ExpertWeights = Literal["as_is", "nf4"]
PACKAGE, LEAST_VERSION = "bitsandbytes", "0.50"  # before it, checkpointing leaked the experts of every layer
DEVICES = ("cpu", "cuda")
REMEDY = 'pip install -e ".[4bit]" in this environment'
EXPERTS, STACKS = ".mlp.experts", ("gate_up_proj", "down_proj")  # the fused parameters of every layer


def what_is_missing(device: torch.device | str) -> tuple[str, str] | None:
    """Why nf4 cannot be had on `device`, and the remedy; None when it can."""
    kind = torch.device(device).type
    if kind not in DEVICES:
        return f"nf4 is there for {' and '.join(DEVICES)}, not for {kind}", "set expert_weights to as_is"
    try:
        found = version(PACKAGE)
    except PackageNotFoundError:
        return f"{PACKAGE} is not installed", REMEDY
    return None if Version(found) >= Version(LEAST_VERSION) else (f"{PACKAGE} is {found}, not {LEAST_VERSION}", REMEDY)


def quantise_experts(model: torch.nn.Module, device: torch.device | str = "cpu") -> None:
    """Turn the routed experts of `model` into NF4 on `device`, one stack after the other; nothing else is moved.

    They are frozen from then on, and stay on that device. Refusal without bitsandbytes, and for a model that has none.
    """
    if missing := what_is_missing(device):
        raise Refusal(f"expert_weights: nf4 cannot be had: {missing[0]}; {missing[1]}")
    from bitsandbytes.nn.parametrize import replace_parameter_4bit

    replace: Callable[[torch.nn.Module, str], None] = replace_parameter_4bit
    stacks = list(_stacks(model))
    if not stacks:
        raise Refusal("expert_weights: nf4 needs a model with routed experts, and this one has none; set it to as_is")
    for module, name in stacks:
        stack = module.get_parameter(name)
        setattr(module, name, torch.nn.Parameter(stack.data.to(device), requires_grad=False))
        replace(module, name)


def has_four_bits(model: torch.nn.Module) -> bool:
    """Whether the routed experts of `model` are in NF4."""
    return any(is_parametrized(module, name) for module, name in _stacks(model))


def scale_bytes(model: torch.nn.Module) -> int:
    """Bytes of the scales of experts in NF4, which are no parameters of the model."""
    sizes = 0
    for module, name in _stacks(model):
        if is_parametrized(module, name):
            parametrizations: Any = module.parametrizations
            sizes += parametrizations[name][0].quant_state.absmax.nbytes
    return sizes


def _stacks(model: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, str]]:
    """(module, parameter) of every layer's experts; asking a module for one in NF4 would turn it back."""
    for module_name, module in model.named_modules():
        if module_name.endswith(EXPERTS):
            yield from (
                (module, name) for name in STACKS if name in module._parameters or is_parametrized(module, name)
            )
