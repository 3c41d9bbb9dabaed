"""Several adapters, each trained as `train` trains: one per fold, which then reads the pages that it has not seen.

The base model is loaded once, and the adapter starts every fold from the same weights as a run of `train`. Vision
tokens are those of data/features; the augmented copies of validation pictures, which only a cross-validation trains
on, are made here once for all folds, so that `encode` and `train` do not depend on it.

Each finished training is kept outside the outputs, and the one that is interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache as computed_once
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import set_seed

from ownhand import processes
from ownhand.errors import Refusal
from ownhand.model.adapter import weakened
from ownhand.model.base import BaseModel
from ownhand.model.decoding import as_reader, transcribe_samples
from ownhand.model.views import compute_vision_tokens
from ownhand.params import Params
from ownhand.runtime import checkpoint_folder, fingerprint
from ownhand.samples import SIDES, Sample, metadata_file
from ownhand.training.checkpoints import is_whole, keep, seal
from ownhand.training.run import Datasets, create_trainer, prepare_datasets, set_up_lora, train
from ownhand.vision.features import FeatureCache
from ownhand.vision.pictures import Pictures, copy_keys
from ownhand.vision.rehearsal import is_rehearsal
from ownhand.vision.token_store import cached_copies, content_key, fill_features, open_store

Row = dict[str, Any]


def cross_validate(
    samples: Sequence[Sample],
    folds: Sequence[int],
    params: Params,
    features: Path,
    unfinished: Path,
    device: torch.device,
) -> tuple[list[Row], list[Row], list[Row]]:
    """(what the base model read, what the adapters read, a record of each fold), rows in order of image id.

    `folds` are those of the samples, from 1; what is done stays in `unfinished`. Refusal when a fold leaves fewer
    training examples than a batch.
    """
    params = without_choice(params)
    cache = complete_cache(samples, params, features, unfinished, device)
    runs = {
        f"fold {fold}": [
            replace(sample, split="val" if of == fold else "train") for sample, of in zip(samples, folds, strict=True)
        ]
        for fold in range(1, max(folds) + 1)
    }
    base, done = train_each("cross_validate", runs, params, cache, unfinished, device)
    adapter = [row for fold in done for row in fold["rows"]]
    records = [{"fold": fold, **one["record"]} for fold, one in enumerate(done, start=1)]
    return base, sorted(adapter, key=lambda row: str(row["image_id"])), records


def train_each(
    command: str,
    runs: dict[str, list[Sample]],
    params: Params,
    cache: FeatureCache,
    unfinished: Path,
    device: torch.device,
) -> tuple[list[Row], list[Row]]:
    """An adapter for each of `runs`, by name, on the training side of its samples; it then reads the other side.

    Returns what the base model reads of all that is held out anywhere, and of each run {"record", "rows"}. A run that
    is finished stays in `unfinished` under its name and is not made again. `command`: who says which run it is at.
    Refusal when a run has fewer training examples than a batch.
    """
    sets = {name: _prepare_run(name, samples, params, cache) for name, samples in runs.items()}
    everything = {one.image_id: one for samples in runs.values() for one in samples if one.split == "val"}
    base_model = BaseModel.open(params, weights=False)
    set_seed(params.train.seed)
    model = set_up_lora(params, device)
    fresh = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}

    def read(reader: str, own: Sequence[Sample], see: Callable[[str], torch.Tensor], description: str) -> list[Row]:
        counts = [cache.count(sample.image_id) for sample in own]
        model.eval()
        with as_reader(model, reader):
            name = unfinished / description.replace(" ", "-")
            return transcribe_samples(model, own, counts, see, base_model, params.transcribe, name, description)

    held_out = [everything[image_id] for image_id in sorted(everything)]
    base: list[Row] = keep(unfinished / "base.json", lambda: read("base", held_out, cache.tokens, "base reads"))
    done = []
    for number, (name, datasets) in enumerate(sets.items(), start=1):
        own = [sample for sample in runs[name] if sample.split == "val"]
        folder = unfinished / name.replace(" ", "-")

        def run(
            number: int = number,
            name: str = name,
            datasets: Datasets = datasets,
            own: list[Sample] = own,
            folder: Path = folder,
        ) -> Row:
            if processes.number() == 0:
                print(f"{command}: training {number} of {len(sets)}, {name}", flush=True)
            start_afresh(model, fresh)
            record = _train(model, datasets, params, folder)
            with weakened(model, params.transcribe.adapter_strength):
                rows = read("adapter", own, lambda image_id: datasets.see(model, image_id), f"{name} reads")
            return {"record": record, "rows": rows}

        done.append(keep(folder.with_name(f"{folder.name}.json"), run))
        if processes.number() == 0:
            shutil.rmtree(folder, ignore_errors=True)
    return base, done


def without_choice(params: Params) -> Params:
    """The parameters with which folds are trained: each keeps its last step's adapter, and is measured at its end only.

    With train.select at loss or cer the held-out pages would choose their own adapter.
    """
    last = {"select": "last", "patience": 0, "evaluations": 1, "cer_lines": 0}
    return params.model_copy(update={"train": params.train.model_copy(update=last)})


def unfinished_folder(folds: Sequence[int], params: Params, features: Path) -> Path:
    """Where unfinished work of exactly this cross-validation lies."""
    files = [*map(metadata_file, SIDES), features / "index.json", *BaseModel.open(params, weights=False).files()]
    decides = (params.model, params.encode, without_choice(params).train, params.transcribe, list(folds))
    return checkpoint_folder("cross_validate", fingerprint(*decides, files=files))


def complete_cache(
    samples: Sequence[Sample], params: Params, features: Path, unfinished: Path, device: torch.device
) -> FeatureCache:
    """The vision tokens of `features` and of the copies that are missing there, which are made now."""
    cache = FeatureCache(features)
    keys = {
        key: content_key(sample, key, params.encode)
        for sample in samples
        for key in copy_keys(sample.image_id, cached_copies(params))
        if key not in cache.index["images"]
    }
    if not keys:
        return cache
    copies = unfinished / "features"
    if not processes.gather(is_whole(copies) if processes.number() == 0 else None)[0]:
        base = BaseModel.open(params)
        pictures = Pictures(samples, params.encode)
        tower = computed_once(lambda: base.load(device, decoder=False))

        def see(key: str) -> torch.Tensor:
            return compute_vision_tokens(tower(), base.view_rules.views(pictures.image(key)))

        with open_store(base, params, device) as store:
            fill_features(copies, keys, see, store, {}, "cross_validate")
        if processes.number() == 0:
            seal(copies)
    return FeatureCache(features, copies)


def start_afresh(model: PeftModel, fresh: dict[str, torch.Tensor]) -> None:
    """Give the adapter the weights that it had before any training."""
    gc.collect()  # the trainer of the fold before, with its optimizer, goes first
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in fresh:
                weight.copy_(fresh[name])
                weight.grad = None


def _prepare_run(name: str, samples: Sequence[Sample], params: Params, cache: FeatureCache) -> Datasets:
    try:
        return prepare_datasets(params, samples, cache)
    except Refusal as refusal:
        raise Refusal(f"{name}: {refusal}") from None


def _train(model: PeftModel, datasets: Datasets, params: Params, unfinished: Path) -> Row:
    trainer = create_trainer(model, datasets, params, unfinished)
    before = trainer.mean_loss(datasets.val)
    train(trainer)
    return {
        "trained": sorted({one.image_id for one in datasets.train.examples if not is_rehearsal(one.image_id)}),
        "held_out": sorted({example.image_id for example in datasets.val.examples}),
        "optimizer_steps": trainer.state.global_step,
        "val_loss_before": before,
        "val_loss": trainer.mean_loss(datasets.val),
        "val_loss_swapped_pictures": trainer.mean_loss(datasets.val.with_swapped_pictures()),
    }
