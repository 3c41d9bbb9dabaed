"""Several processes give what one gives: the same vision tokens, the same adapter, the same readings."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import edit_params
from safetensors.torch import load_file

from ownhand import processes
from ownhand.vision.features import FeatureCache

ROOT = Path(__file__).parent.parent


def run(stage: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DVC_ROOT": str(folder), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_two_processes_give_the_tokens_the_adapter_and_the_readings_of_one(stage_folder: Path) -> None:
    edit_params(stage_folder, "encode", copies=2)  # 9 views: one process has nothing to do in the last batch
    edit_params(stage_folder, "train", batch_size=4, accumulation=1, epochs=3.0, evaluations=2, select="loss")
    edit_params(stage_folder, "transcribe", max_new_tokens=10, batch_size=8)
    tokens, adapters, losses, readings = [], [], [], []
    for count in (1, 2):
        shutil.rmtree(stage_folder / ".checkpoints", ignore_errors=True)  # else all comes from the token store
        edit_params(stage_folder, "runtime", processes=count, device="auto")
        for stage in ("encode", "train", "transcribe"):
            done = run(stage, stage_folder)
            assert done.returncode == 0, done.stderr
            assert done.stdout.count(f"{stage}: read") == 1, "the closing line is said once"
        cache = FeatureCache(stage_folder / "data/features")
        tokens.append({key: cache.tokens(key) for key in cache.index["images"]})
        adapters.append(load_file(stage_folder / "models/adapter/adapter_model.safetensors"))
        losses.append(json.loads((stage_folder / "metrics/train.json").read_text(encoding="utf-8")))
        readings.append((stage_folder / "data/predictions/adapter.jsonl").read_text(encoding="utf-8"))
    stored = list((stage_folder / ".checkpoints/encode").rglob("*.safetensors"))
    assert len(stored) == 2, "each process stored its part"
    assert tokens[0].keys() == tokens[1].keys()
    assert all(torch.equal(tokens[0][key], tokens[1][key]) for key in tokens[0])
    assert adapters[0].keys() == adapters[1].keys()
    assert all(torch.allclose(adapters[0][name], adapters[1][name], atol=1e-4) for name in adapters[0])
    assert any(bool(weight.any()) for name, weight in adapters[1].items() if "lora_B" in name), "something was learned"
    for name in ("train_loss", "val_loss", "val_loss_swapped_pictures"):
        assert losses[0][name] == pytest.approx(losses[1][name], abs=1e-4)
    assert [json.loads(line)["prediction"] for line in readings[0].splitlines()] == [
        json.loads(line)["prediction"] for line in readings[1].splitlines()
    ]


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_evenly_and_a_failing_process_end_with_exit_code_1(stage_folder: Path) -> None:
    assert run("encode", stage_folder).returncode == 0
    edit_params(stage_folder, "runtime", processes=2)
    edit_params(stage_folder, "train", batch_size=3)
    done = run("train", stage_folder)
    assert done.returncode == 1
    assert "3, which 2 processes cannot share evenly" in done.stderr


def test_every_process_has_its_part_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes.share(range(5)) == [0, 1, 2, 3, 4] and processes.gather("x") == ["x"]
    monkeypatch.setenv("WORLD_SIZE", "3")
    parts = []
    for rank in "012":
        monkeypatch.setenv("RANK", rank)
        parts += processes.share(range(5))
    assert sorted(parts) == [0, 1, 2, 3, 4]


def test_what_is_gathered_comes_from_every_process_on_a_machine_without_a_gpu() -> None:
    code = "from ownhand import processes as p; print(p.gather(f'from {p.number()}'), p.gather(None))"
    assert run_in_two_processes(code) == ["['from 0', 'from 1'] [None, None]\n"] * 2


def test_the_demo_model_trains_on_the_mean_gradient_and_lacks_none() -> None:
    code = """if True:
        import torch
        from demo.pretrain import share_gradients
        from ownhand import processes
        processes.wait_for_all()
        one, two = (torch.nn.Parameter(torch.zeros(2, 2)) for _ in range(2))
        one.grad = torch.eye(2) * (1 + processes.number())
        two.grad = None if processes.number() else torch.ones(2, 2)
        share_gradients([one, two])
        print(one.grad.tolist(), two.grad.tolist())
    """
    assert run_in_two_processes(code) == ["[[1.5, 0.0], [0.0, 1.5]] [[0.5, 0.5], [0.5, 0.5]]\n"] * 2


def run_in_two_processes(code: str) -> list[str]:
    """What the code prints in each of two processes that know of each other, on a machine without a GPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "CUDA_VISIBLE_DEVICES": ""}
    started = []
    for rank in "01":
        environment = {**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank}
        command = [sys.executable, "-c", code]
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True))
    return [process.communicate(timeout=600)[0] for process in started]
