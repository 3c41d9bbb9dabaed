"""Several processes for one stage: one per GPU, on one machine or on many with a shared disk.

A stage that is asked for several (`runtime.processes`) starts itself again under torch's launcher; started by that
launcher from outside (torchrun, Slurm), it takes its place among the others. With one process nothing here does
anything. Results do not depend on the number: the same pictures, batches and sums, only shared out.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import torch


def start_processes(module: str, processes: int) -> bool:
    """Run `python -m module` in several processes and wait; False when this process is to do the work itself.

    SystemExit with the launcher's exit code when one of them failed.
    """
    if processes == 1 or "RANK" in os.environ:
        return False
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    code = subprocess.run([*launcher, "-m", module]).returncode
    if code:
        raise SystemExit(code)
    return True


def count() -> int:
    """How many processes work on this stage."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def number() -> int:
    """Which of them this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def gpu() -> int:
    """Which GPU of its machine this process has, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def share(values: Sequence[Any]) -> list[Any]:
    """This process's part of `values`: every count-th."""
    return list(values[number() :: count()])


def gather(value: Any) -> list[Any]:
    """The `value` of every process, in their order; all must call it."""
    if count() == 1:
        return [value]
    _join()
    values: list[Any] = [None] * count()
    torch.distributed.all_gather_object(values, value)
    return values


def wait_for_all() -> None:
    """Go on only when every process has come here."""
    gather(None)


def _join() -> None:
    if torch.distributed.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(gpu())
    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
