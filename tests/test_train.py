"""Training: interrupted or not, the same adapter; and a run says what it was worth."""

from __future__ import annotations

import importlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate import skip_first_batches
from conftest import edit_params
from peft import get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import set_seed

from demo.shape import build_tokenizer
from ownhand.errors import Refusal
from ownhand.files import Unwritable
from ownhand.params import Params, read_params
from ownhand.samples import Sample, read_metadata, write_metadata
from ownhand.training.checkpoints import MARKER
from ownhand.training.run import Datasets, create_keep_best, prepare_datasets
from ownhand.training.trainer import TokenWeightedTrainer
from ownhand.vision.features import FeatureCache
from stages import train

ROOT = Path(__file__).parent.parent


@pytest.fixture
def workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Path, feature_folder: Path, samples: list[Sample]
) -> Path:
    """A folder in which `python -m stages.train` can run: params.yaml, metadata and cached vision tokens."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    content["model"]["name_or_path"] = str(model_folder)
    content["train"] |= {"epochs": 6.0, "batch_size": 1, "accumulation": 1, "evaluations": 2, "lora_r": 2}
    content["train"] |= {"lora_targets": ["attention", "mlp"], "lora_dropout": 0.1, "select": "loss", "cer_lines": 1}
    content["transcribe"]["max_new_tokens"] = 8
    content["runtime"] |= {"checkpoint_steps": 3, "device": "cpu", "threads": 1}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    (tmp_path / "data/processed").mkdir(parents=True)
    split = [replace(s, split="val" if i == 3 else "train") for i, s in enumerate(samples)]
    write_metadata(split, tmp_path / "data/processed")
    shutil.copytree(feature_folder, tmp_path / "data/features")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


def fresh_trainer(params: Params) -> TokenWeightedTrainer:
    """As the stage makes it."""
    model = train.set_up_lora(params, train.set_up(params.runtime))
    return train.create_trainer(model, datasets(params), params, train.unfinished_folder(params))


def start(workspace: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "stages.train"],
        cwd=workspace,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def datasets(params: Params) -> Datasets:
    return prepare_datasets(params, read_metadata(), FeatureCache(train.FEATURES))


def adapter_and_metrics(workspace: Path) -> tuple[dict[str, Any], str]:
    return load_file(workspace / "models/adapter/adapter_model.safetensors"), (
        workspace / "metrics/train.json"
    ).read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "batch_tokens", "checkpoint_steps"), [(1, None, 4), (2, 92, 3)])
def test_a_killed_run_goes_on_and_ends_with_the_adapter_of_an_uninterrupted_one(
    workspace: Path, batch_size: int, batch_tokens: int | None, checkpoint_steps: int
) -> None:
    edit_params(workspace, "train", batch_size=batch_size, batch_tokens=batch_tokens)
    edit_params(workspace, "runtime", checkpoint_steps=checkpoint_steps)  # within an epoch of three or two batches
    whole = start(workspace)
    assert whole.wait() == 0, whole.stderr
    expected, expected_metrics = adapter_and_metrics(workspace)
    shutil.rmtree(workspace / "models/adapter")

    killed = start(workspace)
    deadline = time.monotonic() + 120
    while not list(workspace.glob(f".checkpoints/train/*/checkpoint-*/{MARKER}")):
        assert time.monotonic() < deadline
        assert killed.poll() is None, "the run ended before its first checkpoint was seen"
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (workspace / "models/adapter").exists()

    again = start(workspace)
    output, _ = again.communicate()
    assert again.returncode == 0
    assert "goes on from checkpoint-" in output.decode()
    adapter, metrics = adapter_and_metrics(workspace)
    assert metrics == expected_metrics
    assert adapter.keys() == expected.keys()
    assert all((adapter[name] == expected[name]).all() for name in expected)
    assert not list(workspace.glob(".checkpoints/train/*/*")), "unfinished work is left behind"


@pytest.mark.slow
def test_a_run_that_was_over_takes_no_step_more(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop_before_the_end(trainer: Any, metrics: dict[str, Any], params: Params) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "save", stop_before_the_end)
        with pytest.raises(KeyboardInterrupt):
            train.main()
    states = list(workspace.glob(".checkpoints/train/*/checkpoint-18/trainer_state.json"))
    assert len(states) == 1, "the last step was saved"
    again = start(workspace)
    assert again.wait() == 0
    assert json.loads((workspace / "metrics/train.json").read_text(encoding="utf-8"))["optimizer_steps"] == 18


class Interrupted(Exception):
    """Stands for a kill."""


def interrupt_at(step: int) -> Path:
    """Run the stage until its optimizer has taken `step` steps; the folder of its checkpoints."""
    compute_loss = TokenWeightedTrainer.compute_loss

    def stop(self: Any, *arguments: Any, **more: Any) -> Any:
        if self.state.global_step == step:
            raise Interrupted
        return compute_loss(self, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TokenWeightedTrainer, "compute_loss", stop)
        with pytest.raises(Interrupted):
            train.main()
    return train.unfinished_folder(read_params())


def adapter_bytes() -> bytes:
    return (train.ADAPTER / "adapter_model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_clock_that_was_set_back_costs_no_checkpoint(workspace: Path) -> None:
    train.main()
    expected = adapter_bytes()
    checkpoints = interrupt_at(7)
    for path in checkpoints.iterdir():
        os.utime(path, (1_900_000_000, 1_900_000_000))  # as if written in 2030
    interrupt_at(13)
    train.main()
    assert adapter_bytes() == expected


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)


DAMAGES = [
    ("checkpoint-12/optimizer.pt", cut),
    ("checkpoint-12/optimizer.pt", Path.unlink),
    ("checkpoint-12/scheduler.pt", Path.unlink),
    ("checkpoint-12/rng_state.pth", Path.unlink),
    ("checkpoint-12/trainer_state.json", cut),
    ("checkpoint-12/rng_state.pth", cut),
    ("checkpoint-12/adapter_model.safetensors", flip),
    ("checkpoint-12/adapter_model.safetensors", cut),
    ("checkpoint-12/COMPLETE", cut),
    ("best-9/adapter_model.safetensors", flip),
]


@pytest.mark.slow
def test_a_damaged_checkpoint_is_said_and_the_one_before_it_gives_the_same_adapter(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train.main()
    expected, metrics = adapter_bytes(), train.METRICS.read_bytes()
    checkpoints = interrupt_at(13)
    shutil.copytree(checkpoints, workspace / "interrupted")
    for name, damage in DAMAGES:
        shutil.copytree(workspace / "interrupted", checkpoints, dirs_exist_ok=True)
        damage(checkpoints / name)
        shutil.rmtree(train.ADAPTER)
        capsys.readouterr()
        train.main()
        output = capsys.readouterr().out
        assert "checkpoint-12.damaged: " in output and name.rpartition("/")[2] in output, name
        if not name.startswith("best"):  # the checkpoint before needs that one, too
            assert "goes on from checkpoint-9" in output, name
        assert (adapter_bytes(), train.METRICS.read_bytes()) == (expected, metrics), name
        assert not checkpoints.exists(), "unfinished work is left behind"


TORCH_FULL = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")
SAFETENSORS_FULL = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("writer", "name", "error"),
    [
        ("torch.save", "checkpoint-9/scheduler.pt", TORCH_FULL),
        ("peft.peft_model.safe_save_file", "best-9", SAFETENSORS_FULL),
        ("peft.peft_model.safe_save_file", "adapter.tmp", SAFETENSORS_FULL),
    ],
)
def test_a_disk_that_fills_up_is_named_and_what_was_done_before_stays(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, writer: str, name: str, error: Exception
) -> None:
    module, _, function = writer.rpartition(".")
    write = getattr(importlib.import_module(module), function)

    def fill(*arguments: Any, **more: Any) -> None:
        if name in Path(arguments[1]).as_posix():
            raise error
        write(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(writer, fill)
        with pytest.raises(Unwritable, match=r"could not be written .*; the disk at .* MB free: make room there"):
            train.main()
    checkpoints = {path.name for path in train.unfinished_folder(read_params()).glob("checkpoint-*")}
    assert checkpoints == ({"checkpoint-15", "checkpoint-18"} if "tmp" in name else {"checkpoint-3", "checkpoint-6"})
    assert not list(workspace.rglob("*.tmp"))
    train.main()
    resumed = adapter_bytes()
    train.main()
    assert adapter_bytes() == resumed


def test_a_parameter_that_is_edited_under_way_is_not_taken_for_the_one_that_was_used(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_params(workspace, "train", epochs=2.0)
    shutil.copyfile(ROOT / "dvc.yaml", workspace / "dvc.yaml")
    measured = train.measure

    def edit_and_measure(*arguments: Any) -> dict[str, Any]:
        edit_params(workspace, "train", epochs=3.0)
        return measured(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train, "measure", edit_and_measure)
        with pytest.raises(Refusal, match=r"train in params\.yaml changed while train ran"):
            train.main()
    assert not train.ADAPTER.exists() and not train.METRICS.exists()
    edit_params(workspace, "train", epochs=2.0)  # put back, it costs nothing
    with monkeypatch.context() as patch:
        patch.setattr(TokenWeightedTrainer, "training_step", None)
        train.main()
    assert json.loads(train.METRICS.read_text(encoding="utf-8"))["optimizer_steps"] == 6


def test_another_parameter_or_another_text_begins_anew(workspace: Path) -> None:
    def unfinished(params: Params) -> Path:
        return train.unfinished_folder(params)

    params = read_params()
    first = unfinished(params)
    assert unfinished(params) == first
    other = params.model_copy(update={"train": params.train.model_copy(update={"seed": 99})})
    assert unfinished(other) != first
    metadata = workspace / "data/processed/train/metadata.json"
    metadata.write_text(metadata.read_text(encoding="utf-8").replace("мама", "папа"), encoding="utf-8")
    assert unfinished(params) != first


def test_with_few_validation_lines_the_loss_chooses_and_the_run_says_so(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = read_params()
    params = params.model_copy(update={"train": params.train.model_copy(update={"select": "cer"})})
    keeper = create_keep_best(datasets(params), params)
    assert keeper is not None and keeper.name == "eval_loss"
    assert "1 validation line(s) are too few to choose by CER" in capsys.readouterr().out


def test_a_batch_larger_than_the_training_set_is_refused(workspace: Path) -> None:
    params = read_params()
    params = params.model_copy(update={"train": params.train.model_copy(update={"batch_size": 4})})
    with pytest.raises(Refusal, match="train.batch_size is 4, but there are only 3"):
        datasets(params)


def test_samples_that_do_not_fit_are_all_named(workspace: Path) -> None:
    params = read_params()
    params = params.model_copy(update={"train": params.train.model_copy(update={"max_tokens": 16})})
    with pytest.raises(Refusal, match=r"(?s)train.max_tokens.*1\.jpg.*2\.jpg.*3\.jpg"):
        datasets(params)


def test_a_sample_longer_than_a_batch_may_be_is_named(workspace: Path) -> None:
    lengths = datasets(read_params()).train.lengths()
    edit_params(workspace, "train", batch_tokens=max(lengths))
    assert datasets(read_params()).train.lengths() == lengths
    edit_params(workspace, "train", batch_tokens=max(lengths) - 1)
    with pytest.raises(Refusal, match=rf"train.batch_tokens.*\n  {lengths.index(max(lengths)) + 1}\.jpg"):
        datasets(read_params())


def test_accumulated_batches_of_a_token_budget_give_the_adapter_of_one_batch(workspace: Path) -> None:
    edit_params(workspace, "train", lora_dropout=0.0, epochs=4.0, batch_size=3)
    lengths = datasets(read_params()).train.lengths()
    adapters, batches = [], []
    for changes in ({}, {"batch_tokens": 2 * sorted(lengths)[1], "accumulation": 2}):
        edit_params(workspace, "train", **changes)
        params = read_params()
        set_seed(params.train.seed)
        trainer = fresh_trainer(params)
        batches.append(sorted(len(batch["image_ids"]) for batch in trainer.get_train_dataloader()))
        trainer.train()
        assert trainer.state.global_step == 4
        adapters.append(get_peft_model_state_dict(trainer.model))
    assert batches == [[3], [1, 2]]
    assert all((adapters[0][name] - adapters[1][name]).abs().max() < 1e-4 for name in adapters[0])
    assert any(weight.abs().max() > 1e-4 for name, weight in adapters[0].items() if "lora_B" in name)


@pytest.mark.parametrize("count", ["1", "2"])
def test_a_resumed_epoch_has_the_batches_that_were_left_of_it(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, count: str
) -> None:
    params = read_params()
    trainer = fresh_trainer(params)
    trainer.batch_tokens = 60  # three batches of one, so that the order is all there is
    monkeypatch.setenv("WORLD_SIZE", count)

    def names(loader: Any) -> list[list[str]]:
        return [batch["image_ids"] for batch in loader]

    loader: Any = trainer.get_train_dataloader()
    epochs = []
    for epoch in range(6):
        loader.set_epoch(epoch)
        epochs.append(names(loader))
    assert len({str(epoch) for epoch in epochs}) > 1
    for epoch in range(6):
        rest = skip_first_batches(trainer.get_train_dataloader(), 1)
        rest.batch_sampler.batch_sampler.set_epoch(epoch)  # as the Trainer does
        assert names(rest) == epochs[epoch][1:]


def test_the_metrics_hold_the_loss_against_guessing_and_against_swapped_pictures(workspace: Path) -> None:
    run = start(workspace)
    output, errors = run.communicate()
    metrics = json.loads((workspace / "metrics/train.json").read_text())
    assert metrics["uniform_loss"] == pytest.approx(math.log(build_tokenizer().get_vocab_size()))
    assert metrics["optimizer_steps"] == 18
    assert metrics["train_lines"] == 3 and metrics["val_lines"] == 1
    assert metrics["selected_step"] in (9, 18)
    assert metrics["val_loss"] != metrics["val_loss_before"]
    # One validation line cannot be shuffled; a random base model may well learn nothing.
    assert set(metrics["findings"]) <= {"TRAIN-001", "TRAIN-002"}
    assert "train: read 3 training examples of 3 lines" in output.decode() and "{" not in output.decode()
    assert "\r" not in errors.decode() and "training: step 9 of 18: loss on validation " in errors.decode()
    curve = (workspace / "metrics/curves/val_loss.csv").read_text().splitlines()
    assert curve[0] == "step,loss" and len(curve) == 3
    best = min(curve[1:], key=lambda row: float(row.split(",")[1]))
    assert best.startswith(f"{metrics['selected_step']},")
    assert metrics["val_loss"] == pytest.approx(float(best.split(",")[1]), abs=1e-5)
    assert (workspace / "metrics/curves/val_cer.csv").read_text().startswith("step,cer\n9,")
