from __future__ import annotations

from PIL import Image

from ownhand.images import paper_colour


def test_the_colour_around_the_writing_is_that_of_the_paper_and_not_of_the_ink() -> None:
    image = Image.new("RGB", (60, 30), (240, 230, 210))
    image.paste("black", (5, 2, 55, 30))  # ink down to the lower edge
    assert paper_colour(image) == (240, 230, 210)
