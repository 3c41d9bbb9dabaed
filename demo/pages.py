"""Draw pages of the demo hand: photographs of sheets whose lines are known to the pixel.

Reads   demo/texts/hand.tsv (page, text) and the font in demo/fonts/demo_hand.
Writes  FOLDER/page-01.jpg ..., with --xml a PAGE XML file with polygons, baselines and texts beside each; with --texts
        a table (page, line, text) for a person, or a test, to copy from.
Refuses to overwrite: it stops when the folder holds a file of that name.
Alone   python -m demo.pages FOLDER [--pages 10] [--lines 18] [--seed 1] [--xml] [--texts FILE]

A sheet with its ruling is written on, bent, photographed at an angle on a table, and lit unevenly. Every step is known
as a mapping of points, so that the ink of each line, its baseline and its outline are known in the photograph.
"""

from __future__ import annotations

import argparse
import copy
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from demo.drawing import FONT_SIZE_PX, Hand, ink_mask, load_font, smooth_noise, warp_ink
from demo.hand import WRITER
from ownhand.errors import Refusal, run_stage
from ownhand.files import write_atomically, write_text
from ownhand.pages.page_xml import Block, Page, PageLine, write_page_xml

SHEET_PX = (1240, 1754)  # of one column; two columns are two sheets beside each other, as in an open notebook
MARGINS = {"left": 0.11, "top": 0.07, "right": 0.05, "bottom": 0.06}  # shares of the sheet's side
NOTE_MARGIN = 0.24  # on the left, where a note stands in it
MOST_PITCH_PX = 96  # from line to line
LETTERS = 0.72  # of the pitch: the font's size
TABLE = 0.05  # of the sheet's side, around it
INK_POINTS = 1500  # kept of each line
OUTLINE_STEP_PX = 12
JPEG_QUALITY = 85


@dataclass(frozen=True)
class Conditions:
    """How a sheet looks and how it is photographed.

    ruling: "none", "lines" or "grid"; degrees: turned counter-clockwise; perspective: how far a corner is displaced at
    most, as a share of the sheet's side; bend: how far the middle of a line lies below its ends, in line pitches;
    shadow: depth of a soft shadow, 0-1; columns: 1, or 2 for an open notebook; note: whether words stand in the margin.
    """

    ruling: str = "none"
    degrees: float = 0.0
    perspective: float = 0.0
    bend: float = 0.0
    shadow: float = 0.0
    columns: int = 1
    note: bool = False


@dataclass(frozen=True)
class DrawnLine:
    """A line in the photograph, all points (x, y) in its pixels.

    ink: (n, 2), a random part of the pixels that are ink; baseline: (m, 2) from left to right; outline: (k, 2), the
    polygon close around the ink; column: counted from 0; note: whether it stands in the margin.
    """

    text: str
    ink: np.ndarray
    baseline: np.ndarray
    outline: np.ndarray
    column: int = 0
    note: bool = False


@dataclass(frozen=True)
class DrawnPage:
    """The photograph and its lines in reading order, notes in the margin last."""

    picture: Image.Image
    lines: list[DrawnLine]


def draw_page(
    texts: Sequence[str], font: Path, conditions: Conditions, rng: np.random.Generator, hand: Hand = WRITER
) -> DrawnPage:
    """A photograph of the texts, one a line, the columns filled one after the other; no texts give a blank sheet."""
    width, height = SHEET_PX[0] * conditions.columns, SHEET_PX[1]
    per_column = -(-len(texts) // conditions.columns) or 1
    top, bottom = MARGINS["top"] * height, MARGINS["bottom"] * height
    pitch = min(MOST_PITCH_PX, (height - top - bottom) / per_column)
    left_margin = NOTE_MARGIN if conditions.note else MARGINS["left"]
    room = SHEET_PX[0] * (1 - left_margin - MARGINS["right"])
    written = [_write(text, font, hand, rng) for text in texts]
    widest = max((ink.width for ink, _ in written), default=1)
    scale = min(LETTERS * pitch / FONT_SIZE_PX, room / widest)
    ink = np.zeros((height, width), np.float32)
    lines: list[DrawnLine] = []

    def put(text: str, written: tuple[Image.Image, np.ndarray], scale: float, x: float, y: float, note: bool) -> None:
        mask, baseline = written
        points, line_baseline = _put(ink, mask, baseline, scale, x, y, rng)
        lines.append(DrawnLine(text, points, line_baseline, _outline(points), int(x // SHEET_PX[0]), note))

    for number, (text, line) in enumerate(zip(texts, written, strict=True)):
        column, row = divmod(number, per_column)
        x = column * SHEET_PX[0] + left_margin * SHEET_PX[0] + rng.uniform(-0.15, 0.15) * pitch
        put(text, line, scale, x, top + (row + 0.8 + rng.uniform(-0.05, 0.05)) * pitch, False)
    if conditions.note and texts:
        text = " ".join(texts[0].split()[:1])
        note = _write(text, font, hand, rng)
        note_scale = min(0.8 * scale, 0.15 * SHEET_PX[0] / note[0].width)
        put(text, note, note_scale, 0.02 * width, top + (len(texts) // 3 + 0.8) * pitch, True)
    sheet = _sheet(ink, pitch, top, hand, conditions, rng)
    return _photograph(sheet, lines, conditions, pitch, rng)


def as_page(drawn: DrawnPage, image: str) -> Page:
    """What PAGE XML says of a drawn page: a region for each column and one for the notes."""
    parts: dict[tuple[bool, int], list[PageLine]] = {}
    for number, line in enumerate(drawn.lines, 1):
        page_line = PageLine(f"l{number}", _pairs(line.outline), _pairs(line.baseline), line.text)
        parts.setdefault((line.note, line.column), []).append(page_line)
    blocks = [Block(f"r{number}", lines) for number, lines in enumerate(parts.values(), 1)]
    return Page(image, drawn.picture.size, blocks)


def random_conditions(rng: np.random.Generator) -> Conditions:
    """How somebody who is in no hurry photographs a page of a notebook."""
    return Conditions(
        ruling=str(rng.choice(["none", "lines", "grid"])),
        degrees=float(rng.normal(0, 1.5)),
        perspective=float(rng.uniform(0, 0.02)),
        bend=float(rng.uniform(0, 0.4)),
        shadow=float(rng.uniform(0, 0.4)),
    )


def read_texts(path: Path) -> list[str]:
    """The lines of hand.tsv in their order."""
    with path.open(encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file, delimiter="\t")]


def _write(text: str, font: Path, hand: Hand, rng: np.random.Generator) -> tuple[Image.Image, np.ndarray]:
    """The ink of a line in white on black at the font's size, cropped, and its baseline as (n, 2) points in it."""
    again = copy.deepcopy(rng)
    glyphs = ink_mask(text, font)
    mask = warp_ink(glyphs, hand, rng)
    # The baseline goes the same way: a row of pixels where the letters stand, warped with the same random numbers.
    row = Image.new("L", glyphs.size)
    top = load_font(font).getbbox(text)[1]
    stands = FONT_SIZE_PX // 2 - top + load_font(font).getmetrics()[0]
    ImageDraw.Draw(row).rectangle((0, stands - 1, row.width, stands + 1), fill=255)
    warped = np.asarray(warp_ink(row, replace(hand, slant=0.0, thick=False), again))
    left, upper, right, lower = mask.getbbox() or (0, 0, *mask.size)
    x = np.arange(left, right, OUTLINE_STEP_PX)
    y = np.array([np.flatnonzero(column).mean() if column.any() else stands for column in warped[:, x].T])
    return mask.crop((left, upper, right, lower)), np.column_stack([x - left, y - upper])


def _put(
    ink: np.ndarray, mask: Image.Image, baseline: np.ndarray, scale: float, x: float, y: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Add a line to the sheet's ink, its baseline's first point at (x, y); returns its ink and baseline there."""
    size = max(1, round(mask.width * scale)), max(1, round(mask.height * scale))
    drawn = np.asarray(mask.resize(size, Image.Resampling.BICUBIC), np.float32) / 255
    left, upper = round(x), round(y - baseline[0, 1] * scale)
    height, width = ink.shape
    part = drawn[max(0, -upper) : height - upper, max(0, -left) : width - left]
    place = ink[max(0, upper) : upper + size[1], max(0, left) : left + size[0]]
    np.maximum(place, part, out=place)
    rows, columns = np.nonzero(drawn > 0.5)
    kept = rng.permutation(len(rows))[:INK_POINTS]
    return np.column_stack([columns[kept] + left, rows[kept] + upper]).astype(float), baseline * scale + (left, upper)


def _outline(points: np.ndarray) -> np.ndarray:
    """The polygon close around points of ink: their highest and lowest in short windows along the line."""
    x, y = points.T
    centres = np.arange(x.min(), x.max() + OUTLINE_STEP_PX, OUTLINE_STEP_PX)
    near = [np.abs(x - centre) <= 1.5 * OUTLINE_STEP_PX for centre in centres]
    upper = [(c, y[n].min() - 3) for c, n in zip(centres, near, strict=True) if n.any()]
    lower = [(c, y[n].max() + 3) for c, n in zip(centres, near, strict=True) if n.any()]
    return np.array(upper + lower[::-1])


def _sheet(
    ink: np.ndarray, pitch: float, top: float, hand: Hand, conditions: Conditions, rng: np.random.Generator
) -> np.ndarray:
    """Paper with its ruling and the ink, float32 (height, width, 3)."""
    height, width = ink.shape
    paper = np.full((height, width, 3), hand.paper, np.float32)
    tint = np.array([0.75, 0.82, 0.9], np.float32) + rng.uniform(-0.08, 0.05)
    if conditions.ruling != "none":
        step = pitch if conditions.ruling == "lines" else pitch / 2
        for y in np.arange((top + 0.8 * pitch) % step, height, step):
            paper[int(y) : int(y) + 2] *= tint
        if conditions.ruling == "grid":
            for x in np.arange(step / 2, width, step):
                paper[:, int(x) : int(x) + 2] *= tint
    if conditions.columns == 2:  # the fold of the notebook
        fold = np.exp(-(((np.arange(width) - width / 2) / 25) ** 2))
        paper *= (1 - 0.35 * fold)[None, :, None].astype(np.float32)
    strokes = ink * (0.85 + 0.15 * smooth_noise(rng, width, 20)[None, :])
    return np.asarray(paper * (1 - strokes[..., None]) + np.asarray(hand.ink, np.float32) * strokes[..., None])


def _photograph(
    sheet: np.ndarray, lines: list[DrawnLine], conditions: Conditions, pitch: float, rng: np.random.Generator
) -> DrawnPage:
    """The sheet bent, turned and seen at an angle on a table, in uneven light; the lines go with it."""
    height, width = sheet.shape[:2]
    sag = conditions.bend * pitch * np.sin(np.pi * np.arange(width) / width)
    rows = np.clip(np.arange(height)[:, None] - np.rint(sag)[None, :].astype(np.intp), 0, height - 1)
    bent = Image.fromarray(sheet[rows, np.arange(width)[None, :]].astype(np.uint8), "RGB")
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], float)
    turn = np.radians(-conditions.degrees)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    seen = (corners - corners.mean(axis=0)) @ rotation.T
    seen += rng.uniform(-1, 1, (4, 2)) * conditions.perspective * max(width, height)
    seen -= seen.min(axis=0) - TABLE * max(width, height)
    size = np.ceil(seen.max(axis=0) + TABLE * max(width, height)).astype(int)
    to_photo, to_sheet = _homography(corners, seen), _homography(seen, corners)
    table = Image.new("RGB", (int(size[0]), int(size[1])), tuple(int(v) for v in rng.uniform(40, 120, 3)))

    def seen_from_above(image: Image.Image) -> Image.Image:
        data = [float(value) for value in to_sheet.ravel()[:8]]
        return image.transform(table.size, Image.Transform.PERSPECTIVE, data, Image.Resampling.BICUBIC)

    table.paste(seen_from_above(bent), mask=seen_from_above(Image.new("L", bent.size, 255)))
    picture = np.asarray(table, np.float32) * _light(table.size, conditions.shadow, rng)[..., None]
    picture += 4 * rng.standard_normal((*picture.shape[:2], 1), np.float32)
    photo = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8), "RGB").filter(ImageFilter.GaussianBlur(0.7))

    def move(points: np.ndarray) -> np.ndarray:
        sags = np.interp(points[:, 0], np.arange(width), np.rint(sag))
        return _map(to_photo, points + np.column_stack([np.zeros_like(sags), sags]))

    moved = [
        replace(line, ink=move(line.ink), baseline=move(line.baseline), outline=move(line.outline)) for line in lines
    ]
    return DrawnPage(photo, moved)


def _light(size: tuple[int, int], shadow: float, rng: np.random.Generator) -> np.ndarray:
    """The share of light that arrives at each pixel: a slow fall across the picture, and a soft-edged shadow."""
    x, y = np.meshgrid(np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1]))
    across, edge = rng.uniform(0, 2 * np.pi, 2)
    fall = 1 - 0.08 * (1 + x * np.cos(across) + y * np.sin(across))
    distance = x * np.cos(edge) + y * np.sin(edge) - rng.uniform(-0.4, 0.4)
    return np.asarray(fall * (1 - shadow / (1 + np.exp(-distance / 0.06))), np.float32)


def _homography(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The (3, 3) matrix that takes four points to four others."""
    rows, values = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.append(np.linalg.solve(np.array(rows), np.array(values)), 1).reshape(3, 3)


def _map(homography: np.ndarray, points: np.ndarray) -> np.ndarray:
    moved = np.column_stack([points, np.ones(len(points))]) @ homography.T
    return np.asarray(moved[:, :2] / moved[:, 2:])


def _pairs(points: np.ndarray) -> tuple[tuple[float, float], ...]:
    return tuple((float(x), float(y)) for x, y in points)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m demo.pages", description="Draw photographed pages of the demo hand."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--pages", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--lines", type=int, default=18, help="on a page; default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--xml", action="store_true", help="PAGE XML with the lines and their texts beside each page")
    parser.add_argument("--texts", type=Path, metavar="FILE", help="a table of what is written, outside the folder")
    options = parser.parse_args()
    font = next(Path("demo/fonts/demo_hand").glob("*.woff2"))
    texts = read_texts(Path("demo/texts/hand.tsv"))
    rng = np.random.default_rng(options.seed)
    table = io.StringIO()
    rows = csv.writer(table, delimiter="\t", lineterminator="\n")
    rows.writerow(["page", "line", "text"])
    for number in range(1, options.pages + 1):
        target = options.folder / f"page-{number:02d}.jpg"
        if target.exists():
            raise Refusal(f"{target} is there already, nothing is overwritten; name another folder")
        first = (number - 1) * options.lines
        chosen = [texts[i % len(texts)] for i in range(first, first + options.lines)]
        drawn = draw_page(chosen, font, random_conditions(rng), rng)
        with write_atomically(target) as temporary:
            drawn.picture.save(temporary, "JPEG", quality=JPEG_QUALITY)
        if options.xml:
            write_page_xml(target.with_suffix(".xml"), as_page(drawn, target.name))
        rows.writerows((target.name, place, line.text) for place, line in enumerate(drawn.lines, 1))
    if options.texts:
        write_text(options.texts, table.getvalue())
    print(f"pages: wrote {options.pages} pages of {options.lines} lines to {options.folder.as_posix()}")


if __name__ == "__main__":
    run_stage(main)
