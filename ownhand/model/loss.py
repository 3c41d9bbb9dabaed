"""The loss: cross-entropy over label positions only, without ever holding the logits of all positions."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from ownhand.model.sequence import IGNORED_LABEL

FLOAT32_LOGITS = 1 << 26  # at a time


def label_logits_loss(model: torch.nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """(sum of the cross-entropies of all labels, number of labels); logits are computed from the first label on.

    Over a vocabulary of 129,280 the logits of the image and prompt positions would cost more than all activations.
    """
    labels = inputs["labels"]
    labelled = (labels != IGNORED_LABEL).any(dim=0).nonzero()
    first = int(labelled[0]) if len(labelled) else labels.shape[1] - 1  # none: this process has no part in the batch
    before = torch.arange(first - 1, labels.shape[1] - 1, device=labels.device)  # each predicts the next id
    arguments = {name: value for name, value in inputs.items() if name not in ("labels", "image_ids")}
    logits = model(**arguments, logits_to_keep=before, use_cache=False).logits
    targets = labels[:, first:]
    return sum_cross_entropy(logits.flatten(0, 1), targets.flatten()), (targets != IGNORED_LABEL).sum()


def sum_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Sum of the cross-entropies of all labels, in float32; logits (labels, vocabulary), targets (labels).

    Float32 copies of the logits are made a quarter of a gigabyte at a time, and again for the gradient.
    """
    rows = max(1, FLOAT32_LOGITS // logits.shape[-1])
    if len(logits) <= rows:
        return _cross_entropy(logits, targets)
    parts = zip(logits.split(rows), targets.split(rows), strict=True)  # type: ignore[no-untyped-call]
    losses = [checkpoint(_cross_entropy, *part, use_reentrant=False) for part in parts]
    return torch.stack(losses).sum()


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits.float(), targets, ignore_index=IGNORED_LABEL, reduction="sum")
