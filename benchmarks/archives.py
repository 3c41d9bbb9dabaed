"""Archives: what ten new lines cost beside many, and how memory grows with the number of lines.

    python -m benchmarks.archives [--lines 1000] [--few 100] [--many 10000]

Small drawn pictures and the demo base model, the stages as DVC runs them, each in a process of its own.
encode      --lines pictures, then ten more: the seconds of both runs
transcribe  --few and --many validation pictures, two tokens each: the peaks of resident memory and of the process's own
            (anonymous) memory of both runs; the rest is files that are mapped, which the system may drop
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import yaml
from PIL import Image

from ownhand.files import hash_file
from ownhand.model.adapter import add_adapter, lora_config, save_adapter
from ownhand.model.base import BaseModel
from ownhand.params import read_params
from ownhand.samples import Sample, write_metadata

ROOT = Path(__file__).parent.parent
NEW = 10
MB = 1e6
SAMPLED_SECONDS = 0.05
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


def run(stage: str, folder: Path) -> tuple[float, float, float]:
    """(seconds, peak of resident memory in MB, peak of own memory in MB) of a stage, sampled."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    started, resident, own = time.perf_counter(), 0.0, 0.0
    command = [sys.executable, "-m", f"stages.{stage}"]
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            with suppress(psutil.Error):
                info = psutil.Process(process.pid).memory_info()
                resident, own = max(resident, info.rss / MB), max(own, (info.rss - getattr(info, "shared", 0)) / MB)
            time.sleep(SAMPLED_SECONDS)
    if process.returncode:
        raise SystemExit(f"stages.{stage} ended with {process.returncode}")
    return time.perf_counter() - started, resident, own


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--lines", type=int, default=1000)
    parser.add_argument("--few", type=int, default=100)
    parser.add_argument("--many", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_project(folder, arguments.lines - 1, 1)
        first, *_ = run("encode", folder)
        write_project(folder, arguments.lines - 1 + NEW, 1)
        again, *_ = run("encode", folder)
        print(f"encode: {arguments.lines} pictures {first:.1f} s, then {NEW} more {again:.1f} s")
    peaks: dict[int, list[float]] = {}
    for count in (arguments.few, arguments.many):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_project(folder, 1, count)
            write_adapter(folder)
            run("encode", folder)
            _, *peaks[count] = run("transcribe", folder)
            resident, own = peaks[count]
            print(f"transcribe: {count} pictures, peak {resident:.0f} MB, its own {own:.0f} MB", flush=True)
    resident, own = (many / few for many, few in zip(peaks[arguments.many], peaks[arguments.few], strict=True))
    print(f"transcribe: {resident:.3f} times the resident memory, {own:.3f} times its own")


if __name__ == "__main__":
    main()
