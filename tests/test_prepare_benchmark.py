"""The benchmark of `prepare` compares like with like."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from benchmarks.prepare import convert_with_pillow, draw_photograph
from ownhand.dataset.conversion import convert_pictures
from ownhand.dataset.duplicates import find_same_pictures
from ownhand.images import ConvertedPicture, ImageLimits


def test_photographs_differ_and_both_ways_write_the_same_bytes(tmp_path: Path) -> None:
    paths = [draw_photograph(tmp_path, (400, 100), number) for number in range(12)]
    limits = ImageLimits(300, 8, 200_000_000, 60.0)
    ours = [result for result in convert_pictures([(p, None) for p in paths], tmp_path / "ours", limits, 1)]
    pictures = [result for result in ours if isinstance(result, ConvertedPicture)]
    assert len(pictures) == 12
    assert find_same_pictures(pictures) == []
    (tmp_path / "pillow").mkdir()
    for path, picture in zip(paths, pictures, strict=True):
        convert_with_pillow(tmp_path / "pillow", 300, path)
        assert (tmp_path / "pillow" / path.name).read_bytes() == picture.path.read_bytes()
        with Image.open(picture.path) as image:
            assert image.size == (300, 75)
