"""What a training run was worth: its losses, the findings they give, its curves and the model card."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ownhand.evaluation.metrics import CLEAR_RISE
from ownhand.files import write_table
from ownhand.params import Params
from ownhand.training.trainer import CachedSamples, TokenWeightedTrainer
from ownhand.vision.rehearsal import is_rehearsal

CURVES = [  # file, its name in the Trainer's log, its column
    ("train_loss.csv", "loss", "loss"),
    ("val_loss.csv", "eval_loss", "loss"),
    ("val_cer.csv", "eval_cer", "cer"),
]


def measure(
    trainer: TokenWeightedTrainer, train: CachedSamples, val: CachedSamples, vocabulary: int, before: float
) -> dict[str, Any]:
    """What the run was worth, in nats per token: before, after, with swapped pictures, and against guessing.

    The training loss is that of as many training pictures as there are validation pictures, without copies and without
    the rehearsal lines.
    """
    lines = {example.image_id for example in train.examples}
    rehearsed = sum(map(is_rehearsal, lines))
    after = trainer.mean_loss(val)
    swapped = trainer.mean_loss(val.with_swapped_pictures())
    uniform = math.log(vocabulary)
    model: Any = trainer.model
    findings = {}
    if after >= uniform:
        findings["TRAIN-001"] = (
            f"the validation loss {after:.2f} is no better than guessing among all {vocabulary} tokens "
            f"({uniform:.2f}): nothing was learned"
        )
    if after >= before:
        findings["TRAIN-002"] = f"the validation loss did not fall: {before:.3f} before training, {after:.3f} after"
    if len(val) > 1 and swapped < after + CLEAR_RISE:
        findings["TRAIN-003"] = (
            f"with the pictures swapped among the lines the loss is {swapped:.2f}, hardly higher than {after:.2f}: "
            "the model recites instead of reading"
        )
    return {
        "train_lines": len(lines) - rehearsed,
        "rehearsal_lines": rehearsed,
        "train_examples": len(train),
        "val_lines": len(val),
        "optimizer_steps": trainer.state.global_step,
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "train_loss": trainer.mean_loss(train.without_copies(len(val))),
        "val_loss_before": before,
        "val_loss": after,
        "val_loss_swapped_pictures": swapped,
        "uniform_loss": uniform,
        "findings": findings,
    }


def write_curves(folder: Path, history: list[dict[str, float]]) -> None:
    """Three CSVs from the Trainer's log: training loss and validation loss (nats per token), validation CER."""
    for name, logged, column in CURVES:
        write_curve(folder / name, [(row["step"], row[logged]) for row in history if logged in row], column)


def write_curve(path: Path, points: list[tuple[float, float]], name: str) -> None:
    """A CSV with the columns step and `name`: loss in nats per token, or cer."""
    write_table(path, ["step", name], [(step, f"{value:.6f}") for step, value in points])


def model_card(metrics: dict[str, Any], params: Params) -> str:
    """The README of the adapter, with the metadata block that model hubs read."""
    return (
        "---\n"
        f"base_model: {params.model.name_or_path}\n"
        "library_name: peft\n"
        "pipeline_tag: image-to-text\n"
        "---\n\n"
        "# Handwriting adapter\n\n"
        f"LoRA (r {params.train.lora_r}, alpha {params.train.lora_alpha}, {', '.join(params.train.lora_targets)}; "
        f"{metrics['trainable_parameters']:,} parameters) for `{params.model.name_or_path}`, trained on "
        f"{metrics['train_lines']} lines, and {metrics['rehearsal_lines']} printed ones, for "
        f"{metrics['optimizer_steps']} steps.\n\n"
        f"Validation loss per token: {metrics['val_loss_before']:.3f} before, {metrics['val_loss']:.3f} after, "
        f"{metrics['val_loss_swapped_pictures']:.3f} with swapped pictures. "
        "Error rates: `metrics/evaluation.json`.\n\n"
        f"Read new photographs with `ownhand read`: mode {params.encode.mode}, at most "
        f"{params.encode.max_tiles} tiles.\n"
    )
