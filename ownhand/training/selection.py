"""Which adapter is kept: the last one, or the best of the evaluations by validation loss or by CER.

Everything is decided from the Trainer's log, which every checkpoint holds, so that a resumed run decides as an
uninterrupted one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from ownhand import processes
from ownhand.errors import Refusal
from ownhand.evaluation.metrics import count_character_errors, micro_average
from ownhand.files import writing
from ownhand.model.adapter import weakened
from ownhand.model.base import BaseModel
from ownhand.model.decoding import transcribe_tokens
from ownhand.params import TranscribeParams
from ownhand.samples import Sample
from ownhand.training.checkpoints import find_damage, seal

MIN_LINES_FOR_CER = 10  # with fewer, one line more or less right decides; the loss changes with every character
METRIC_NAMES = {"loss": "eval_loss", "cer": "eval_cer"}


def make_cer_reader(
    samples: Sequence[Sample],
    tokens_of: Callable[[Any, str], torch.Tensor],
    base: BaseModel,
    params: TranscribeParams,
    lines: int,
) -> Callable[[Any], float]:
    """A function model -> CER on `lines` validation samples, evenly spread, read as `transcribe` does, but greedily.

    Beam search would take longer, and the curve only compares. `tokens_of` gives the vision tokens of a picture: from
    the cache, or from the model where the tower is trained.
    """
    greedily = params.model_copy(update={"beams": 1})
    count = min(lines, len(samples))
    chosen = [samples[i * len(samples) // count] for i in range(count)]

    def read(model: Any) -> float:
        model.eval()
        with torch.no_grad(), weakened(model, params.adapter_strength):
            vision_tokens = [tokens_of(model, sample.image_id) for sample in chosen]
            readings = transcribe_tokens(model, vision_tokens, base, greedily, None)
        model.train()
        return micro_average(
            count_character_errors(sample.text, reading.text) for sample, reading in zip(chosen, readings, strict=True)
        )

    return read


class KeepBest(TrainerCallback):
    """Keeps the adapter with the lowest `metric` and stops the run after `patience` evaluations without a lower one."""

    def __init__(self, metric: str, patience: int) -> None:
        self.name = METRIC_NAMES[metric]
        self.patience = patience

    def on_evaluate(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Save the adapter when this evaluation is the best so far; ask for the end when patience has run out."""
        best = best_step(state.log_history, self.name)
        if best == state.global_step and processes.number() == 0:
            folder = Path(args.output_dir) / f"best-{best}"
            shutil.rmtree(folder, ignore_errors=True)
            with writing(folder):
                model.save_pretrained(folder, save_embedding_layers=False)
                seal(folder)
        if self.has_run_out(state.log_history):
            control.should_training_stop = True

    def has_run_out(self, history: Sequence[dict[str, Any]]) -> bool:
        """Whether `patience` evaluations have passed since the best one."""
        steps = [row["step"] for row in history if self.name in row]
        return (
            bool(self.patience and steps)
            and len(steps) - 1 - steps.index(best_step(history, self.name)) >= self.patience
        )

    def name_best(self, history: Sequence[dict[str, Any]]) -> str | None:
        """The folder of the best adapter so far, beside the checkpoints; None before the first evaluation."""
        return f"best-{best_step(history, self.name)}" if any(self.name in row for row in history) else None

    def best_folder(self, output: Path, history: Sequence[dict[str, Any]]) -> tuple[int, Path]:
        """(step, folder) of the adapter to keep. Refusal when it is damaged: a run that goes on does without it."""
        processes.wait_for_all()  # the first one writes it
        step = best_step(history, self.name)
        folder = output / f"best-{step}"
        if damage := find_damage(folder):
            raise Refusal(
                f"{folder.as_posix()} is damaged: {damage}; run the same command again, it goes on from before"
            )
        return step, folder


def best_step(history: Sequence[dict[str, Any]], name: str) -> int:
    """The step of the lowest value; the earliest of equal ones."""
    rows = [row for row in history if name in row]
    return int(min(rows, key=lambda row: row[name])["step"])
