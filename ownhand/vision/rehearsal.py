"""Rehearsal: a few printed lines train beside the hand, so that print stays readable.

What a hand does not show is unlearned first, and most hands show one script only. So the lines are Latin (English,
French and German) or Russian, whichever the training texts show less of. They were drawn by `demo.printed_lines` in
other fonts and with other words than the printed lines that probes.py measures with. They belong to no side: no table
counts them, and each fold of a cross-validation trains on them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ownhand.files import hash_file
from ownhand.images import open_image
from ownhand.samples import Sample

LINES = Path(__file__).parent / "rehearsal_lines"  # <script>.txt, and <script>-00.jpg and so on
SCRIPTS = {"latin": re.compile("[A-Za-zÀ-ɏ]"), "cyrillic": re.compile("[Ѐ-ӿ]")}  # their letters
PREFIX = "rehearsal/"  # of their image ids


def rehearsal_samples(share: float, trained: Sequence[Sample]) -> list[Sample]:
    """The lines that train beside `trained` and are `share` of all (0 to 1), as far as there are so many."""
    text = "".join(sample.text for sample in trained)
    script = min(SCRIPTS, key=lambda name: len(SCRIPTS[name].findall(text)))
    return _first(script, share, len(trained))


def possible_samples(share: float, lines: int) -> list[Sample]:
    """All lines that could train beside up to `lines` lines, whatever stands there."""
    return [sample for script in SCRIPTS for sample in _first(script, share, lines)]


def is_rehearsal(image_id: str) -> bool:
    """Whether the picture is one of these lines."""
    return image_id.startswith(PREFIX)


def _first(script: str, share: float, lines: int) -> list[Sample]:
    texts = (LINES / f"{script}.txt").read_text(encoding="utf-8").splitlines()
    count = round(lines * share / (1 - share))
    return [_sample(f"{script}-{number:02d}", text) for number, text in enumerate(texts[:count])]


def _sample(name: str, text: str) -> Sample:
    path = LINES / f"{name}.jpg"
    width, height = open_image(path).size
    key = f"{PREFIX}{name}"
    return Sample(key, path.as_posix(), text, key, "rehearsal", "", width, height, "train", hash_file(path), key)
