from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.lib import conversion
from stages.lib.conversion import convert_pictures
from stages.lib.duplicates import Picture
from stages.lib.failures import Refusal
from stages.lib.images import ImageLimits

LIMITS = ImageLimits(max_side_px=100, min_side_px=8, max_pixels=1_000_000, max_aspect=20.0)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Twenty pictures of noise; the fourth is empty and the last too small."""
    paths = []
    for number in range(20):
        paths.append(tmp_path / f"{number}.png")
        size = (2, 2) if number == 19 else (60 + 10 * number, 40)
        noise = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(noise).save(paths[-1])
    paths[3].write_bytes(b"")
    return paths


def test_every_picture_gives_a_file_or_a_reason_in_order(tmp_path: Path, paths: list[Path]) -> None:
    results = convert_pictures(paths, tmp_path / "out", LIMITS)
    assert [number for number, result in enumerate(results) if isinstance(result, str)] == [3, 19]
    assert results[3] == "empty file: 0 bytes"
    assert len(list((tmp_path / "out").iterdir())) == 18
    for number, result in enumerate(results):
        if isinstance(result, Picture):
            with Image.open(result.path) as written:
                assert (written.format, written.mode) == ("JPEG", "RGB")
                assert written.size == (result.width_px, result.height_px)
                assert written.width == min(100, 60 + 10 * number)
            assert hashlib.sha256(result.path.read_bytes()).hexdigest() == result.sha256


def test_colour_keeps_its_full_resolution_and_nothing_of_the_camera_is_written(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.jpg", comment=b"where and when", exif=Image.Exif())
    (result,) = convert_pictures([tmp_path / "a.jpg"], tmp_path / "out", LIMITS)
    assert isinstance(result, Picture)
    with Image.open(result.path) as written:
        assert [sampling[1:3] for sampling in written.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]
        assert "comment" not in written.info


def test_results_do_not_depend_on_the_number_of_processes(tmp_path: Path, paths: list[Path]) -> None:
    alone = convert_pictures(paths, tmp_path / "out", LIMITS, workers=1)
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert convert_pictures(paths, tmp_path / "out", LIMITS, workers=2) == alone
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == files


def test_nothing_to_convert_gives_nothing(tmp_path: Path) -> None:
    assert convert_pictures([], tmp_path / "out", LIMITS) == []


def be_killed(task: object) -> None:
    os._exit(9)


def test_a_killed_process_is_an_error_with_a_remedy(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "_convert", be_killed)
    with pytest.raises(Refusal, match=r"was killed.*lower prepare\.max_pixels"):
        convert_pictures(paths, tmp_path / "out", LIMITS, workers=2)
