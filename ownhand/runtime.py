"""The machine: device, threads, and the fingerprint that ties unfinished work to what it was begun with."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from ownhand import processes
from ownhand.errors import Refusal
from ownhand.files import hash_file
from ownhand.params import RuntimeParams

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DECIDING_PACKAGES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "pillow", "numpy", "kornia")


def set_up(params: RuntimeParams) -> torch.device:
    """Apply the thread settings and choose the device. Refusal when it is not there, or torch has no code for it."""
    if params.threads:
        torch.set_num_threads(params.threads)
    torch.set_flush_denormal(True)  # denormal numbers make a CPU ten times slower and change nothing
    if params.device != "auto":
        device = torch.device(params.device)
    elif torch.cuda.is_available():
        device = torch.device("cuda", processes.gpu())
    elif torch.backends.mps.is_available():
        device = torch.device("mps")
    else:
        device = torch.device("cpu")
    _refuse_absent(device)
    return device


def _refuse_absent(device: torch.device) -> None:
    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}[device.type]
    if (device.index or 0) >= there:
        raise Refusal(
            f"runtime.device means {device}, but torch {torch.__version__} sees {there} device(s) of this kind; set it "
            "to auto, or run `ownhand check`, which says what is missing"
        )
    try:
        torch.zeros(1, device=device).add_(1)
    except RuntimeError as error:  # a GPU that this torch was not built for
        reason = str(error).partition("\n")[0]
        raise Refusal(f"{device} cannot be used: {reason}; run `ownhand check`, which says what to install") from None


def fingerprint(*parts: Any, files: list[Path] | None = None) -> str:
    """16 hexadecimal digits of everything that decides a result: parameters, file contents, package versions."""
    described = {
        "parts": [part.model_dump() if hasattr(part, "model_dump") else part for part in parts],
        "files": {path.as_posix(): hash_file(path) for path in files or []},
        "packages": {name: version(name) for name in DECIDING_PACKAGES},
        "python": platform.python_version(),
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def checkpoint_folder(stage: str, print_of_inputs: str) -> Path:
    """Where a stage keeps unfinished work: outside its outputs, which DVC deletes, and keyed by the fingerprint.

    Under `dvc exp run --temp` and in the queue the stage runs in a copy that is removed; DVC then sets $DVC_ROOT to the
    repository that started it, so that the checkpoints outlive the copy. Outside DVC it is this folder.
    """
    return Path(os.environ.get("DVC_ROOT", ".")) / ".checkpoints" / stage / print_of_inputs


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """One run at a time works in `folder`, all its processes together; others wait. A kill sets the folder free.

    Experiments that DVC runs at once share the folders of unfinished work where their parameters are the same.
    """
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    if processes.number() == 0:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"waiting for another run that works in {folder.as_posix()}", flush=True)
            lock.acquire()
    processes.wait_for_all()
    try:
        yield
    finally:
        lock.release()
