"""Weight files (safetensors): opened with a name for what is wrong with them, and made of numbers that are numbers.

A file that was cut is noticed by its header. A NaN is not: it would pass through every layer and come out as an empty
text with a confidence that is no number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ownhand.errors import Refusal

NAMES_SHOWN = 3


@contextmanager
def open_weights(path: Path, remedy: str) -> Iterator[Any]:
    """A handle of safetensors on a weight file. Refusal, with the remedy, when the file is damaged or not whole."""
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise Refusal(f"{path.as_posix()} is damaged or not whole ({error}); {remedy}") from None


def read_weights(path: Path, remedy: str) -> dict[str, torch.Tensor]:
    """Every tensor of a weight file by name. Refusal when it is damaged or holds what is no number."""
    with open_weights(path, remedy) as file:
        weights: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    refuse_not_finite(path, weights.items(), remedy)
    return weights


def refuse_not_finite(where: Path, weights: Iterable[tuple[str, torch.Tensor]], remedy: str) -> None:
    """Refusal that names the tensors which hold NaN or infinity."""
    spoiled = [name for name, tensor in weights if not is_finite(tensor)]
    if spoiled:
        more = f" and {len(spoiled) - NAMES_SHOWN} more" if len(spoiled) > NAMES_SHOWN else ""
        raise Refusal(f"{where.as_posix()} holds NaN or infinity in {', '.join(spoiled[:NAMES_SHOWN])}{more}; {remedy}")


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether every element is a number. A sum, several times as fast as looking at each, decides where it is one."""
    if not tensor.is_floating_point():
        return True
    if bool(torch.isfinite(tensor.sum(dtype=torch.float32))):
        return True
    return bool(torch.isfinite(tensor).all())  # large numbers may have no sum
