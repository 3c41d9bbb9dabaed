"""All layers: the whole pipeline on DeepSeek-OCR's full shape, and how much memory each stage took.

    python -m benchmarks.all_layers FOLDER [--preset rtx-5060-ti-16gb] [--layers 12] [--mode gundam] [--new-tokens 24]

A random checkpoint (6.7 GB; a random model reads nonsense) and a clone of this repository with four pictures of the
demo are made in FOLDER; given again, the command goes on where it was stopped. Each stage runs by `dvc repro`, then
`ownhand read` and `ownhand export`. Printed is a table: the peak of resident memory, how much of that was the process's
own (the rest is the mapped file of the weights, which the system may drop), and what `ownhand check` had estimated.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from ruamel.yaml import YAML

from benchmarks.random_checkpoint import imitate, official_config
from ownhand.runtime import DTYPES

ROOT = Path(__file__).parent.parent
STAGES = ("prepare", "check", "encode", "train", "transcribe", "cross_validate", "evaluate")
PICTURES = 4
SAMPLED_SECONDS = 0.1
GB = 1e9


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.all_layers", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--preset", default="rtx-5060-ti-16gb")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--mode", default="gundam")
    parser.add_argument("--new-tokens", type=int, default=24)
    arguments = parser.parse_args()
    base, project = arguments.folder.resolve() / "base", arguments.folder.resolve() / "project"
    if not (base / "config.json").exists():
        shutil.rmtree(base, ignore_errors=True)
        imitate(base, official_config(arguments.layers), DTYPES["bfloat16"])
    if not project.exists():
        make_project(project, base, arguments)
    rows = {}
    for stage in STAGES:
        rows[stage] = watch(["dvc", "repro", "--single-item", stage], project)
        show(stage, rows[stage])
    picture = next((project / "data/raw").glob("*.jpg"))
    rows["read"] = watch(["ownhand", "read", str(picture)], project)
    rows["export"] = watch(["ownhand", "export"], project)
    print(f"\n{arguments.preset}, {arguments.layers} layers, mode {arguments.mode}, {PICTURES} pictures\n")
    print("| stage | resident, GB | its own, GB | estimate, GB | seconds |\n|---|---|---|---|---|")
    estimates = estimated(project / "metrics/readiness.json")
    for name, (resident, own, seconds) in rows.items():
        estimate = estimates.get(name)
        print(f"| {name} | {resident:.1f} | {own:.1f} | {'-' if estimate is None else estimate} | {seconds:.0f} |")


def make_project(folder: Path, base: Path, arguments: argparse.Namespace) -> None:
    """A clone with the preset, the base model of that folder, and the demo's first pictures on as many pages."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    subprocess.run(["ownhand", "preset", arguments.preset], cwd=folder, check=True)
    yaml, path = YAML(), folder / "params.yaml"
    params = yaml.load(path.read_text(encoding="utf-8"))
    params["model"] |= {"name_or_path": base.as_posix(), "revision": None}
    params["prepare"] |= {"val_share": 0.25, "max_rejected_share": 0.5}
    params["encode"] |= {"mode": arguments.mode, "copies": 0}
    params["train"] |= {"epochs": 2.0, "evaluations": 1, "cer_lines": 0}
    params["transcribe"] |= {"max_new_tokens": arguments.new_tokens}
    params["runtime"] |= {"device": "cpu"}
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(params, file)
    raw = folder / "data/raw"
    with (raw / "annotations.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    first = list({row["page"]: row for row in reversed(rows)}.values())[:PICTURES]
    for number, row in enumerate(first):
        shutil.copy(raw / row["filename"], raw / f"{number}.jpg")
        row["filename"] = f"{number}.jpg"
    with (raw / "annotations.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(first[0]))
        writer.writeheader()
        writer.writerows(first)
    for page in raw.iterdir():
        if page.is_dir():
            shutil.rmtree(page)


def watch(command: Sequence[str], folder: Path) -> tuple[float, float, float]:
    """Run it: peaks of resident and of own (anonymous) memory of it and its children in GB, and the seconds."""
    started, resident, own = time.monotonic(), 0.0, 0.0
    process = subprocess.Popen(command, cwd=folder)
    while process.poll() is None:
        with suppress(psutil.Error):
            parent = psutil.Process(process.pid)
            infos = [each.memory_info() for each in (parent, *parent.children(recursive=True))]
            resident = max(resident, sum(info.rss for info in infos) / GB)
            own = max(own, sum(info.rss - getattr(info, "shared", 0) for info in infos) / GB)
        time.sleep(SAMPLED_SECONDS)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return resident, own, time.monotonic() - started


def show(name: str, row: tuple[float, float, float]) -> None:
    print(f"{name}: resident {row[0]:.1f} GB, its own {row[1]:.1f} GB, {row[2]:.0f} s", flush=True)


def estimated(readiness: Path) -> dict[str, str]:
    """What `check` said of the memory of training and of reading, by stage."""
    found = {}
    for finding in json.loads(readiness.read_text(encoding="utf-8"))["findings"]:
        match = re.search(r"(a training step|reading a batch) takes ([\d.]+ [GM]B)", finding["seen"])
        if match:
            found["train" if match[1] == "a training step" else "transcribe"] = match[2]
    return found


if __name__ == "__main__":
    main()
