"""Encode: the base model's vision tower looks at every picture once.

Reads   data/processed/, the base model; parameters `model`, `encode`, and of `train` `lora_targets` and
        `rehearsal_share`.
Writes  data/features/: vision tokens in safetensors shards, and index.json; contact_sheet/: some training pictures with
        their copies, for the report.
Refuses a model whose vision tower gives another number of tokens than the mode promises.
Alone   python -m stages.encode

Pictures that were encoded before, also by a run that was interrupted, are taken from the token store. Augmented copies
(`encode.copies`) are made for training pictures only, and not where LoRA changes the vision tower: there `train` looks
at the pictures itself. The blank and printed pictures of ownhand/vision/probes.py are encoded too, and the lines of
ownhand/vision/rehearsal.py as training pictures are.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from ownhand import processes
from ownhand.errors import run_stage
from ownhand.inputs import Inputs
from ownhand.model.adapter import needs_pictures
from ownhand.model.base import BaseModel
from ownhand.model.views import compute_vision_tokens
from ownhand.params import Params, read_params
from ownhand.processes import start_processes
from ownhand.runtime import set_up
from ownhand.samples import Sample, read_metadata
from ownhand.vision.contact_sheet import ContactRow, write_contact_sheet
from ownhand.vision.pictures import Pictures, copy_keys
from ownhand.vision.probes import probe_pictures
from ownhand.vision.rehearsal import possible_samples
from ownhand.vision.token_store import cached_copies, content_key, fill_features, image_key, open_store, tidy_store

FEATURES = Path("data/features")
CONTACT_SHEET = "contact_sheet"  # below it
SHOWN_LINES, SHOWN_COPIES = 2, 8  # on the contact sheet, at most


def feature_keys(sample: Sample, copies: int) -> list[str]:
    """The cache keys of one sample: the picture itself, and for training its augmented copies."""
    return [sample.image_id, *(copy_keys(sample.image_id, copies) if sample.split == "train" else ())]


def show_copies(samples: list[Sample], pictures: Pictures, folder: Path) -> None:
    """Leave a contact sheet of the first training pictures with their copies, if there are any, in `folder`."""
    shown = [sample for sample in samples if sample.split == "train"][:SHOWN_LINES]
    copies = min(pictures.encode.copies, SHOWN_COPIES)
    groups = [
        ContactRow(
            sample.text,
            [
                (f"copy {number}" if number else "as it is", pictures.image(key))
                for number, key in enumerate(feature_keys(sample, copies))
            ],
        )
        for sample in shown
    ]
    settings = {"copies": pictures.encode.copies, "seed": pictures.encode.seed, **pictures.encode.augment.model_dump()}
    write_contact_sheet(folder, settings, groups)


def encode(samples: list[Sample], params: Params, features: Path = FEATURES) -> str:
    """Encode all samples into `features`; returns the closing line."""
    device = set_up(params.runtime)
    base = BaseModel.open(params)
    copies, probes = cached_copies(params), probe_pictures(samples)
    shown = list(samples)
    if not needs_pictures(params.train.lora_targets):
        shown += possible_samples(params.train.rehearsal_share, len(samples))
    pictures = Pictures(shown, params.encode, probes)
    tower = cache(lambda: base.load(device, decoder=False))  # at the first picture that the token store does not hold

    def see(key: str) -> torch.Tensor:
        return compute_vision_tokens(tower(), base.view_rules.views(pictures.image(key)))

    own = {key: content_key(sample, key, params.encode) for sample in shown for key in feature_keys(sample, copies)}
    keys = own | {key: image_key(image) for key, image in probes.items()}
    origin = {"mode": base.view_rules.mode, "max_tiles": base.view_rules.max_tiles, "copies": copies}
    with open_store(base, params, device) as store:
        tokens = fill_features(features, keys, see, store, origin, "encode")
        if processes.number() == 0:
            tidy_store(store, set(keys.values()), params.runtime.store_mb)
    if processes.number() == 0:
        show_copies(samples, pictures, features / CONTACT_SHEET)
    return (
        f"encode: read {len(samples)} pictures; wrote {tokens:,} vision tokens of them, "
        f"{len(own) - len(samples)} augmented copies and rehearsal lines, and {len(probes)} probe pictures to "
        f"{features.as_posix()}; refused 0"
    )


def main() -> None:
    inputs = Inputs.of("encode")
    params = read_params()
    if start_processes("stages.encode", params.runtime.processes):
        return
    closing = encode(read_metadata(), params)
    if processes.number() == 0:
        inputs.refuse_edits()
        print(closing)


if __name__ == "__main__":
    run_stage(main)
