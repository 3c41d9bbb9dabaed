"""Train: LoRA on the base model, fed with vision tokens from the cache.

Reads   data/processed/{train,val}/metadata.json, data/features/, the base model (without its vision tower); parameters
        `model`, `train`, and of `transcribe` how lines are read for the CER curve. With the LoRA targets `vision` or
        `projector` also the pictures, the vision tower and the parameters `encode`: what is trained cannot come from a
        cache.
Writes  models/adapter/ (PEFT layout), metrics/train.json, metrics/curves/{train_loss,val_loss,val_cer}.csv.
Refuses a device that is not there, samples that do not fit `max_tokens` or `batch_tokens`, a batch larger than the
        training set, a loss that is not a number.
Alone   python -m stages.train

Interrupted, it goes on from its last whole checkpoint and ends with the weights of an uninterrupted run. The
checkpoints lie in .checkpoints/train/, keyed by everything that decides the result, and are removed on success.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers import set_seed

from ownhand import processes
from ownhand.errors import run_stage
from ownhand.files import write_folder, write_json, write_text
from ownhand.inputs import Inputs
from ownhand.model.adapter import save_adapter
from ownhand.model.base import BaseModel
from ownhand.params import Params, read_params
from ownhand.processes import start_processes
from ownhand.runtime import alone_in, checkpoint_folder, fingerprint, set_up
from ownhand.samples import SIDES, metadata_file, read_metadata
from ownhand.training.outcome import measure, model_card, write_curves
from ownhand.training.run import (
    create_keep_best,
    create_trainer,
    prepare_datasets,
    select,
    set_up_lora,
    train,
)
from ownhand.training.trainer import TokenWeightedTrainer
from ownhand.vision.features import FeatureCache

FEATURES = Path("data/features")
ADAPTER = Path("models/adapter")
METRICS = Path("metrics/train.json")
CURVES = Path("metrics/curves")


def main() -> None:
    inputs = Inputs.of("train")
    params = read_params()
    if start_processes("stages.train", params.runtime.processes):
        return
    device = set_up(params.runtime)
    set_seed(params.train.seed)
    datasets = prepare_datasets(params, read_metadata(), FeatureCache(FEATURES))
    model = set_up_lora(params, device)
    keep_best = create_keep_best(datasets, params)
    trainer = create_trainer(model, datasets, params, unfinished_folder(params), keep_best)
    inputs.refuse_edits()  # or the checkpoints would be kept as those of other samples
    before = trainer.mean_loss(datasets.val)
    with alone_in(Path(str(trainer.args.output_dir))):
        train(trainer, keep_best)
        selected = select(trainer, keep_best)
        metrics = measure(trainer, datasets.train, datasets.val, datasets.vocabulary, before)
        metrics["selected_step"] = selected
        if processes.number():
            return
        inputs.refuse_edits()
        save(trainer, metrics, params)
    print(
        f"train: read {len(datasets.train)} training examples of {metrics['train_lines']} lines and "
        f"{metrics['rehearsal_lines']} printed ones, and {len(datasets.val)} validation lines; "
        f"{metrics['optimizer_steps']} steps; loss on validation {before:.3f} -> "
        f"{metrics['val_loss']:.3f}; wrote {ADAPTER.as_posix()}; refused 0"
    )
    for finding in metrics["findings"].values():
        print(f"train: WARNING {finding}")


def unfinished_folder(params: Params) -> Path:
    """Where the checkpoints of exactly this run lie."""
    return checkpoint_folder(
        "train",
        fingerprint(
            params.model,
            params.encode,
            params.train,
            params.transcribe,
            files=[*map(metadata_file, SIDES), FEATURES / "index.json", *BaseModel.open(params, weights=False).files()],
        ),
    )


def save(trainer: TokenWeightedTrainer, metrics: dict[str, Any], params: Params) -> None:
    """Adapter, model card, metrics and curves; then the checkpoints may go."""
    model: Any = trainer.model
    with write_folder(ADAPTER) as unfinished:
        save_adapter(model, unfinished, params.model.name_or_path)
        write_text(unfinished / "README.md", model_card(metrics, params))
    write_json(METRICS, metrics)
    write_curves(CURVES, trainer.state.log_history)
    shutil.rmtree(str(trainer.args.output_dir), ignore_errors=True)


if __name__ == "__main__":
    run_stage(main)
