"""Thumbnails: legible where there is room, never more bytes than allowed."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from validation_set import ROWS, write_validation_set

from ownhand.errors import Refusal
from ownhand.evaluation.readings import READERS, ScoredLine, score_lines
from ownhand.report import thumbnails
from ownhand.report.thumbnails import embed_pictures
from ownhand.samples import read_metadata


def lines_with_noise(root: Path, count: int, size_px: tuple[int, int]) -> list[ScoredLine]:
    write_validation_set(root, [ROWS[0]] * count, size_px)
    lines = score_lines(
        read_metadata(root / "data/processed"),
        {reader: root / f"data/predictions/{reader}.jsonl" for reader in READERS},
    )
    noise = np.random.default_rng(1).integers(0, 256, (size_px[1], size_px[0], 3), np.uint8)
    for line in lines:
        Image.fromarray(noise).save(root / line.sample.image_path, quality=95)
    return lines


def decode(uri: str) -> bytes:
    return base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))


def test_a_picture_is_a_jpeg_of_the_stated_size(tmp_path: Path) -> None:
    picture = embed_pictures(lines_with_noise(tmp_path, 1, (400, 60)), tmp_path)["00002"]
    image = Image.open(io.BytesIO(decode(picture.uri)))
    assert (image.format, image.size) == ("JPEG", (400, 60)) == ("JPEG", (picture.width, picture.height))


def test_a_heavy_picture_is_reduced_with_its_shape_kept(tmp_path: Path) -> None:
    picture = embed_pictures(lines_with_noise(tmp_path, 1, (1600, 800)), tmp_path)["00002"]
    assert len(decode(picture.uri)) <= thumbnails.ONE_BYTES[1]
    assert picture.width < 1600 and picture.width == 2 * picture.height


def test_when_the_bytes_are_spent_the_last_lines_go_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = lines_with_noise(tmp_path, 4, (200, 40))
    one = len(decode(embed_pictures(lines, tmp_path)["00002"].uri))
    monkeypatch.setattr(thumbnails, "ALL_BYTES", 2 * one + 1)
    assert list(embed_pictures(lines, tmp_path)) == ["00002", "00003"]


def test_missing_pictures_are_listed_together(tmp_path: Path) -> None:
    lines = lines_with_noise(tmp_path, 3, (200, 40))
    for line in lines[:2]:
        (tmp_path / line.sample.image_path).unlink()
    with pytest.raises(Refusal, match=r"00002\.jpg, data/processed/val/images/00003\.jpg; run `dvc repro prepare`"):
        embed_pictures(lines, tmp_path)
