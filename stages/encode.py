"""Encode: the frozen vision tower looks at every picture once.

Reads   data/processed/, the base model; parameters `model`, `encode`.
Writes  data/features/: vision tokens in safetensors shards, and index.json.
Refuses a model whose vision tower gives another number of tokens than the mode promises.
Alone   python -m stages.encode

Interrupted, it goes on behind the last complete shard. Augmented copies (`encode.copies`) are made for training
pictures only; validation pictures are encoded as they are. The blank and printed pictures of lib/probes.py are encoded
too.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from tqdm import tqdm

from stages.lib.augment import augment
from stages.lib.failures import run_stage
from stages.lib.features import FeatureWriter, VisionInput, compute_vision_tokens
from stages.lib.images import open_image
from stages.lib.metadata import METADATA, Sample, read_metadata
from stages.lib.model import find_model, load_base_model
from stages.lib.params import Params, read_params
from stages.lib.probes import probe_pictures
from stages.lib.runtime import DTYPES, checkpoint_folder, fingerprint, set_up
from stages.lib.views import read_view_sizes

FEATURES = Path("data/features")


def feature_keys(sample: Sample, copies: int) -> list[str]:
    """The cache keys of one sample: the picture itself, and for training its augmented copies."""
    extra = range(1, copies + 1) if sample.split == "train" else ()
    return [sample.image_id, *(f"{sample.image_id}~{number}" for number in extra)]


def encode(samples: list[Sample], params: Params, features: Path = FEATURES) -> str:
    """Encode all samples into `features`; returns the closing line."""
    device = set_up(params.runtime)
    folder = find_model(params.model.name_or_path, params.model.revision)
    vision = VisionInput(params.encode.mode, read_view_sizes(folder), params.encode.max_tiles)
    unfinished = checkpoint_folder(
        "encode",
        fingerprint(params.model, params.encode, [s.sha256 for s in samples], files=[folder / "config.json", METADATA]),
    )
    writer = FeatureWriter(unfinished, params.runtime.shard_mb)
    keys = [(sample, key) for sample in samples for key in feature_keys(sample, params.encode.copies)]
    remaining = [(sample, key) for sample, key in keys if key not in writer]
    if len(remaining) < len(keys):
        print(f"encode: goes on behind {len(keys) - len(remaining)} pictures that are encoded already")
    model = load_base_model(
        params.model.name_or_path,
        params.model.revision,
        dtype=DTYPES[params.model.dtype],
        device=device,
        decoder=False,
    )
    for sample, key in tqdm(remaining, desc="encode", unit="picture", disable=None):
        image = open_image(Path(sample.image_path))
        copy = key.partition("~")[2]
        if copy:
            image = augment(image, np.random.default_rng([params.encode.seed, int(sample.image_id), int(copy)]))
        writer.add(key, compute_vision_tokens(model, vision.views(image)))
    probes = probe_pictures(samples)
    for key, image in probes.items():
        if key not in writer:
            writer.add(key, compute_vision_tokens(model, vision.views(image)))
    tokens = sum(entry["tokens"] for entry in writer.images.values()) + sum(map(len, writer.pending.values()))
    writer.finish(features, {"mode": vision.mode, "max_tiles": vision.max_tiles, "copies": params.encode.copies})
    shutil.rmtree(unfinished, ignore_errors=True)
    return (
        f"encode: read {len(samples)} pictures; wrote {tokens:,} vision tokens of {len(keys)} views "
        f"({params.encode.copies} augmented copies per training picture) and {len(probes)} probe pictures to "
        f"{features.as_posix()}; refused 0"
    )


def main() -> None:
    params = read_params()
    print(encode(read_metadata(), params))


if __name__ == "__main__":
    run_stage(main)
