"""Which adapter is kept: decided by the log alone, and only whole ones count."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ownhand.errors import Refusal
from ownhand.evaluation.metrics import count_character_errors
from ownhand.model.base import BaseModel
from ownhand.model.decoding import transcribe_tokens
from ownhand.params import TranscribeParams
from ownhand.samples import Sample
from ownhand.training.checkpoints import SealCheckpoints, seal
from ownhand.training.selection import KeepBest, best_step, make_cer_reader
from ownhand.vision.features import FeatureCache


class SavedModel:
    """Stands for the adapter: what it wrote says when."""

    def __init__(self) -> None:
        self.step = 0

    def save_pretrained(self, folder: Path, **_: Any) -> None:
        folder.mkdir()
        (folder / "step").write_text(str(self.step))


def run(values: list[float], folder: Path, patience: int = 0) -> list[int]:
    """Evaluations every 10 steps with these values; the steps that were reached before the run was stopped."""
    callback = KeepBest("cer", patience)
    seals = SealCheckpoints(callback.name_best)
    arguments, model = SimpleNamespace(output_dir=str(folder)), SavedModel()
    control = SimpleNamespace(should_training_stop=False)
    state = SimpleNamespace(log_history=[], global_step=0)
    reached = []
    for value in values:
        state.global_step += 10
        model.step = state.global_step
        state.log_history.append({"step": state.global_step, "eval_cer": value, "eval_loss": -value})
        callback.on_evaluate(arguments, state, control, model=model)
        (folder / f"checkpoint-{state.global_step}").mkdir()
        seals.on_save(arguments, state, control)
        reached.append(state.global_step)
        if control.should_training_stop:
            break
    return reached


def test_the_adapter_of_the_lowest_value_is_kept_and_no_other(tmp_path: Path) -> None:
    assert run([0.5, 0.3, 0.4, 0.3], tmp_path) == [10, 20, 30, 40]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best-20", "checkpoint-30", "checkpoint-40"]
    assert (tmp_path / "best-20/step").read_text() == "20"


def test_the_run_stops_when_patience_has_run_out_and_not_before(tmp_path: Path) -> None:
    for name, values, last in (("a", [0.5, 0.3, 0.4, 0.4, 0.2, 0.1], 60), ("b", [0.5, 0.3, 0.4, 0.4, 0.3, 0.1], 50)):
        (tmp_path / name).mkdir()
        assert run(values, tmp_path / name, patience=3)[-1] == last
        history = [{"step": 10 * (i + 1), "eval_cer": value} for i, value in enumerate(values)]
        assert KeepBest("cer", 3).has_run_out(history[: last // 10]) is (name == "b"), "what a resumed run decides by"
        assert not KeepBest("cer", 3).has_run_out(history[: last // 10 - 1])
        assert not KeepBest("cer", 0).has_run_out(history) and not KeepBest("cer", 3).has_run_out([])


def test_the_metric_is_the_one_that_was_asked_for() -> None:
    history = [{"step": 1, "loss": 0.1}, {"step": 2, "eval_loss": 3.0, "eval_cer": 0.2}]
    history.append({"step": 4, "eval_loss": 2.0, "eval_cer": 0.4})
    assert best_step(history, KeepBest("loss", 0).name) == 4
    assert best_step(history, KeepBest("cer", 0).name) == 2


def test_an_adapter_that_is_not_whole_is_not_taken(tmp_path: Path) -> None:
    keeper = KeepBest("cer", 0)
    history = [{"step": 2, "eval_cer": 0.2}]
    with pytest.raises(Refusal, match="best-2 is damaged: COMPLETE cannot be used"):
        keeper.best_folder(tmp_path, history)
    (tmp_path / "best-2").mkdir()
    (tmp_path / "best-2/weights").write_text("1", encoding="utf-8")
    seal(tmp_path / "best-2")
    (tmp_path / "best-2/weights").write_text("2", encoding="utf-8")
    with pytest.raises(Refusal, match="best-2 is damaged: weights has changed"):
        keeper.best_folder(tmp_path, history)
    (tmp_path / "best-2/weights").write_text("1", encoding="utf-8")
    assert keeper.best_folder(tmp_path, history) == (2, tmp_path / "best-2")


def test_the_cer_of_training_is_that_of_transcribe_with_one_beam(
    base: BaseModel, samples: list[Sample], cache: FeatureCache
) -> None:
    params = TranscribeParams(max_new_tokens=12, no_repeat_ngram_size=5, batch_size=2)
    model: Any = base.load(vision=False)
    tokens = [cache.tokens(sample.image_id) for sample in samples]
    readings = transcribe_tokens(model, tokens, base, params.model_copy(update={"beams": 1}), None)
    counts = [count_character_errors(s.text, r.text) for s, r in zip(samples, readings, strict=True)]

    def tokens_of(_: Any, image_id: str) -> torch.Tensor:
        return cache.tokens(image_id)

    read = make_cer_reader(samples, tokens_of, base, params, 100)
    assert read(model) == sum(errors for errors, _ in counts) / sum(n for _, n in counts)
    assert model.training
    first_and_third = make_cer_reader(samples, tokens_of, base, params, 2)
    assert first_and_third(model) == (counts[0][0] + counts[2][0]) / (counts[0][1] + counts[2][1])


def test_the_best_adapter_of_every_kept_checkpoint_stays(tmp_path: Path) -> None:
    """Should the last checkpoint be damaged, the one before it still has the adapter that was the best then."""
    run([0.5, 0.3, 0.4, 0.2], tmp_path)
    assert {path.name for path in tmp_path.glob("best-*")} == {"best-20", "best-40"}
