"""The schedule: arithmetic that anyone can redo, and the same that the trainer does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import get_cosine_schedule_with_warmup

from ownhand.params import TrainParams, read_params
from ownhand.training.schedule import Schedule

ROOT = Path(__file__).parent.parent


def train_params(**changes: Any) -> TrainParams:
    return read_params(ROOT / "params.yaml").train.model_copy(update={"warmup_steps": None, **changes})


def test_steps_count_the_last_smaller_batch_of_every_epoch() -> None:
    schedule = Schedule.of([60] * 10, train_params(batch_size=4, accumulation=2, epochs=5.0), 3)
    assert (schedule.batches, schedule.steps_per_epoch, schedule.steps) == (3, 2, 10)
    assert schedule.checkpoints_before_end == 3


def test_a_run_has_at_least_one_step() -> None:
    schedule = Schedule.of([60] * 3, train_params(batch_size=4, accumulation=4, epochs=0.1), 25)
    assert (schedule.steps, schedule.batches, schedule.evaluations) == (1, 1, 1)
    assert schedule.evaluations_before_end == schedule.checkpoints_before_end == 0


def test_a_token_budget_makes_more_steps_of_long_sequences() -> None:
    def steps(length: int) -> int:
        return Schedule.of([length] * 24, train_params(batch_size=8, batch_tokens=400, epochs=1.0), 25).steps

    assert (steps(10), steps(50), steps(100), steps(300)) == (3, 3, 6, 24)


def test_a_number_of_warmup_steps_replaces_the_share() -> None:
    assert Schedule.of([60] * 100, train_params(batch_size=1, epochs=1.0, warmup_share=0.1), 25).warmup_steps == 10
    assert Schedule.of([60] * 100, train_params(batch_size=1, epochs=1.0, warmup_steps=7), 25).warmup_steps == 7


def test_no_evaluation_stands_right_before_the_one_at_the_end() -> None:
    schedule = Schedule.of([60] * 172, train_params(batch_size=1, accumulation=1, epochs=1.0, evaluations=6), 25)
    assert (schedule.evaluation_interval, schedule.evaluations) == (29, 6)


def test_more_evaluations_than_steps_become_one_at_every_step() -> None:
    schedule = Schedule.of([60] * 4, train_params(batch_size=1, accumulation=1, epochs=1.0, evaluations=9), 25)
    assert (schedule.evaluation_interval, schedule.evaluations) == (1, 4)


def test_the_highest_rate_is_that_of_the_trainers_own_scheduler() -> None:
    schedule = Schedule.of([60] * 8, train_params(batch_size=1, accumulation=1, epochs=1.0, warmup_steps=20), 25)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_cosine_schedule_with_warmup(optimizer, schedule.warmup_steps, schedule.steps)
    rates = []
    for _ in range(schedule.steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert max(rates) == schedule.highest_rate_share == 7 / 20
