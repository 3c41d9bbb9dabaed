"""Draw the rehearsal lines of `ownhand.vision.rehearsal`: print, a little distorted, in fonts of demo/fonts/printed.

Reads   ownhand/vision/rehearsal_lines/{latin,cyrillic}.txt and the fonts.
Writes  ownhand/vision/rehearsal_lines/latin-00.jpg and so on, each line of a script in another font.
Alone   python -m demo.rehearsal

The result is committed to the repository; run it only after a change of the texts.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from demo.drawing import draw_line, lacks, random_hand
from ownhand.errors import run_stage
from ownhand.vision.rehearsal import LINES, SCRIPTS

SEED = 5
LINE_HEIGHT_PX = 72
STRENGTH = 0.3  # of the distortions, 0-1


def main() -> None:
    rng, noise = random.Random(SEED), np.random.default_rng(SEED)
    for script in SCRIPTS:
        fonts = sorted(Path("demo/fonts/printed").glob("*.woff2"))
        rng.shuffle(fonts)
        texts = (LINES / f"{script}.txt").read_text(encoding="utf-8").splitlines()
        for number, text in enumerate(texts):
            font = next(font for font in fonts if not any(lacks(font, character) for character in text))
            fonts.remove(font)
            picture = draw_line(text, font, random_hand(noise, STRENGTH), noise, LINE_HEIGHT_PX)
            picture.save(LINES / f"{script}-{number:02d}.jpg", quality=80)
        print(f"rehearsal: drew {len(texts)} {script} lines to {LINES}")


if __name__ == "__main__":
    run_stage(main)
