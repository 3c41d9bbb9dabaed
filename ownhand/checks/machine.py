"""This machine as facts: what is installed, which GPU there is, how much room."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tomllib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch
from packaging.requirements import Requirement

from ownhand.params import RuntimeParams

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"  # the one list of tested versions
LEAST_BF16 = (8, 0)  # compute capability with units for bfloat16; below it torch only emulates them


@dataclass(frozen=True)
class Gpu:
    """A CUDA GPU as torch sees it; bf16: whether it has units for bfloat16."""

    name: str
    capability: tuple[int, int]
    bf16: bool
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class EnvironmentFacts:
    """What was found on this machine.

    versions: installed version by package, None where it is missing; ranges: what pyproject.toml allows;
    architectures: what torch was built for, such as sm_90; GPU: None when torch sees none; driver: whether NVIDIA's
    tools are installed; asked_device: runtime.device; device: the one that will be used; root_length: characters of
    the repository's path; write_bytes: what the run will write.
    """

    python: tuple[int, int, int]
    system: str
    versions: dict[str, str | None]
    ranges: dict[str, str]
    cuda_build: str | None
    architectures: tuple[str, ...]
    gpu: Gpu | None
    driver: bool
    asked_device: str
    device: str
    cores: int
    threads: int
    root_length: int
    free_disk_bytes: int
    memory_bytes: int
    free_memory_bytes: int
    write_bytes: int = 0
    devices: tuple[str, ...] = ("cpu",)
    processes: int = 1


def gather_environment(runtime: RuntimeParams | None, write_bytes: int = 0) -> EnvironmentFacts:
    """Look at this machine; without `runtime` (params.yaml cannot be read) as if nothing were asked for."""
    asked = runtime.device if runtime else "auto"
    devices: tuple[str, ...] = ("cpu",)
    if torch.cuda.is_available():
        devices = ("cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count())), *devices)
    if torch.backends.mps.is_available():
        devices = ("mps", *devices)
    device = asked if asked in devices else devices[0]
    memory = psutil.virtual_memory()
    listed = map(Requirement, tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]["dependencies"])
    ranges = {requirement.name: str(requirement.specifier) for requirement in listed}
    return EnvironmentFacts(
        python=(sys.version_info.major, sys.version_info.minor, sys.version_info.micro),
        system=platform.system(),
        versions={name: _installed(name) for name in ranges},
        ranges=ranges,
        cuda_build=torch.version.cuda,
        architectures=tuple(torch.cuda.get_arch_list()),
        gpu=_gpu(torch.device(device)) if device.startswith("cuda") else None,
        driver=shutil.which("nvidia-smi") is not None,
        asked_device=asked,
        device=device.partition(":")[0],
        cores=os.cpu_count() or 1,
        threads=runtime.threads if runtime else 0,
        root_length=len(str(Path.cwd())),
        free_disk_bytes=shutil.disk_usage(Path.cwd()).free,
        memory_bytes=memory.total,
        free_memory_bytes=memory.available,
        write_bytes=write_bytes,
        devices=devices,
        processes=runtime.processes if runtime else 1,
    )


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _gpu(device: torch.device) -> Gpu:
    free, total = torch.cuda.mem_get_info(device)
    capability = torch.cuda.get_device_capability(device)
    return Gpu(torch.cuda.get_device_name(device), capability, capability >= LEAST_BF16, free, total)
