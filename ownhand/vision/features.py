"""The feature cache: vision tokens computed once per picture, in safetensors shards with an index.

    data/features/index.json              what made them, and for every picture its shard and its number of tokens
    data/features/tokens-00000.safetensors   key: image id, for augmented copies "00001~3"; value: (tokens, width)

Reading is memory-mapped: a picture's tokens are copied only when they are asked for.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ownhand.files import write_atomically, write_json
from ownhand.model.views import Views

INDEX = "index.json"
SHARDS = "tokens-*.safetensors"


@torch.inference_mode()
def compute_vision_tokens(model: Any, views: Views) -> torch.Tensor:
    """Vision tokens of one picture, (tokens, width) in the model's dtype, on the CPU; `model` with adapter or without.

    One picture a pass: what else is read at the same time can never change a picture's tokens.
    Raises ValueError when the model returns another number of tokens than the views promise.
    """
    device, dtype = model.device, model.dtype
    tiles = views.tiles
    features = model.get_image_features(
        pixel_values=views.global_view[None].to(device, dtype),
        pixel_values_local=None if tiles is None else tiles.to(device, dtype),
        num_local_patches=[0 if tiles is None else len(tiles)],
        patches_grid=[list(views.grid)],
    )
    tokens: torch.Tensor = features.pooler_output[0].cpu().clone()
    if len(tokens) != views.tokens:
        raise ValueError(
            f"the vision tower returned {len(tokens)} tokens where the mode gives {views.tokens}; "
            "do the view sizes in processor_config.json belong to this model?"
        )
    return tokens


class FeatureWriter:
    """Collects vision tokens into shards of about `shard_mb` megabytes; complete shards survive an interruption."""

    def __init__(self, folder: Path, shard_mb: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.limit_bytes = shard_mb * 1_000_000
        self.images: dict[str, dict[str, Any]] = {}
        self.pending: dict[str, torch.Tensor] = {}
        self.shards = sorted(folder.glob(SHARDS))
        for shard in self.shards:
            for key, tokens in read_counts(shard).items():
                self.images[key] = {"shard": shard.name, "tokens": tokens}

    def __contains__(self, key: str) -> bool:
        return key in self.images

    def add(self, key: str, tokens: torch.Tensor) -> None:
        """Take the tokens (tokens, width) of one picture; a full shard is written at once."""
        self.pending[key] = tokens.contiguous()
        if sum(t.nbytes for t in self.pending.values()) >= self.limit_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what is pending as one shard, whole or not at all."""
        if not self.pending:
            return
        # The first free name: killed while shards were moved, those that are lost are made again as they were.
        shard = next(path for path in (self.folder / shard_name(i) for i in count()) if path not in self.shards)
        with write_atomically(shard) as temporary:
            save_file(self.pending, temporary)
        for key, tokens in self.pending.items():
            self.images[key] = {"shard": shard.name, "tokens": len(tokens)}
        self.shards.append(shard)
        self.pending = {}


def finish_cache(parts: Sequence[Path], folder: Path, origin: dict[str, Any]) -> None:
    """Move the shards of one or several writers' folders to an emptied `folder`, numbered through, and write the index
    with `origin`, which says what made them, last."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    images: dict[str, dict[str, Any]] = {}
    shards = [shard for part in parts for shard in sorted(part.glob(SHARDS))]
    for number, shard in enumerate(shards):
        name = shard_name(number)
        for key, tokens in read_counts(shard).items():
            images[key] = {"shard": name, "tokens": tokens}
        shard.replace(folder / name)
    write_json(folder / INDEX, {**origin, "images": dict(sorted(images.items()))})


def read_counts(shard: Path) -> dict[str, int]:
    """Number of vision tokens by key, from a shard's header alone."""
    with safe_open(shard, "pt") as file:
        return {key: file.get_slice(key).get_shape()[0] for key in file.keys()}  # noqa: SIM118 - not a mapping


def _read_index(folder: Path) -> dict[str, Any]:
    index = folder / INDEX
    if not index.exists():
        raise FileNotFoundError(f"{index} is missing: the pictures are not encoded yet; run `dvc repro encode`")
    content: dict[str, Any] = json.loads(index.read_text(encoding="utf-8"))
    return content


def shard_name(number: int) -> str:
    return f"tokens-{number:05d}.safetensors"


class FeatureCache:
    """Read access to the vision tokens of `data/features`; `more` folders add the keys that they hold.

    Holds no open file when pickled, so that spawned workers can have it. Raises FileNotFoundError with the remedy when
    there is no complete cache.
    """

    def __init__(self, folder: Path, *more: Path) -> None:
        self.folder = folder
        self.index = _read_index(folder)
        self._folders: dict[str, Path] = {}
        for other in more:
            images = _read_index(other)["images"]
            self.index["images"] |= images
            self._folders |= dict.fromkeys(images, other)
        self._open: dict[Path, Any] = {}
        self._keys: dict[str, list[str]] = {}
        for key in sorted(self.index["images"], key=lambda key: (len(key), key)):
            self._keys.setdefault(key.partition("~")[0], []).append(key)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def keys_of(self, image_id: str) -> list[str]:
        """The keys of a picture: its own first, then its augmented copies. KeyError when it was not encoded."""
        if image_id not in self.index["images"]:
            raise KeyError(f"picture {image_id} is not in {self.folder / INDEX}; run `dvc repro encode`")
        return self._keys[image_id]

    def tokens(self, key: str) -> torch.Tensor:
        """(tokens, width) of one key."""
        shard = self._folders.get(key, self.folder) / self.index["images"][key]["shard"]
        if shard not in self._open:
            self._open[shard] = safe_open(shard, "pt")
        tensor: torch.Tensor = self._open[shard].get_tensor(key)
        return tensor

    def count(self, key: str) -> int:
        """Number of vision tokens of one key, from the index alone."""
        return int(self.index["images"][key]["tokens"])
