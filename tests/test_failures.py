"""How a stage ends: what a person can mend is a message and exit code 1, a fault of ours keeps its traceback."""

from __future__ import annotations

import errno
from typing import NoReturn

import pytest
import torch

from ownhand.errors import Refusal, is_out_of_memory, run_stage


def end(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """(exit code, what was said) of a stage that fails with `error`."""

    def main() -> NoReturn:
        raise error

    with pytest.raises(SystemExit) as stopped:
        run_stage(main)
    return stopped.value.code, capsys.readouterr().err


def test_a_refusal_and_a_full_disk_are_messages(capsys: pytest.CaptureFixture[str]) -> None:
    assert end(Refusal("no photograph"), capsys) == (1, "error: no photograph\n")
    code, said = end(OSError(errno.ENOSPC, "No space left on device", "models/adapter"), capsys)
    assert code == 1 and "No space left on device" in said and "models/adapter" in said


def test_a_full_disk_that_nobody_named_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = end(OSError(errno.ENOSPC, "No space left on device"), capsys)
    assert code == 1 and "the disk at " in said and "MB free: make room there" in said
    assert "make room" not in end(OSError(errno.EACCES, "Permission denied", "models/adapter"), capsys)[1]


def test_an_interruption_is_never_taken_for_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = end(KeyboardInterrupt(), capsys)
    assert code == 130 and "last checkpoint" in said


def test_too_little_memory_names_the_parameters_that_lower_the_need(capsys: pytest.CaptureFixture[str]) -> None:
    for error in (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity"),
        MemoryError(),
    ):
        code, said = end(error, capsys)
        assert code == 1
        assert all(name in said for name in ("train.batch_size", "train.gradient_checkpointing", "model.dtype"))


def test_torch_refusing_memory_of_this_machine_is_recognised() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    def main() -> NoReturn:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        run_stage(main)
