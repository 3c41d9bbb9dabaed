"""Prepare beside Pillow: rate on all cores, memory that does not grow, and how little a few new pictures cost.

    python -m benchmarks.prepare [--small 1000] [--large 20000] [--width 1600] [--height 400] [--max-side 1200]
                                 [--folder FOLDER] [--json FILE]

Draws photographs of lines (all different, each about 1/8 of the work of a page), then measures

- rate: prepare's conversion of `--small` pictures beside the least that can be done with them: a pool of as many
  processes in which Pillow decodes, reduces and encodes the same files with the same settings. Both ways in turn, three
  times each; the ratio is that of the best times. Goal: 0.85 or more of Pillow's rate.
- memory: the largest sum of the resident memory of `python -m stages.prepare` and its processes, at `--large` and at
  `--small` pictures. Goal: a ratio of 1.2 or less.
- again: `python -m stages.prepare` at `--large` pictures, and once more after 1 per cent new ones. Goal: 10 times
  faster.

The pictures stay in `--folder` where it is given, and are drawn only once. `--large` needs about 0.4 MB of disk per
picture. Absolute figures belong to the machine and its load, ratios less so.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from PIL import Image, ImageDraw

from ownhand.dataset.conversion import JPEG_QUALITY, PICTURES_PER_TASK, convert_pictures
from ownhand.dataset.conversion_cache import ConversionCache
from ownhand.files import write_json, write_text
from ownhand.images import ImageLimits

ROOT = Path(__file__).parent.parent
LINES_PER_PAGE = 10
ROUNDS = 3
NEW_SHARE = 0.01
SECONDS_BETWEEN_SAMPLES = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prepare", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--small", type=int, default=1000, help="pictures of the rate and of the smaller memory run")
    parser.add_argument("--large", type=int, default=20000, help="pictures of the larger run and of the second run")
    parser.add_argument("--width", type=int, default=1600, help="of a picture, px")
    parser.add_argument("--height", type=int, default=400, help="of a picture, px")
    parser.add_argument("--max-side", type=int, default=1200, help="prepare.max_side_px; smaller than the width")
    parser.add_argument("--folder", type=Path, help="where to work and keep the pictures; else a temporary folder")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        figures = measure(options, options.folder or Path(temporary))
    for name, value in figures.items():
        print(f"{name:32} {value}")
    if options.json:
        write_json(options.json, figures)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures; `folder` holds the drawn pictures and the two runs."""
    new = max(1, round(NEW_SHARE * options.large))
    photographs = draw_photographs(folder / "photographs", options.large + new, (options.width, options.height))
    small, large = photographs[: options.small], photographs[: options.large]
    figures: dict[str, Any] = {
        "pictures": f"{options.small} and {options.large}, {options.width} x {options.height} px",
        "processes": processes(),
        "load before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }
    figures |= measure_rate(small, folder / "rate", options.max_side)
    seconds, small_mb = run_prepare(folder / "small", small, options.max_side)
    figures |= {"small: seconds": seconds, "small: peak MB": small_mb}
    seconds, large_mb = run_prepare(folder / "large", large, options.max_side)
    figures |= {"large: seconds": seconds, "large: peak MB": large_mb, "memory ratio": round(large_mb / small_mb, 3)}
    again, _ = run_prepare(folder / "large", photographs, options.max_side)
    figures |= {f"again with {new} new: seconds": again, "times faster": round(seconds / again, 1)}
    return figures


def processes() -> int:
    """As many as the stage starts."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def draw_photographs(folder: Path, count: int, size: tuple[int, int]) -> list[Path]:
    """JPEG files of strokes on uneven, grainy paper, all different; those that are there already are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(processes(), mp_context=get_context("spawn")) as pool:
        return list(pool.map(partial(draw_photograph, folder, size), range(count), chunksize=64))


def draw_photograph(folder: Path, size: tuple[int, int], number: int) -> Path:
    """The photograph of that number."""
    path = folder / f"{number:06d}-{size[0]}x{size[1]}.jpg"
    if path.exists():
        return path
    rng = np.random.default_rng(number)
    light = Image.fromarray(rng.integers(190, 240, (3, 6), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(light)
    width = max(2, size[1] // 60)
    for start in np.sort(rng.uniform(0.03, 0.95, 60)) * size[0]:
        steps = rng.uniform(-0.12, 0.12, (4, 2)).cumsum(axis=0) * size[1] * (1, 2)
        draw.line([(start + x, size[1] / 2 + y) for x, y in steps], fill=int(rng.integers(20, 90)), width=width)
    grain = rng.normal(0, 4, (size[1], size[0]))
    grey = np.clip(np.asarray(light, np.float32) + grain, 0, 255).astype(np.uint8)
    temporary = path.with_suffix(".tmp")
    Image.merge("RGB", [Image.fromarray(grey)] * 3).save(temporary, "JPEG", quality=90)
    temporary.replace(path)
    return path


def measure_rate(photographs: list[Path], folder: Path, max_side: int) -> dict[str, Any]:
    """Seconds of both ways to convert, the best of ROUNDS, and the ratio of their rates."""
    limits = ImageLimits(max_side, 8, 200_000_000, 60.0)
    ours, pillow = [], []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        with ProcessPoolExecutor(processes(), mp_context=get_context("spawn")) as pool:
            convert = partial(convert_with_pillow, fresh(folder), max_side)
            assert all(pool.map(convert, photographs, chunksize=PICTURES_PER_TASK))
        pillow.append(time.perf_counter() - started)
        started = time.perf_counter()
        cache = ConversionCache(fresh(folder / "cache"))
        results = convert_pictures([(path, None) for path in photographs], folder / "out", limits, processes(), cache)
        ours.append(time.perf_counter() - started)
        assert not any(isinstance(result, str) for result in results)
    shutil.rmtree(folder)
    return {
        "Pillow: pictures per second": round(len(photographs) / min(pillow), 2),
        "prepare: pictures per second": round(len(photographs) / min(ours), 2),
        "rate ratio": round(min(pillow) / min(ours), 3),
    }


def convert_with_pillow(folder: Path, max_side: int, path: Path) -> int:
    """Decode, reduce and encode one file as the stage does, and nothing else; the number of bytes written."""
    with Image.open(path) as image:
        picture = image.convert("RGB")
    if max(picture.size) > max_side:
        width, height = (max(1, round(side * max_side / max(picture.size))) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return (folder / path.name).write_bytes(buffer.getvalue())


def fresh(folder: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def run_prepare(folder: Path, photographs: list[Path], max_side: int) -> tuple[float, float]:
    """(seconds, peak MB of all its processes) of the stage in `folder`, whose data/raw gets these pictures."""
    raw = folder / "data/raw"
    raw.mkdir(parents=True, exist_ok=True)
    rows = io.StringIO()
    table = csv.writer(rows, lineterminator="\n")
    table.writerow(["filename", "text", "page"])
    for number, path in enumerate(photographs):
        if not (raw / path.name).exists():
            os.link(path, raw / path.name)
        table.writerow([path.name, f"Это строка {number} из многих", f"p{number // LINES_PER_PAGE}"])
    write_text(raw / "annotations.csv", rows.getvalue())
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["model"]["name_or_path"] = (ROOT / "models/base").as_posix()
    params["prepare"] |= {"max_side_px": max_side}
    write_text(folder / "params.yaml", yaml.safe_dump(params, allow_unicode=True))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("DVC_ROOT", None)
    started = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "stages.prepare"], cwd=folder, env=environment) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, resident_bytes(process.pid))
            time.sleep(SECONDS_BETWEEN_SAMPLES)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"stages.prepare ended with {process.returncode}")
    return round(seconds, 1), round(peak / 2**20, 1)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and of all that it started."""
    total = 0
    try:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.NoSuchProcess:  # it has just ended
        pass
    return total


if __name__ == "__main__":
    main()
