"""The feature cache: vision tokens computed once per picture, in safetensors shards with an index.

    data/features/index.json              what made them, and for every picture its shard and its number of tokens
    data/features/tokens-00000.safetensors   key: image id, for augmented copies "00001~3"; value: (tokens, width)

Reading is memory-mapped: a picture's tokens are copied only when they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ownhand.errors import Refusal
from ownhand.files import clear_folder, read_json, write_atomically, write_json

INDEX = "index.json"
AGAIN = "run `dvc repro --force --single-item encode`"  # what helps a damaged file


def write_features(
    folder: Path, tokens_of: Iterable[tuple[str, torch.Tensor]], origin: dict[str, Any], shard_mb: int
) -> int:
    """Write (key, tokens) pairs into an emptied `folder`, in shards of about `shard_mb` megabytes; the index is last.

    The bytes depend on the pairs alone. `origin` says in the index what made them. Returns the number of tokens.
    """
    clear_folder(folder)
    images: dict[str, dict[str, Any]] = {}
    pending: dict[str, torch.Tensor] = {}
    shards = 0

    def flush() -> None:
        nonlocal shards
        if pending:
            with write_atomically(folder / shard_name(shards)) as temporary:
                save_file(pending, temporary)
            shards += 1
            pending.clear()

    for key, tokens in tokens_of:
        images[key] = {"shard": shard_name(shards), "tokens": len(tokens)}
        pending[key] = tokens.contiguous()
        if sum(t.nbytes for t in pending.values()) >= shard_mb * 1_000_000:
            flush()
    flush()
    write_json(folder / INDEX, {**origin, "images": dict(sorted(images.items()))})
    return sum(entry["tokens"] for entry in images.values())


def _read_index(folder: Path) -> dict[str, Any]:
    index = folder / INDEX
    if not index.exists():
        raise FileNotFoundError(f"{index} is missing: the pictures are not encoded yet; run `dvc repro encode`")
    content = read_json(index, AGAIN)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, dict) or not all(_is_entry(entry) for entry in images.values()):
        raise Refusal(f"{index.as_posix()} is damaged: it does not say where the pictures are; {AGAIN}")
    return dict(content)


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and type(entry.get("shard")) is str and type(entry.get("tokens")) is int


def shard_name(number: int) -> str:
    return f"tokens-{number:05d}.safetensors"


class FeatureCache:
    """Read access to the vision tokens of `data/features`; `more` folders add the keys that they hold.

    Holds no open file when pickled, so that spawned workers can have it. Raises FileNotFoundError with the remedy when
    there is no complete cache, Refusal when a file of it is damaged.
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
        try:
            if shard not in self._open:
                self._open[shard] = safe_open(shard, "pt")
            tensor: torch.Tensor = self._open[shard].get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise Refusal(f"{shard.as_posix()} is damaged or not whole ({error}); {AGAIN}") from None
        return tensor

    def count(self, key: str) -> int:
        """Number of vision tokens of one key, from the index alone."""
        return int(self.index["images"][key]["tokens"])
