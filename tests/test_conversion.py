from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ownhand.dataset import conversion
from ownhand.dataset.conversion import Original, convert_pictures
from ownhand.errors import Refusal
from ownhand.files import Unwritable
from ownhand.ground_truth.regions import Region, box
from ownhand.images import ConvertedPicture, ImageLimits

LIMITS = ImageLimits(max_side_px=100, min_side_px=8, max_pixels=1_000_000, max_aspect=20.0)


@pytest.fixture
def originals(tmp_path: Path) -> list[Original]:
    """Twenty pictures of noise; the fourth is empty and the last too small."""
    paths = []
    for number in range(20):
        paths.append(tmp_path / f"{number}.png")
        size = (2, 2) if number == 19 else (60 + 10 * number, 40)
        noise = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(noise).save(paths[-1])
    paths[3].write_bytes(b"")
    return [(path, None) for path in paths]


def test_every_picture_gives_a_file_or_a_reason_in_order(tmp_path: Path, originals: list[Original]) -> None:
    results = convert_pictures(originals, tmp_path / "out", LIMITS)
    assert [number for number, result in enumerate(results) if isinstance(result, str)] == [3, 19]
    assert results[3] == "empty file: 0 bytes"
    assert len(list((tmp_path / "out").iterdir())) == 18
    for number, result in enumerate(results):
        if isinstance(result, ConvertedPicture):
            with Image.open(result.path) as written:
                assert (written.format, written.mode) == ("JPEG", "RGB")
                assert written.size == (result.width_px, result.height_px)
                assert written.width == min(100, 60 + 10 * number)
            assert hashlib.sha256(result.path.read_bytes()).hexdigest() == result.sha256


def test_colour_keeps_its_full_resolution_and_nothing_of_the_camera_is_written(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.jpg", comment=b"where and when", exif=Image.Exif())
    (result,) = convert_pictures([(tmp_path / "a.jpg", None)], tmp_path / "out", LIMITS)
    assert isinstance(result, ConvertedPicture)
    with Image.open(result.path) as written:
        assert [sampling[1:3] for sampling in written.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]
        assert "comment" not in written.info


def test_results_do_not_depend_on_the_number_of_processes(tmp_path: Path, originals: list[Original]) -> None:
    alone = convert_pictures(originals, tmp_path / "out", LIMITS, workers=1)
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert convert_pictures(originals, tmp_path / "out", LIMITS, workers=2) == alone
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == files


def test_nothing_to_convert_gives_nothing(tmp_path: Path) -> None:
    assert convert_pictures([], tmp_path / "out", LIMITS) == []


def be_killed(task: object) -> None:
    os._exit(9)


def test_a_killed_process_is_an_error_with_a_remedy(
    tmp_path: Path, originals: list[Original], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "_convert", be_killed)
    with pytest.raises(Refusal, match=r"was killed.*lower prepare\.max_pixels"):
        convert_pictures(originals, tmp_path / "out", LIMITS, workers=2)


def test_lines_of_a_page_are_cut_and_limited_one_by_one(tmp_path: Path) -> None:
    page = Image.new("RGB", (400, 200), "white")
    page.paste((200, 0, 0), (10, 10, 110, 30))
    page.save(tmp_path / "page.png")
    areas = [box(10, 10, 100, 20), box(0, 0, 3, 3), box(0, 0, 400, 20), box(500, 0, 9, 9)]
    lines = [(tmp_path / "page.png", Region(area, None)) for area in areas]
    cut, tiny, wide, nowhere = convert_pictures(lines, tmp_path / "out", LIMITS)
    assert isinstance(cut, ConvertedPicture) and isinstance(wide, ConvertedPicture)
    assert (cut.width_px, cut.height_px) == (100, 20)
    with Image.open(cut.path) as written:
        assert np.abs(np.asarray(written, int) - (200, 0, 0)).max() < 8
    assert (wide.width_px, wide.height_px) == (100, 5)  # reduced to max_side_px
    assert tiny == "too small: 3 x 3 px, prepare.min_side_px is 8"
    assert nowhere == "no region: nothing of it lies on the page of 400 x 200 px"


def test_what_is_wrong_with_a_page_is_wrong_with_each_of_its_lines(tmp_path: Path) -> None:
    (tmp_path / "page.png").touch()
    lines = [(tmp_path / "page.png", Region(box(0, 0, 9, 9), None))] * 3
    assert convert_pictures(lines, tmp_path / "out", LIMITS) == ["empty file: 0 bytes"] * 3


def test_a_page_is_opened_once_however_many_lines_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (90, 90)).save(tmp_path / "page.png")
    opened: list[Path] = []
    whole = conversion.open_image

    def count(path: Path, limits: ImageLimits) -> Image.Image:
        opened.append(path)
        return whole(path, limits)

    monkeypatch.setattr(conversion, "open_image", count)
    lines = [(tmp_path / "page.png", Region(box(0, y, 80, 20), None)) for y in range(30)]
    assert all(isinstance(line, ConvertedPicture) for line in convert_pictures(lines, tmp_path / "out", LIMITS))
    assert len(opened) == 1


def test_a_disk_that_fills_up_is_named_with_its_file(
    tmp_path: Path, originals: list[Original], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.raises(Unwritable, match=r"out/0000000\.jpg could not be written \(No space.*the disk at .* MB free"):
        convert_pictures(originals, tmp_path / "out", LIMITS, workers=1)
