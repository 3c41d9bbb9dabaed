"""Encode: the frozen vision tower looks at every picture once.

Reads   data/processed/, the base model; parameters `model`, `encode`.
Writes  data/features/: vision tokens in safetensors shards, and index.json.
Refuses a model whose vision tower gives another number of tokens than the mode promises.
Alone   python -m stages.encode

Interrupted, it goes on behind the last complete shard. Augmented copies (`encode.copies`) are made for training
pictures only; validation pictures are encoded as they are. The blank and printed pictures of lib/vision/probes.py are
encoded too.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tqdm import tqdm

from stages.lib import processes
from stages.lib.failures import run_stage
from stages.lib.metadata import METADATA, Sample, read_metadata
from stages.lib.model.loading import find_model, load_base_model
from stages.lib.params import Params, read_params
from stages.lib.processes import start_processes
from stages.lib.runtime import DTYPES, alone_in, checkpoint_folder, fingerprint, set_up
from stages.lib.vision.features import FeatureWriter, VisionInput, compute_vision_tokens, finish_cache
from stages.lib.vision.pictures import Pictures
from stages.lib.vision.probes import probe_pictures
from stages.lib.vision.views import read_view_sizes

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
    pictures = Pictures(samples, vision, params.encode.seed)
    unfinished = checkpoint_folder(
        "encode",
        fingerprint(params.model, params.encode, [s.sha256 for s in samples], files=[folder / "config.json", METADATA]),
    )
    with alone_in(unfinished):
        parts = [unfinished / f"part-{i}" for i in range(processes.count())]
        writer = FeatureWriter(parts[processes.number()], params.runtime.shard_mb)
        keys = [key for sample in samples for key in feature_keys(sample, params.encode.copies)]
        probes = probe_pictures(samples)
        own = processes.share([*keys, *probes])
        remaining = [key for key in own if key not in writer]
        if len(remaining) < len(own):
            print(f"encode: goes on behind {len(own) - len(remaining)} pictures that are encoded already")
        model = load_base_model(
            params.model.name_or_path,
            params.model.revision,
            dtype=DTYPES[params.model.dtype],
            device=device,
            attn_implementation=params.model.attn_implementation,
            decoder=False,
        )
        for key in tqdm(remaining, desc="encode", unit="picture", disable=None):
            views = vision.views(probes[key]) if key in probes else pictures.views(key)
            writer.add(key, compute_vision_tokens(model, views))
        writer.flush()
        tokens = sum(processes.gather(sum(entry["tokens"] for entry in writer.images.values())))
        if processes.number() == 0:
            origin = {"mode": vision.mode, "max_tiles": vision.max_tiles, "copies": params.encode.copies}
            finish_cache(parts, features, origin)
            shutil.rmtree(unfinished, ignore_errors=True)
    return (
        f"encode: read {len(samples)} pictures; wrote {tokens:,} vision tokens of {len(keys)} views "
        f"({params.encode.copies} augmented copies per training picture) and {len(probes)} probe pictures to "
        f"{features.as_posix()}; refused 0"
    )


def main() -> None:
    params = read_params()
    if start_processes("stages.encode", params.runtime.processes):
        return
    closing = encode(read_metadata(), params)
    if processes.number() == 0:
        print(closing)


if __name__ == "__main__":
    run_stage(main)
