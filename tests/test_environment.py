"""The machine: every finding provoked with facts, without the hardware."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ownhand.checks.environment import check_environment, check_four_bits, runs_on
from ownhand.checks.machine import EnvironmentFacts, Gpu
from ownhand.model import four_bit
from ownhand.params import read_params

ROOT = Path(__file__).parent.parent

BLACKWELL = Gpu("NVIDIA GeForce RTX 5060 Ti", (12, 0), True, 15 * 10**9, 16 * 10**9)
CU124 = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")
GOOD = EnvironmentFacts(
    python=(3, 12, 4),
    system="Windows",
    versions={"torch": "2.13.0+cu128", "transformers": "5.23.0", "peft": "0.21.2", "accelerate": "1.15.0"},
    ranges={"torch": "==2.13.0", "transformers": ">=5.23,<5.24", "peft": ">=0.21.2,<0.22", "accelerate": ">=1.15,<2"},
    cuda_build="12.8",
    architectures=("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"),
    gpu=BLACKWELL,
    driver=True,
    asked_device="auto",
    device="cuda",
    cores=8,
    threads=0,
    root_length=30,
    free_disk_bytes=100 * 10**9,
    memory_bytes=32 * 10**9,
    free_memory_bytes=20 * 10**9,
    write_bytes=10**9,
    devices=("cuda", "cuda:0", "cpu"),
)


def levels(facts: EnvironmentFacts) -> dict[str, str]:
    return {finding.code: finding.level for finding in check_environment(facts) if finding.level != "ready"}


def test_a_good_machine_has_nothing_to_mend() -> None:
    assert levels(GOOD) == {}


@pytest.mark.parametrize(
    ("changes", "code", "level"),
    [
        ({"python": (3, 10, 12)}, "ENV-001", "blocker"),
        ({"versions": {**GOOD.versions, "transformers": "4.46.3"}}, "ENV-002", "blocker"),
        ({"versions": {**GOOD.versions, "peft": "0.22.0"}}, "ENV-002", "blocker"),
        ({"versions": {**GOOD.versions, "peft": None}}, "ENV-002", "blocker"),
        ({"versions": {**GOOD.versions, "accelerate": "0.9"}}, "ENV-002", "warning"),
        ({"versions": {**GOOD.versions, "torch": "2.14.0"}}, "ENV-002", "warning"),
        ({"cuda_build": "12.4", "architectures": CU124}, "ENV-003", "blocker"),
        ({"cuda_build": None, "gpu": None, "devices": ("cpu",), "device": "cpu"}, "ENV-004", "warning"),
        ({"asked_device": "cuda:3"}, "ENV-005", "blocker"),
        ({"asked_device": "mps"}, "ENV-005", "blocker"),
        ({"gpu": None, "devices": ("cpu",), "device": "cpu"}, "ENV-006", "warning"),
        ({"free_disk_bytes": 9 * 10**8}, "ENV-007", "blocker"),
        ({"free_disk_bytes": 12 * 10**8}, "ENV-007", "warning"),
        ({"root_length": 170}, "ENV-009", "warning"),
        ({"threads": 16}, "ENV-010", "warning"),
        ({"processes": 2}, "ENV-012", "blocker"),  # one GPU
        ({"processes": 9, "device": "cpu", "asked_device": "cpu", "gpu": None}, "ENV-012", "blocker"),
    ],
)
def test_each_fault_is_found_and_nothing_else(changes: dict[str, Any], code: str, level: str) -> None:
    facts = replace(GOOD, **changes)
    assert levels(facts) == {code: level}
    finding = next(one for one in check_environment(facts) if one.code == code)
    assert finding.seen and finding.remedy


def test_a_long_path_matters_on_windows_only() -> None:
    assert levels(replace(GOOD, root_length=170, system="Linux")) == {}


def test_the_missing_kernel_names_card_build_and_install_line() -> None:
    facts = replace(GOOD, cuda_build="12.4", architectures=CU124)
    finding = next(one for one in check_environment(facts) if one.code == "ENV-003")
    assert "sm_120" in finding.seen and "CUDA 12.4" in finding.seen and "no kernel image" in finding.seen
    assert "torch==2.13.0" in finding.remedy and "CUDA 12.8 or newer" in finding.remedy


def test_whoever_chose_the_cpu_is_not_told_about_the_card() -> None:
    without = replace(GOOD, cuda_build=None, gpu=None, devices=("cpu",), device="cpu", asked_device="cpu")
    assert levels(without) == {}


@pytest.mark.parametrize(
    ("architectures", "capability", "expected"),
    [
        (("sm_80",), (8, 6), True),  # machine code of the same major number runs
        (("sm_86",), (8, 0), False),  # but not on a lower minor one
        (("sm_90a",), (9, 0), True),
        (("sm_90",), (12, 0), False),
        (("sm_75", "compute_90"), (12, 0), True),  # portable code runs on everything later
        (("compute_120",), (9, 0), False),
        ((), (7, 5), False),
    ],
)
def test_machine_code_and_portable_code_run_where_cuda_says(
    architectures: tuple[str, ...], capability: tuple[int, int], expected: bool
) -> None:
    assert runs_on(architectures, capability) is expected


def test_four_bits_are_looked_at_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    params = read_params(ROOT / "params.yaml")
    assert check_four_bits(params, "cpu") == []
    asked = params.model_copy(update={"train": params.train.model_copy(update={"expert_weights": "nf4"})})
    monkeypatch.setattr(four_bit, "what_is_missing", lambda device: None)
    (found,) = check_four_bits(asked, "cpu")
    assert (found.code, found.level) == ("ENV-013", "ready") and "train.expert_weights" in found.seen
    monkeypatch.setattr(four_bit, "what_is_missing", lambda device: ("bitsandbytes is not installed", "pip install it"))
    (found,) = check_four_bits(asked, "cpu")
    assert (
        found.level == "blocker" and "bitsandbytes is not installed" in found.seen and found.remedy == "pip install it"
    )
