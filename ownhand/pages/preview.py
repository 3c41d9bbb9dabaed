"""The preview: a photograph with its lines drawn and numbered, for a person to look at."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from ownhand.images import reduce_image
from ownhand.pages.geometry import FoundLine

PREVIEW_PX = 1600  # the longer side
COLOURS = ("#c00000", "#0040d0", "#007a20", "#a000a0", "#b06000")  # neighbours differ
BASELINE = "#00a0c0"


def draw_preview(page: Image.Image, blocks: Sequence[Sequence[FoundLine]]) -> Image.Image:
    """A reduced copy of an RGB page with polygons, baselines and numbers in reading order ("2.15": second block)."""
    preview = reduce_image(page, PREVIEW_PX).copy()
    scale_x, scale_y = preview.width / page.width, preview.height / page.height
    draw = ImageDraw.Draw(preview)
    font = ImageFont.load_default(size=max(10, PREVIEW_PX // 80))
    number = 0
    for block_number, block in enumerate(blocks, 1):
        for line in block:
            number += 1
            colour = COLOURS[number % len(COLOURS)]
            corners = [(x * scale_x, y * scale_y) for x, y in line.polygon]
            draw.line([*corners, corners[0]], fill=colour, width=2)
            draw.line([(x * scale_x, y * scale_y) for x, y in line.baseline], fill=BASELINE, width=1)
            name = f"{block_number}.{number}" if len(blocks) > 1 else str(number)
            left, middle = min(x for x, _ in corners), sum(y for _, y in corners) / len(corners)
            draw.text((max(left - 4, font.getlength(name)), middle), name, fill=colour, font=font, anchor="rm")
    return preview
