"""The token store: vision tokens under what they were made of, beside the outputs.

    <folder>/<shard>.safetensors    content key: (tokens, width)
             <shard>.json           hash of the shard and its keys; written last

A shard that does not match its hash is said, removed and made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ownhand.files import hash_file, remove, write_atomically, write_json


@dataclass(frozen=True)
class _Shard:
    path: Path
    keys: frozenset[str]
    size: int


class TokenStore:
    """The vision tokens of one folder; several processes may add to it at once, one removes."""

    def __init__(self, folder: Path, shard_mb: int) -> None:
        """Open the folder, made if it is missing. `shard_mb`: megabytes of a shard, which is what a kill loses."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.limit_bytes = shard_mb * 1_000_000
        self.shards: dict[str, _Shard] = {}  # by content key
        self.pending: dict[str, torch.Tensor] = {}
        self._open: dict[Path, Any] = {}
        self.refresh()

    def refresh(self) -> None:
        """See what other processes have added; what is new to this one is compared with its hash."""
        known = {shard.path for shard in self.shards.values()}
        for manifest in sorted(self.folder.glob("*.json")):
            path = manifest.with_suffix(".safetensors")
            if path in known:
                continue
            keys = _whole_keys(manifest, path)
            if keys is None:
                print(f"{path.as_posix()} is damaged; it is removed and its vision tokens are made again", flush=True)
                remove(manifest)
                remove(path)
                continue
            shard = _Shard(path, frozenset(keys), path.stat().st_size)
            self.shards.update(dict.fromkeys(keys, shard))

    def __contains__(self, key: str) -> bool:
        return key in self.shards or key in self.pending

    def tokens(self, key: str) -> torch.Tensor:
        """(tokens, width) of one content key; KeyError when it is not there."""
        if key in self.pending:
            return self.pending[key]
        path = self.shards[key].path
        if path not in self._open:
            self._open = {path: safe_open(path, "pt")}  # one at a time: each is mapped into memory
        tensor: torch.Tensor = self._open[path].get_tensor(key)
        return tensor

    def add(self, key: str, tokens: torch.Tensor) -> None:
        """Keep the tokens (tokens, width) of one content key; a full shard is written at once."""
        self.pending[key] = tokens.contiguous()
        if sum(t.nbytes for t in self.pending.values()) >= self.limit_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what is pending as one shard, whole or not at all."""
        if not self.pending:
            return
        name = hashlib.sha256("".join(self.pending).encode()).hexdigest()[:24]
        path = self.folder / f"{name}.safetensors"
        with write_atomically(path) as temporary:
            save_file(self.pending, temporary)
        write_json(path.with_suffix(".json"), {"sha256": hash_file(path), "keys": list(self.pending)})
        shard = _Shard(path, frozenset(self.pending), path.stat().st_size)
        self.shards.update(dict.fromkeys(self.pending, shard))
        self.pending = {}

    def tidy(self, needed: Collection[str], limit_mb: int) -> None:
        """Remove shards of which nothing is needed, and of the others as many as exceed the limit."""
        self._open = {}
        wanted = set(needed)
        shards = sorted(set(self.shards.values()), key=lambda shard: (-len(shard.keys & wanted), shard.path))
        kept = 0
        for shard in shards:
            if shard.keys & wanted and kept + shard.size <= limit_mb * 1_000_000:
                kept += shard.size
                continue
            remove(shard.path.with_suffix(".json"))
            remove(shard.path)
            for key in shard.keys:
                self.shards.pop(key, None)
        for path in self.folder.iterdir():  # what a kill has left
            if path.suffix == ".tmp" or not path.with_suffix(".json").exists():
                remove(path)


def _whole_keys(manifest: Path, shard: Path) -> list[str] | None:
    """The content keys of a shard that is as it was written; None for any other."""
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        if hash_file(shard) != content["sha256"]:
            return None
        with safe_open(shard, "pt") as file:
            keys = sorted(file.keys())
        return keys if keys == sorted(content["keys"]) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError):
        return None
