"""Draw the printed lines that come with ownhand: print, a little distorted.

Reads   ownhand/vision/printed_lines/texts.txt, ownhand/vision/rehearsal_lines/{latin,cyrillic}.txt and demo/fonts.
Writes  the pictures beside the texts: printed_lines/00.jpg and so on, which measure (ownhand/vision/probes.py), in the
        four fonts of held_out; rehearsal_lines/latin-00.jpg and so on, which train beside a hand
        (ownhand/vision/rehearsal.py), each line of a script in another font of printed.
Alone   python -m demo.printed_lines

The result is committed to the repository; run it only after a change of the texts.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from demo.drawing import draw_line, lacks, random_hand
from ownhand.errors import run_stage
from ownhand.vision.probes import PRINTED
from ownhand.vision.rehearsal import LINES, SCRIPTS

FONTS = Path("demo/fonts")
SEED = 5
LINE_HEIGHT_PX = 72
STRENGTH = 0.3  # of the distortions, 0-1


def main() -> None:
    rng, noise = random.Random(SEED), np.random.default_rng(SEED)
    for script in SCRIPTS:
        fonts = sorted((FONTS / "printed").glob("*.woff2"))
        rng.shuffle(fonts)
        for number, text in enumerate(_texts(LINES / f"{script}.txt")):
            font = next(font for font in fonts if not any(lacks(font, character) for character in text))
            fonts.remove(font)
            _draw(text, font, noise, LINES / f"{script}-{number:02d}.jpg")
    fonts, noise = sorted((FONTS / "held_out").glob("*.woff2")), np.random.default_rng(SEED)
    for number, text in enumerate(_texts(PRINTED / "texts.txt")):
        _draw(text, fonts[number % len(fonts)], noise, PRINTED / f"{number:02d}.jpg")
    print(f"printed_lines: drew the lines of {LINES.as_posix()} and {PRINTED.as_posix()}")


def _texts(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _draw(text: str, font: Path, noise: np.random.Generator, path: Path) -> None:
    draw_line(text, font, random_hand(noise, STRENGTH), noise, LINE_HEIGHT_PX).save(path, quality=80)


if __name__ == "__main__":
    run_stage(main)
