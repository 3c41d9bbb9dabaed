"""Draw the demo hand: 200 photographed lines "by one writer" for data/raw.

Reads   demo/texts/hand.tsv (page, text) and the font in demo/fonts/demo_hand, which the base model was not trained on.
Writes  data/raw/<page>/<page>-<line>.jpg and data/raw/annotations.csv (filename, text, page, hand).
Refuses to overwrite: it stops when data/raw holds anything.
Alone   python -m demo.hand [FOLDER]

The result is committed to the repository; run it only to draw another hand. One writer: the same slant, pen and
habits throughout; each page has its own paper, light and sharpness.
"""

from __future__ import annotations

import csv
import io
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from demo.drawing import Hand, draw_line
from ownhand.errors import Refusal, run_stage
from ownhand.files import write_atomically, write_text

SEED = 20
WRITER = Hand(slant=0.12, wobble=0.045, size_jitter=0.07, stretch_jitter=0.12, thick=True, ink=(38, 42, 96))
LINE_HEIGHT_PX = (64, 84)


def draw_hand(texts: Path, font: Path, raw: Path) -> int:
    """Draw every line of `texts` into `raw`; returns the number of lines. Refusal when `raw` is not empty."""
    if raw.exists() and any(path.name != ".gitignore" for path in raw.iterdir()):
        raise Refusal(f"{raw} is not empty; move its content away first, nothing is overwritten")
    rng = np.random.default_rng(SEED)
    pages: dict[str, list[str]] = {}
    with texts.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            pages.setdefault(row["page"], []).append(row["text"])
    rows = io.StringIO()
    table = csv.writer(rows, lineterminator="\n")
    table.writerow(["filename", "text", "page", "hand"])
    for page, lines in pages.items():
        paper = rng.uniform(215, 250) + rng.normal(0, 6, 3)
        hand = replace(
            WRITER,
            tilt=float(rng.normal(0, 0.006)),
            paper=(int(paper[0]), int(paper[1]), int(paper[2])),
            shade=float(rng.uniform(0.05, 0.35)),
            grain=float(rng.uniform(2, 8)),
            ruling=str(rng.choice(["none", "lines", "grid"])),
            blur_px=float(rng.uniform(0.3, 0.9)),
        )
        for number, text in enumerate(lines, 1):
            name = f"{page}/{page}-{number}.jpg"
            picture = draw_line(text, font, hand, rng, int(rng.integers(*LINE_HEIGHT_PX)))
            with write_atomically(raw / name) as temporary:
                picture.save(temporary, "JPEG", quality=80)
            table.writerow([name, text, page, "demo"])
    write_text(raw / "annotations.csv", rows.getvalue())
    return sum(map(len, pages.values()))


def main() -> None:
    raw = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("data/raw")
    font = next(Path("demo/fonts/demo_hand").glob("*.woff2"))
    lines = draw_hand(Path("demo/texts/hand.tsv"), font, raw)
    print(f"draw_hand: wrote {lines} lines and annotations.csv to {raw.as_posix()}")


if __name__ == "__main__":
    run_stage(main)
