"""Gallery: a picture file per line, for `dvc plots`, which sets the same line of several runs side by side.

The lines are those of the probes: few, spread over all pages, and chosen by the data alone, so that two runs on the
same data show the same lines under the same names.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from ownhand.evaluation.metrics import mark_differences
from ownhand.evaluation.readings import READERS, ScoredLine
from ownhand.files import write_text
from ownhand.report.html_report import open_template
from ownhand.report.thumbnails import Thumbnail, embed_pictures
from ownhand.text import comparable
from ownhand.vision.probes import probe_samples

WIDTH_PX, MARGIN_PX = 720, 12
TEXT_PX, LEADING_PX = 18, 26
CHARACTERS_A_ROW = 60  # of a text of TEXT_PX in the width, with room to spare


def write_gallery(folder: Path, lines: Sequence[ScoredLine], root: Path) -> None:
    """`folder` anew, with one SVG file per probed line: its picture, the transcription, and what was read."""
    template = open_template("gallery.svg")
    probed = {sample.image_id for sample in probe_samples([line.sample for line in lines])}
    shown = [line for line in lines if line.sample.image_id in probed]
    pictures = embed_pictures(shown, root)
    shutil.rmtree(folder, ignore_errors=True)
    for line in shown:
        picture = _fitted(pictures[line.sample.image_id])
        readings = [
            (
                {"base": "Base", "adapter": "Adapter"}[reader],
                line.scores[reader].cer,
                [
                    (kind, _printable(text))
                    for kind, text in mark_differences(line.sample.text, line.readings[reader].text)
                ],
            )
            for reader in READERS
        ]
        lengths = [len(line.sample.text), *(sum(len(text) for _, text in stretches) + 16 for *_, stretches in readings)]
        rows = sum(math.ceil(max(1, length) / CHARACTERS_A_ROW) for length in lengths)
        text = template.render(
            width=WIDTH_PX,
            height=picture.height + rows * LEADING_PX + 3 * MARGIN_PX,
            margin=MARGIN_PX,
            size=TEXT_PX,
            leading=LEADING_PX,
            picture=picture,
            truth=_printable(comparable(line.sample.text)),
            readings=readings,
        )
        write_text(folder / f"{line.sample.image_id}.svg", text)


def _fitted(picture: Thumbnail) -> Thumbnail:
    scale = min(1.0, (WIDTH_PX - 2 * MARGIN_PX) / picture.width)
    return Thumbnail(picture.uri, round(scale * picture.width), round(scale * picture.height))


def _printable(text: str) -> str:
    """The text without what XML does not allow; such characters become U+FFFD."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
