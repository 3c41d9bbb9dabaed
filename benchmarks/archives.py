"""Archives: what ten new lines cost beside many, and how memory grows with the number of lines.

    python -m benchmarks.archives [--lines 1000] [--few 100] [--many 10000]

Small drawn pictures and the demo base model, the stages as DVC runs them, each in a process of its own.
encode      --lines pictures, then ten more: the seconds of both runs
transcribe  --few and --many validation pictures, two tokens each: the peak of resident memory of both runs
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from ownhand.files import hash_file
from ownhand.model.adapter import add_adapter, lora_config, save_adapter
from ownhand.model.base import BaseModel
from ownhand.params import read_params
from ownhand.samples import Sample, write_metadata

ROOT = Path(__file__).parent.parent
NEW = 10
SIZE_PX = (96, 32)


def write_project(folder: Path, train: int, val: int) -> None:
    """Pictures of noise with one text each, and parameters for little work; pictures that are there stay."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    content["model"]["name_or_path"] = (ROOT / "models/base").as_posix()
    content["encode"] |= {"mode": "tiny", "copies": 0}
    content["train"]["lora_targets"] = ["attention"]  # vision tokens come from the cache
    content["transcribe"] |= {"max_new_tokens": 2, "batch_size": 16}
    content["runtime"] |= {"device": "cpu", "threads": 1}
    (folder / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    samples = []
    for number in range(train + val):
        side = "train" if number < train else "val"
        path = Path(f"data/processed/{side}/images/{number:05d}.jpg")
        if not (folder / path).exists():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(number).integers(0, 256, (SIZE_PX[1], SIZE_PX[0], 3), np.uint8)
            Image.fromarray(noise).save(folder / path)
        image_id, digest = f"{number:05d}", hash_file(folder / path)
        samples.append(Sample(image_id, path.as_posix(), "да", path.name, image_id, "", *SIZE_PX, side, digest))
    write_metadata(samples, folder / "data/processed")


def write_adapter(folder: Path) -> None:
    """An adapter that changes nothing."""
    params = read_params(folder / "params.yaml")
    model = BaseModel.open(params).load(vision=False)
    save_adapter(add_adapter(model, lora_config(params.train, "base", None)), folder / "models/adapter", "base")


def run(stage: str, folder: Path) -> tuple[float, float]:
    """(seconds, peak of resident memory in MB) of a stage."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}"], cwd=folder, env=environment, stdout=subprocess.DEVNULL
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"stages.{stage} ended with {process.returncode}")
    return time.perf_counter() - started, peak_mb(usage)


def peak_mb(usage: resource.struct_rusage) -> float:
    """Linux counts in kilobytes, macOS in bytes."""
    return usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--lines", type=int, default=1000)
    parser.add_argument("--few", type=int, default=100)
    parser.add_argument("--many", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_project(folder, arguments.lines - 1, 1)
        first, _ = run("encode", folder)
        write_project(folder, arguments.lines - 1 + NEW, 1)
        again, _ = run("encode", folder)
        print(f"encode: {arguments.lines} pictures {first:.1f} s, then {NEW} more {again:.1f} s")
    peaks = {}
    for count in (arguments.few, arguments.many):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_project(folder, 1, count)
            write_adapter(folder)
            run("encode", folder)
            _, peaks[count] = run("transcribe", folder)
            print(f"transcribe: {count} pictures, peak {peaks[count]:.0f} MB", flush=True)
    print(f"transcribe: {peaks[arguments.many] / peaks[arguments.few]:.3f} times the memory")


if __name__ == "__main__":
    main()
