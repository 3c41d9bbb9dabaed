"""The machine against what the run needs: Python, packages, GPU, disk, processes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from packaging.requirements import Requirement

from ownhand.checks.findings import Finding, blocker, gigabytes, ready, warning
from ownhand.checks.machine import EnvironmentFacts
from ownhand.params import Params

LEAST_PYTHON = (3, 11)
PRIVATE_DETAILS = ("transformers", "peft")  # details of theirs are used that may change with any version
GET_TORCH = "https://pytorch.org/get-started/locally/"
LONGEST_OUTPUT = 110  # characters of .checkpoints/train/<16>/checkpoint-<5>/adapter_model.safetensors.<pid>.tmp
WINDOWS_PATH = 259
DISK_RESERVE = 1.5  # checkpoints exist twice while one replaces the other


def check_environment(facts: EnvironmentFacts) -> list[Finding]:
    """Findings ENV-001 to ENV-012, but for ENV-011; ENV-013 is `check_four_bits`'."""
    checks = (_python, _packages, _kernels, _cuda, _device, _disk, _paths, _threads, _processes)
    return [finding for check in checks for finding in check(facts)]


def _python(facts: EnvironmentFacts) -> Iterator[Finding]:
    seen = ".".join(map(str, facts.python))
    if facts.python[:2] < LEAST_PYTHON:
        yield blocker("ENV-001", seen, "make a new environment with Python 3.11 or newer")
    else:
        yield ready("ENV-001", f"{seen} on {facts.system}")


def _packages(facts: EnvironmentFacts) -> Iterator[Finding]:
    missing = [name for name, installed in facts.versions.items() if installed is None]
    foreign = {
        name: f"{name} {installed} (tested: {facts.ranges[name]})"
        for name, installed in facts.versions.items()
        if installed is not None and not Requirement(name + facts.ranges[name]).specifier.contains(installed, True)
    }
    remedy = "pip install -e . in this environment"
    grave = [seen for name, seen in foreign.items() if name in PRIVATE_DETAILS]
    if missing or grave:
        yield blocker("ENV-002", "; ".join([*(f"{name} is missing" for name in missing), *grave]), remedy)
    mild = [seen for name, seen in foreign.items() if name not in PRIVATE_DETAILS]
    if mild:
        yield warning("ENV-002", "; ".join(mild), remedy)
    if not missing and not foreign:
        named = ", ".join(f"{name} {facts.versions[name]}" for name in ("torch", *PRIVATE_DETAILS, "accelerate"))
        yield ready("ENV-002", f"{named}; all in the tested ranges")


def runs_on(architectures: tuple[str, ...], capability: tuple[int, int]) -> bool:
    """Whether a torch built for `architectures` has code for a GPU.

    Machine code (sm_XY) runs on GPUs of the same major number and at least its minor one; portable code (compute_XY)
    on every later GPU. Source: CUDA C++ Programming Guide, "Application Compatibility".
    """
    for name in architectures:
        kind, _, digits = name.partition("_")
        number = re.sub(r"\D", "", digits)
        built = int(number[:-1]), int(number[-1])
        if kind == "sm" and built[0] == capability[0] and built[1] <= capability[1]:
            return True
        if kind == "compute" and built <= capability:
            return True
    return False


def _kernels(facts: EnvironmentFacts) -> Iterator[Finding]:
    if facts.gpu is None:
        return
    major, minor = facts.gpu.capability
    seen = f"{facts.gpu.name} (sm_{major}{minor}), torch for CUDA {facts.cuda_build}"
    if runs_on(facts.architectures, facts.gpu.capability):
        yield ready("ENV-003", seen)
        return
    least = "12.8 or newer" if (major, minor) >= (10, 0) else f"whose list of architectures has sm_{major}{minor}"
    yield blocker(
        "ENV-003",
        f"{seen} has code for {', '.join(facts.architectures)} only: “no kernel image is available”",
        f"pip install --force-reinstall torch{facts.ranges.get('torch', '')} --index-url URL, with the URL that "
        f"{GET_TORCH} shows for CUDA {least}; or runtime.device: cpu",
    )


def _cuda(facts: EnvironmentFacts) -> Iterator[Finding]:
    if not facts.driver or facts.gpu is not None or facts.asked_device == "cpu":
        return
    if facts.cuda_build is None:
        yield warning(
            "ENV-004",
            f"NVIDIA's driver is installed, but torch {facts.versions.get('torch')} is a build without CUDA",
            f"install the CUDA build with the command of {GET_TORCH} (PyPI's torch for Windows has none)",
        )
    elif "cuda" not in facts.devices:
        yield warning(
            "ENV-006",
            f"NVIDIA's driver is installed, but torch for CUDA {facts.cuda_build} sees no GPU",
            "run nvidia-smi: update the driver if its CUDA version is lower, or restart the machine",
        )


def _device(facts: EnvironmentFacts) -> Iterator[Finding]:
    if facts.asked_device == "auto" or facts.asked_device in facts.devices:
        yield ready("ENV-005", f"{facts.device} (runtime.device: {facts.asked_device})")
    else:
        yield blocker(
            "ENV-005",
            f"runtime.device is {facts.asked_device}; torch sees {', '.join(facts.devices)}",
            "set runtime.device to auto or to one that is there",
        )


def _disk(facts: EnvironmentFacts) -> Iterator[Finding]:
    if not facts.write_bytes:
        return
    seen = f"the run will write about {gigabytes(facts.write_bytes)}"
    remedy = "free some space, or lower encode.copies or encode.max_tiles"
    if facts.free_disk_bytes < facts.write_bytes:
        yield blocker("ENV-007", f"{seen}, {gigabytes(facts.free_disk_bytes)} are free", remedy)
    elif facts.free_disk_bytes < DISK_RESERVE * facts.write_bytes:
        yield warning("ENV-007", f"{seen}, and hardly more is free", remedy)
    else:
        yield ready("ENV-007", f"{seen}; more is free")


def _paths(facts: EnvironmentFacts) -> Iterator[Finding]:
    if facts.system == "Windows" and facts.root_length + LONGEST_OUTPUT > WINDOWS_PATH:
        yield warning(
            "ENV-009",
            f"this folder's path has {facts.root_length} characters; outputs add up to {LONGEST_OUTPUT}",
            "move the folder nearer to the drive's root, or switch on long paths in Windows",
        )


def _threads(facts: EnvironmentFacts) -> Iterator[Finding]:
    if facts.threads > facts.cores:
        yield warning(
            "ENV-010",
            f"runtime.threads is {facts.threads}, this machine has {facts.cores} cores",
            "set runtime.threads to 0 (all cores) or fewer",
        )
    else:
        yield ready("ENV-010", f"{facts.threads or facts.cores} of {facts.cores} cores")


def _processes(facts: EnvironmentFacts) -> Iterator[Finding]:
    most, places = facts.cores, "cores"
    if facts.device != "cpu":
        most, places = 1, "GPU"
        if facts.asked_device in ("auto", "cuda"):
            most = max(1, sum(name.startswith(f"{facts.device}:") for name in facts.devices))
            places = "GPU" if most == 1 else "GPUs"
    seen = f"runtime.processes is {facts.processes}; runtime.device {facts.asked_device} means {most} {places} here"
    if facts.processes > most:
        yield blocker("ENV-012", seen, f"set runtime.processes to at most {most}")
    else:
        yield ready("ENV-012", seen)


def check_four_bits(params: Params, device: str) -> list[Finding]:
    """Finding ENV-013, where params.yaml asks for experts in four bits."""
    asked = [
        f"{stage}.expert_weights"
        for stage, group in (("train", params.train), ("transcribe", params.transcribe))
        if group.expert_weights == "nf4"
    ]
    if not asked:
        return []
    from ownhand.model.four_bit import what_is_missing  # it imports torch, which may be what is missing

    seen = f"nf4 for {' and '.join(asked)} on {device}"
    missing = what_is_missing(device)
    return [blocker("ENV-013", f"{seen}: {missing[0]}", missing[1]) if missing else ready("ENV-013", seen)]
