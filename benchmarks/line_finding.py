"""Line finding, measured where the lines are known: drawn pages of the demo hand, and real pages with ALTO or PAGE.

    python -m benchmarks.line_finding [--pages 3] [--seed 1] [--threads 1] [--real FOLDER] [--previews FOLDER]
                                      [--json FILE]

For each condition (ruling, rotation, perspective, shadow, columns, notes in the margin) `--pages` pages are drawn, and

- recall: the share of written lines that are found: one polygon holds at least 90 % of the line's ink, and more of it
  than of any other line's;
- precision: the share of polygons that are such a line;
- joined: polygons that hold a third or more of two lines' ink; cut: lines of which two polygons each hold a tenth or
  more and none 90 %;
- ink: how much of the found lines' ink their polygons hold on average; foreign: what share of the ink in them is of
  other lines.

Of a real page the ink of a line is what is dark in its polygon and in no other. By default these are the pages in
../shared/real-letters; without that folder this part is skipped. Goal: recall of 0.95 or more.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from demo.pages import Conditions, draw_page, read_texts
from ownhand.errors import run_stage
from ownhand.files import write_atomically, write_json
from ownhand.folders import find_files
from ownhand.ground_truth.regions import Points
from ownhand.images import has_image_suffix, open_image
from ownhand.pages.detector import load_detector
from ownhand.pages.geometry import FoundLine, trace_lines
from ownhand.pages.ink import measure_ink
from ownhand.pages.known_lines import PageFile, PageFiles
from ownhand.pages.preview import draw_preview

ROOT = Path(__file__).parent.parent
FOUND, JOINED, CUT = 0.9, 1 / 3, 0.1
LINES = 18
PLAIN = Conditions()
CONDITIONS = {
    "plain paper": PLAIN,
    "ruled": replace(PLAIN, ruling="lines"),
    "squared": replace(PLAIN, ruling="grid"),
    "shadow": replace(PLAIN, shadow=0.5),
    "perspective": replace(PLAIN, perspective=0.03),
    "bent": replace(PLAIN, bend=0.6),
    "1 degree": replace(PLAIN, degrees=1.0),
    "3 degrees": replace(PLAIN, degrees=-3.0),
    "5 degrees": replace(PLAIN, degrees=5.0),
    "two columns": replace(PLAIN, columns=2),
    "note in the margin": replace(PLAIN, note=True),
    "all at once": Conditions("grid", 4.0, 0.02, 0.4, 0.4),
    "open notebook": Conditions("lines", -2.0, 0.02, 0.4, 0.4, columns=2),
}


@dataclass(frozen=True)
class Counts:
    """What was counted on some pages; the shares of the table follow from it."""

    written: int = 0
    polygons: int = 0
    found: int = 0
    right: int = 0
    joined: int = 0
    cut: int = 0
    ink: float = 0.0
    foreign: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    def shares(self) -> dict[str, Any]:
        """The row of the table."""
        return {
            "lines": self.written,
            "recall": round(self.found / max(self.written, 1), 4),
            "precision": round(self.right / max(self.polygons, 1), 4),
            "joined": self.joined,
            "cut": self.cut,
            "ink": round(self.ink / max(self.found, 1), 4),
            "foreign": round(self.foreign / max(self.found, 1), 4),
        }


def compare(size: tuple[int, int], written: Sequence[np.ndarray], polygons: Sequence[Points]) -> Counts:
    """Count what polygons hold of written lines, each given by (n, 2) points of its ink in a picture of `size`."""
    held = np.zeros((len(written), len(polygons)))  # points of each line in each polygon
    for number, polygon in enumerate(polygons):
        mask = Image.new("1", size)
        ImageDraw.Draw(mask).polygon(polygon, fill=1)
        inside = np.asarray(mask)
        for line, ink in enumerate(written):
            x, y = np.clip(np.rint(ink).astype(int), 0, np.array(size) - 1).T
            held[line, number] = inside[y, x].sum()
    share = held / np.array([max(len(ink), 1) for ink in written])[:, None]
    found, ink_held, foreign, right = 0, 0.0, 0.0, set()
    for line in range(len(written)):
        best = int(share[line].argmax()) if polygons else -1
        if best >= 0 and share[line, best] >= FOUND and share[:, best].argmax() == line:
            found += 1
            right.add(best)
            ink_held += share[line, best]
            foreign += 1 - held[line, best] / held[:, best].sum()
    joined = int(((share >= JOINED).sum(axis=0) >= 2).sum())
    cut = int((((share >= CUT).sum(axis=1) >= 2) & (share.max(axis=1, initial=0) < FOUND)).sum())
    return Counts(len(written), len(polygons), found, len(right), joined, cut, ink_held, foreign)


def measure_drawn(options: argparse.Namespace) -> dict[str, Counts]:
    """Counts by condition."""
    detect = load_detector(options.threads)
    font = next((ROOT / "demo/fonts/demo_hand").glob("*.woff2"))
    texts = read_texts(ROOT / "demo/texts/hand.tsv")
    rng = np.random.default_rng(options.seed)
    counts = {}
    for name, conditions in CONDITIONS.items():
        if options.only and name not in options.only:
            continue
        total = Counts()
        for number in range(options.pages):
            chosen = [texts[i] for i in rng.choice(len(texts), LINES * conditions.columns, replace=False)]
            page = draw_page(chosen, font, conditions, rng)
            start = time.perf_counter()
            blocks = trace_lines(page.picture, detect(page.picture))
            seconds = time.perf_counter() - start
            polygons = [line.polygon for block in blocks for line in block]
            seen = compare(page.picture.size, [line.ink for line in page.lines], polygons)
            total += replace(seen, seconds=seconds)
            _preview(options.previews, f"{name.replace(' ', '-')}-{number + 1}", page.picture, blocks)
        counts[name] = total
    return counts


def measure_real(options: argparse.Namespace) -> dict[str, Counts]:
    """Counts by page, for the pages that a PAGE or ALTO file names."""
    detect = load_detector(options.threads)
    known = PageFiles(options.real)
    counts = {}
    for name, path in find_files(options.real).files:
        source = known.of(path) if has_image_suffix(name) else None
        if source is not None:
            picture = open_image(path)
            blocks = trace_lines(picture, detect(picture))
            polygons = [line.polygon for block in blocks for line in block]
            counts[name] = compare(picture.size, _ink_in_polygons(picture, source), polygons)
            _preview(options.previews, path.stem, picture, blocks)
    return counts


def _ink_in_polygons(picture: Image.Image, source: PageFile) -> list[np.ndarray]:
    """The dark pixels in the polygon of each line of a page file and in no other's."""
    owner = np.zeros((picture.height, picture.width), np.int32)
    for number, line in enumerate(source.page.lines, 1):
        mask = Image.new("1", picture.size)
        ImageDraw.Draw(mask).polygon(line.polygon, fill=1)
        inside = np.asarray(mask)
        owner[inside] = np.where(owner[inside] == 0, number, -1)
    ink = measure_ink(picture)
    dark = ink > 0.5 * np.quantile(ink[owner > 0], 0.97)
    numbers = range(1, len(source.page.lines) + 1)
    return [np.argwhere(dark & (owner == number))[:, ::-1].astype(float) for number in numbers]


def _preview(folder: Path | None, name: str, picture: Image.Image, blocks: Sequence[Sequence[FoundLine]]) -> None:
    if folder is not None:
        with write_atomically(folder / f"{name}.png") as temporary:
            draw_preview(picture, blocks).save(temporary, "PNG")


def show(title: str, counts: dict[str, Counts]) -> None:
    """Print a table, a row for each condition or page and one for all."""
    rows = {name: count.shares() for name, count in [*counts.items(), ("all", sum(counts.values(), Counts()))]}
    print(f"{title:40}" + "".join(f"{column:>11}" for column in rows["all"]))
    for name, row in rows.items():
        print(f"{name:40}" + "".join(f"{value:>11}" for value in row.values()))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.line_finding", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--pages", type=int, default=3, help="drawn for each condition; default: %(default)s")
    parser.add_argument("--only", action="append", choices=list(CONDITIONS), help="this condition; may be repeated")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--threads", type=int, help="of the detector; default: one per core")
    parser.add_argument("--real", type=Path, default=ROOT.parent / "shared/real-letters", help="default: %(default)s")
    parser.add_argument("--previews", type=Path, help="where to draw the lines found")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    figures = {"drawn": measure_drawn(options)}
    show("drawn pages", figures["drawn"])
    if options.real.is_dir():
        figures["real"] = measure_real(options)
        print()
        show("real pages", figures["real"])
    else:
        print(f"\nreal pages: skipped, {options.real.as_posix()} is not there")
    if options.json:
        rows = {part: {name: count.shares() for name, count in counts.items()} for part, counts in figures.items()}
        write_json(options.json, rows)


if __name__ == "__main__":
    run_stage(main)
