"""Encoding: pictures pass through the frozen vision tower, once each, into a feature cache that may be interrupted."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ownhand import processes
from ownhand.model.base import BaseModel
from ownhand.model.views import Views
from ownhand.params import Params
from ownhand.vision.features import FeatureWriter, compute_vision_tokens, finish_cache


def copy_keys(image_id: str, copies: int) -> list[str]:
    """The cache keys of a picture's augmented copies."""
    return [f"{image_id}~{number}" for number in range(1, copies + 1)]


def encode_views(
    keys: Sequence[str],
    views_of: Callable[[str], Views],
    base: BaseModel,
    params: Params,
    device: torch.device,
    unfinished: Path,
    features: Path,
    origin: dict[str, Any],
    stage: str,
) -> int:
    """Encode the views of all `keys` into an emptied `features`, and say in its index where they are from (`origin`).

    The processes share the keys out. What is complete lies in `unfinished` until the end; an interrupted run goes on
    behind it. `stage` is who says so. Returns the number of vision tokens.
    """
    parts = [unfinished / f"part-{i}" for i in range(processes.count())]
    writer = FeatureWriter(parts[processes.number()], params.runtime.shard_mb)
    own = processes.share(keys)
    remaining = [key for key in own if key not in writer]
    if len(remaining) < len(own):
        print(f"{stage}: goes on behind {len(own) - len(remaining)} pictures that are encoded already")
    model = base.load(device, vision=True, decoder=False)
    for key in tqdm(remaining, desc=stage, unit="picture", disable=None):
        writer.add(key, compute_vision_tokens(model, views_of(key)))
    writer.flush()
    tokens: int = sum(processes.gather(sum(entry["tokens"] for entry in writer.images.values())))
    if processes.number() == 0:
        finish_cache(parts, features, origin)
        shutil.rmtree(unfinished, ignore_errors=True)
    processes.wait_for_all()  # so that none looks for the features before they are there
    return tokens
