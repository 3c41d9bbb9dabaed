"""Encoding: pictures pass through the frozen vision tower, once each, into the features of a run.

What was encoded before is taken from the token store, where it is known by what it was made of and not by a name:

It is .checkpoints/encode/<model, views and code>/, outside the outputs, which DVC deletes before a stage starts. So ten
new lines among ten thousand cost ten, and a stage that was killed loses one shard at most. `data/features` is always
written anew from here, the same bytes whatever the store held.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import ownhand
from ownhand import processes
from ownhand.files import hash_file
from ownhand.model.adapter import needs_pictures
from ownhand.model.base import BaseModel
from ownhand.model.views import Views, compute_vision_tokens
from ownhand.params import EncodeParams, Params
from ownhand.progress import track
from ownhand.runtime import checkpoint_folder, fingerprint
from ownhand.samples import Sample
from ownhand.vision.features import write_features
from ownhand.vision.token_store import TokenStore

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


def store_folder(base: BaseModel, params: Params, device: torch.device) -> Path:
    """Where the vision tokens of this model, these views, this code and this kind of device are kept."""
    code = {name: hash_file(Path(ownhand.__file__).parent / f"{name}.py") for name in CODE}
    decides = (params.model, asdict(base.vision), device.type, code)
    return checkpoint_folder("encode", fingerprint(*decides, files=base.files()))


def encode_views(
    keys: Mapping[str, str],
    views_of: Callable[[str], Views],
    base: BaseModel,
    params: Params,
    device: torch.device,
    features: Path,
    origin: dict[str, Any],
    stage: str,
) -> int:
    """Encode the views of all `keys` (cache key: content key) into an emptied `features`, with `origin` in its index.

    What the store holds is taken from there, the rest is shared out among the processes and stored. `stage` is who
    says so. Returns the number of vision tokens.
    """
    store = TokenStore(store_folder(base, params, device), params.runtime.shard_mb)
    first_of: dict[str, str] = {}  # content key: the first of the cache keys that it has
    for key, content in keys.items():
        first_of.setdefault(content, key)
    new = [key for content, key in first_of.items() if content not in store]
    if len(new) < len(first_of):
        known = len(first_of) - len(new)
        print(f"{stage}: {known:,} of {len(first_of):,} pictures and copies were encoded before", flush=True)
    if missing := processes.share(new):
        model = base.load(device, decoder=False)
        for key in track(missing, what=stage, unit="picture"):
            store.add(keys[key], compute_vision_tokens(model, views_of(key)))
        store.flush()
    processes.wait_for_all()
    tokens = 0
    if processes.number() == 0:
        store.refresh()
        tokens = write_features(features, _in_order(keys, store), origin, params.runtime.shard_mb)
    processes.wait_for_all()  # so that none looks for the features before they are there
    return int(processes.gather(tokens)[0])


def _in_order(keys: Mapping[str, str], store: TokenStore) -> Iterator[tuple[str, torch.Tensor]]:
    for key, content in keys.items():
        yield key, store.tokens(content).clone()  # safetensors takes no two keys of one memory


def tidy_store(base: BaseModel, params: Params, device: torch.device, keep: Collection[str]) -> None:
    """Remove what is not among the content keys `keep`, and what exceeds runtime.store_mb.

    Folders of other models, views and older code stay while there is room, the latest first.
    """
    folder, limit_mb = store_folder(base, params, device), params.runtime.store_mb
    TokenStore(folder, params.runtime.shard_mb).tidy(keep, limit_mb)
    others = [other for other in folder.parent.iterdir() if other.is_dir() and other != folder]
    size = _bytes_of(folder)
    for other in sorted(others, key=lambda other: -other.stat().st_mtime):
        size += _bytes_of(other)
        if size > limit_mb * 1_000_000:
            shutil.rmtree(other, ignore_errors=True)


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
