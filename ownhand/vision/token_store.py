"""The token store: vision tokens under what they were made of, so that what was encoded before costs nothing again.

    .checkpoints/encode/<model, views and code>/<shard>.safetensors    content key: (tokens, width)
                                                <shard>.json           hash of the shard and its keys; written last

It lies outside the outputs, which DVC deletes before a stage starts: ten new lines among ten thousand cost ten, and a
stage that was killed loses one shard at most. `data/features` is always written anew from here, the same bytes whatever
the store held. A shard that does not match its hash is said, removed and made again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

import ownhand
from ownhand import processes
from ownhand.files import hash_file, remove, write_atomically, write_json
from ownhand.model.adapter import needs_pictures
from ownhand.model.base import BaseModel
from ownhand.params import EncodeParams, Params
from ownhand.progress import track
from ownhand.runtime import alone_in, checkpoint_folder, fingerprint
from ownhand.samples import Sample
from ownhand.vision.features import write_features

# The code that decides what vision tokens a picture has.
CODE = (
    "images",
    "model/loading",
    "model/official",
    "model/views",
    "vision/augment",
    "vision/features",
    "vision/pictures",
)


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
        self.shard_mb = shard_mb
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
        if sum(t.nbytes for t in self.pending.values()) >= self.shard_mb * 1_000_000:
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


def cached_copies(params: Params) -> int:
    """How many augmented copies of a training picture are encoded: none where the vision tower itself is trained."""
    return 0 if needs_pictures(params.train.lora_targets) else params.encode.copies


def content_key(sample: Sample, key: str, encode: EncodeParams) -> str:
    """What the vision tokens of a picture or of one of its copies are stored under: all that they depend on."""
    _, _, copy = key.partition("~")
    if not copy:
        return sample.sha256
    return hashlib.sha256(f"{sample.sha256} {copy} {encode.seed} {encode.augment!r}".encode()).hexdigest()


def image_key(image: Image.Image) -> str:
    """The same for a picture that is no sample's: a hash of its pixels."""
    return hashlib.sha256(f"{image.size} ".encode() + image.tobytes()).hexdigest()


@contextmanager
def open_store(base: BaseModel, params: Params, device: torch.device) -> Iterator[TokenStore]:
    """The store that belongs to this model, these views, today's code and this kind of device.

    Another run that uses a store is waited for.
    """
    code = {name: hash_file(Path(ownhand.__file__).parent / f"{name}.py") for name in CODE}
    decides = (params.model, asdict(base.view_rules), device.type, code)
    folder = checkpoint_folder("encode", fingerprint(*decides, files=base.files()))
    with alone_in(folder.parent):
        yield TokenStore(folder, params.runtime.shard_mb)


def fill_features(
    features: Path,
    keys: Mapping[str, str],
    see: Callable[[str], torch.Tensor],
    store: TokenStore,
    origin: dict[str, Any],
    stage: str,
) -> int:
    """Write the vision tokens of all `keys` (cache key: content key) into an emptied `features`.

    What the store holds is taken from there; for the rest, shared out among the processes, `see` gives the tokens of a
    cache key, and they are stored. `origin` goes into the index, `stage` is who says so. Returns the number of tokens.
    """
    first_of: dict[str, str] = {}  # content key: the first of the cache keys that it has
    for key, content in keys.items():
        first_of.setdefault(content, key)
    new = [key for content, key in first_of.items() if content not in store]
    if len(new) < len(first_of):
        known = len(first_of) - len(new)
        print(f"{stage}: {known:,} of {len(first_of):,} pictures and copies were encoded before", flush=True)
    for key in track(processes.share(new), what=stage, unit="picture"):
        store.add(keys[key], see(key))
    store.flush()
    processes.wait_for_all()
    tokens = 0
    if processes.number() == 0:
        store.refresh()
        tokens = write_features(features, _in_order(keys, store), origin, store.shard_mb)
    processes.wait_for_all()  # so that none looks for the features before they are there
    return int(processes.gather(tokens)[0])


def _in_order(keys: Mapping[str, str], store: TokenStore) -> Iterator[tuple[str, torch.Tensor]]:
    for key, content in keys.items():
        yield key, store.tokens(content).clone()  # safetensors takes no two keys of one memory


def tidy_store(store: TokenStore, needed: Collection[str], limit_mb: int) -> None:
    """Remove what is not among the content keys `needed`, and what exceeds the limit (runtime.store_mb).

    Folders of other models, views and older code stay while there is room, the latest first.
    """
    store.tidy(needed, limit_mb)
    others = [other for other in store.folder.parent.iterdir() if other.is_dir() and other != store.folder]
    size = _bytes_of(store.folder)
    for other in sorted(others, key=lambda other: -other.stat().st_mtime):
        size += _bytes_of(other)
        if size > limit_mb * 1_000_000:
            shutil.rmtree(other, ignore_errors=True)


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
