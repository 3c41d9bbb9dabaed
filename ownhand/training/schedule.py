"""The schedule of a training run: how many optimizer steps, how many of them warm up, when it measures and saves.

`train` runs by these numbers, and `check` tells them beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ownhand.params import TrainParams
from ownhand.training.batches import count_batches


@dataclass(frozen=True)
class Schedule:
    """Counted in optimizer steps, except `batches` (of an epoch)."""

    batches: int
    steps_per_epoch: int
    steps: int
    warmup_steps: int
    evaluation_interval: int
    checkpoint_interval: int

    @classmethod
    def of(cls, lengths: Sequence[int], params: TrainParams, checkpoint_steps: int) -> Schedule:
        """The schedule of a training set, from the tokens of every view (pictures and their augmented copies).

        At least one step; the last one of an epoch may be smaller. Lengths count only with `batch_tokens`.
        """
        batches = count_batches(lengths, params.batch_size, params.batch_tokens)
        steps_per_epoch = math.ceil(batches / params.accumulation)
        steps = max(1, math.ceil(steps_per_epoch * params.epochs))
        warmup = round(steps * params.warmup_share) if params.warmup_steps is None else params.warmup_steps
        return cls(
            batches=batches,
            steps_per_epoch=steps_per_epoch,
            steps=steps,
            warmup_steps=warmup,
            evaluation_interval=math.ceil(steps / params.evaluations),
            checkpoint_interval=checkpoint_steps,
        )

    @property
    def evaluations(self) -> int:
        """How often the validation loss is measured during the run; the last time at its end."""
        return math.ceil(self.steps / self.evaluation_interval)

    @property
    def evaluations_before_end(self) -> int:
        return (self.steps - 1) // self.evaluation_interval

    @property
    def checkpoints_before_end(self) -> int:
        return (self.steps - 1) // self.checkpoint_interval

    @property
    def highest_rate_share(self) -> float:
        """The highest learning rate of any step as a share of `learning_rate`: below 1 when the run ends too early.

        Step k, counted from 0, of a linear warm-up uses the share k / warm-up steps.
        """
        return min(1.0, (self.steps - 1) / self.warmup_steps) if self.warmup_steps else 1.0
