"""This machine as facts."""

from __future__ import annotations

from ownhand.checks.environment import check_environment
from ownhand.checks.machine import gather_environment
from ownhand.params import RuntimeParams


def test_this_machine_is_described_and_can_run_the_tests() -> None:
    runtime = RuntimeParams(device="cpu", threads=1, processes=1, shard_mb=1, store_mb=1, checkpoint_steps=1)
    facts = gather_environment(runtime, write_bytes=1)
    assert facts.device == "cpu" and facts.gpu is None
    assert {"torch", "transformers", "peft", "accelerate"} <= facts.versions.keys()
    assert all(facts.ranges[name] for name in ("torch", "transformers", "peft", "accelerate"))
    assert facts.memory_bytes >= facts.free_memory_bytes > 0
    assert not any(finding.level == "blocker" for finding in check_environment(facts))


def test_without_parameters_the_machine_is_still_described() -> None:
    assert gather_environment(None).asked_device == "auto"
