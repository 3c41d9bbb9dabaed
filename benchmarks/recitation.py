"""What does an adapter recite of a text that it was trained on in another picture, by the length of the text?

    python -m benchmarks.recitation [--pages 38] [--texts 14] [--epochs 6] [--folder FOLDER] [--json FILE]

Draws random words in the demo hand. Half of the texts are trained on, among `--pages` pages of the demo; then all are
read in new pictures, once whole and once with the right half blank. Two CERs by length, for trained and for new texts:

- whole: how much better a text is read because it was trained on; this is what `cer_unseen_texts` leaves out.
- half: what is read there above the half that can be seen is recited.

`prepare.same_text_characters` rests on it. Needs the demo's data and base model; an hour or so on two CPU cores.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from demo.drawing import draw_line
from demo.hand import LINE_HEIGHT_PX, WRITER
from ownhand.evaluation.metrics import count_character_errors, micro_average
from ownhand.files import write_atomically, write_json, write_text
from ownhand.samples import read_metadata

ROOT = Path(__file__).parent.parent
FONT = ROOT / "demo/fonts/demo_hand/bad-script-regular.woff2"
WORDS = ROOT / "demo/texts/pretraining.txt"
LENGTHS = ((2, 4), (6, 8), (10, 12), (14, 16), (18, 20), (26, 28), (36, 40), (48, 52))  # of the 64 trained
SEED = 5


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recitation", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pages", type=int, default=38, help="pages of the demo that are trained on besides")
    parser.add_argument("--texts", type=int, default=14, help="texts of each length, trained on and new ones each")
    parser.add_argument("--epochs", type=float, default=6.0)
    parser.add_argument("--folder", type=Path, help="where to work; else a temporary folder")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        draw(folder / "data/raw", options.pages, options.texts)
        run_stages(folder, options.epochs)
        figures = measure(folder)
    for row in figures:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    if options.json:
        write_json(options.json, figures)


def draw(raw: Path, pages: int, texts: int) -> None:
    """The demo's pages, a picture of each trained text, and two pictures of every text in the list val.txt."""
    rng, chooser = np.random.default_rng(SEED), random.Random(SEED)
    words = sorted(set(re.findall(r"[А-Яа-яЁё]+", WORDS.read_text(encoding="utf-8"))))
    used: set[str] = set()
    rows: list[tuple[str, str, str]] = []
    with (ROOT / "data/raw/annotations.csv").open(encoding="utf-8", newline="") as file:
        demo = list(csv.DictReader(file))
    kept = sorted({row["page"] for row in demo})[:pages]
    for row in demo:
        if row["page"] in kept:
            (raw / row["filename"]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / "data/raw" / row["filename"], raw / row["filename"])
            rows.append((row["filename"], row["text"], row["page"]))

    def choose(fewest: int, most: int) -> str:
        while True:
            text = ""
            while len(text) < fewest:
                text = f"{text} {chooser.choice(words).lower()}".strip()
            if len(text) <= most and text not in used:
                used.add(text)
                return text

    def put(name: str, text: str, half: bool = False) -> None:
        shade, grain = float(rng.uniform(0.05, 0.35)), float(rng.uniform(2, 8))
        hand = replace(WRITER, shade=shade, grain=grain, ruling=str(rng.choice(["none", "lines", "grid"])))
        pixels = np.asarray(draw_line(text, FONT, hand, rng, int(rng.integers(*LINE_HEIGHT_PX)))).copy()
        if half:
            pixels[:, pixels.shape[1] // 2 :] = np.median(pixels, axis=(0, 1))
        with write_atomically(raw / name) as temporary:
            Image.fromarray(pixels).save(temporary, "JPEG", quality=90)
        rows.append((name, text, name))

    for number, (fewest, most) in enumerate(LENGTHS):
        for i in range(texts):
            trained = choose(fewest, most)
            put(f"train/{number}-{i}.jpg", trained)
            for kind, text in (("trained", trained), ("new", choose(fewest, most))):
                put(f"{kind}-whole/{number}-{i}.jpg", text)
                put(f"{kind}-half/{number}-{i}.jpg", text, half=True)
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([("filename", "text", "page"), *rows])
    write_text(raw / "annotations.csv", table.getvalue())
    write_text(raw / "val.txt", "".join(f"{name}\n" for name, *_ in rows if "-whole/" in name or "-half/" in name))


def run_stages(folder: Path, epochs: float) -> None:
    """Prepare, encode, train and transcribe in `folder`, with the demo's parameters and no text that ties pages."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["model"]["name_or_path"] = (ROOT / "models/base").as_posix()
    params["prepare"] |= {"same_text_characters": 1_000_000, "val": "val.txt"}
    params["train"] |= {"epochs": epochs, "cer_lines": 0}
    write_text(folder / "params.yaml", yaml.safe_dump(params, allow_unicode=True))
    for name in ("demo", "data/others"):  # the probes of transcribe
        if (ROOT / name).exists() and not (folder / name).exists():
            shutil.copytree(ROOT / name, folder / name)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("DVC_ROOT", None)
    for stage in ("prepare", "encode", "train", "transcribe"):
        subprocess.run([sys.executable, "-m", f"stages.{stage}"], cwd=folder, env=environment, check=True)


def measure(folder: Path) -> list[dict[str, str | float]]:
    """A row per reader, picture and length: the CER of trained and of new texts."""
    samples = {one.image_id: one for one in read_metadata(folder / "data/processed", ["val"])}
    rows: list[dict[str, str | float]] = []
    for reader in ("base", "adapter"):
        counts: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for line in (folder / f"data/predictions/{reader}.jsonl").read_text(encoding="utf-8").splitlines():
            read = json.loads(line)
            sample = samples[read["image_id"]]
            kind, _, name = sample.original_filename.partition("/")
            errors = count_character_errors(sample.text, read["prediction"])
            counts.setdefault((kind, int(name.partition("-")[0])), []).append(errors)
        for picture in ("whole", "half"):
            for number, (fewest, most) in enumerate(LENGTHS):
                row: dict[str, str | float] = {"reader": reader, "picture": picture, "length": f"{fewest}-{most}"}
                for kind in ("trained", "new"):
                    row[kind] = round(micro_average(counts[f"{kind}-{picture}", number]), 3)
                rows.append(row)
    return rows


if __name__ == "__main__":
    main()
