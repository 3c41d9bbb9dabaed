"""Draw the picture on top of the README: a validation line of the demo, and what was read there before and after.

    python -m demo.figure

Reads   metrics/lines.csv, metrics/tables/summary.json, data/processed/val, a font of demo/fonts/printed.
Writes  docs/images/before-after.png. The line is not the best one: its error rates are those nearest to all lines'.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas
from PIL import Image, ImageDraw, ImageFont

from ownhand.evaluation.metrics import mark_differences
from ownhand.files import write_atomically
from ownhand.images import open_image
from ownhand.samples import read_metadata

FONT = Path("demo/fonts/printed/noto-sans-regular.woff2")
TARGET = Path("docs/images/before-after.png")
WIDTH_PX, MARGIN_PX, TEXT_PX = 900, 24, 30
INK, WRONG, MISSING, FAINT = (30, 30, 30), (190, 40, 40), (23, 89, 122), (120, 120, 120)
COLOURS = {"equal": INK, "deletion": MISSING}


def choose_line(lines: pandas.DataFrame, base_cer: float, adapter_cer: float) -> Any:
    """The row whose rates are nearest to those of all lines."""
    distance = (lines.base_cer.astype(float) - base_cer).abs() + (lines.adapter_cer.astype(float) - adapter_cer).abs()
    return lines.iloc[int(distance.to_numpy().argmin())]


def draw(picture: Image.Image, truth: str, readings: dict[str, str]) -> Image.Image:
    """The picture with each reading below it, wrong characters in red, what was not read in a box."""
    scale = (WIDTH_PX - 2 * MARGIN_PX) / picture.width
    picture = picture.resize((WIDTH_PX - 2 * MARGIN_PX, round(picture.height * scale)), Image.Resampling.LANCZOS)
    row_px = round(1.7 * TEXT_PX)
    sheet = Image.new("RGB", (WIDTH_PX, picture.height + 3 * MARGIN_PX + row_px * len(readings)), "white")
    sheet.paste(picture, (MARGIN_PX, MARGIN_PX))
    pen, font = ImageDraw.Draw(sheet), ImageFont.truetype(FONT, TEXT_PX)
    for number, (name, reading) in enumerate(readings.items()):
        x, y = MARGIN_PX, picture.height + 2 * MARGIN_PX + number * row_px
        pen.text((x, y), name, FAINT, font)
        x += 130
        for kind, text in mark_differences(truth, reading):
            width = round(font.getlength(text))
            pen.text((x, y), text, COLOURS.get(kind, WRONG), font)
            if kind == "deletion":
                pen.rectangle((x - 1, y, x + width, y + row_px - 8), outline=MISSING)
            x += width
    return sheet


def main() -> None:
    lines = pandas.read_csv("metrics/lines.csv", dtype=str, keep_default_na=False)
    summary = json.loads(Path("metrics/tables/summary.json").read_text(encoding="utf-8"))
    row = choose_line(lines, summary["base"]["cer"], summary["adapter"]["cer"])
    sample = next(sample for sample in read_metadata(sides=["val"]) if sample.image_id == row.image_id)
    readings = {"before": str(row.base_prediction), "after": str(row.adapter_prediction)}
    with write_atomically(TARGET) as temporary:
        draw(open_image(Path(sample.image_path)), sample.text, readings).save(temporary, "PNG")
    print(f"figure: line {sample.image_id}, {sample.text!r}; wrote {TARGET.as_posix()}")


if __name__ == "__main__":
    main()
