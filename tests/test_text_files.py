"""Text files beside pictures, as tesstrain, Calamari and kraken keep them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ownhand.ground_truth.matching import GroundTruth, read_ground_truth
from ownhand.ground_truth.records import GroundTruthError


def read(folder: Path, files: dict[str, str]) -> GroundTruth:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8", newline="\n")
    return read_ground_truth(folder, "utf-8")


def texts(truth: GroundTruth) -> dict[str, str]:
    return {sample.filename: sample.text for sample in truth.records}


def test_tesstrain_and_kraken_lines_are_read_without_the_line_break_at_their_end(tmp_path: Path) -> None:
    truth = read(
        tmp_path, {"p1/l1.tif": "", "p1/l1.gt.txt": "Миновало\n", "p1/l2.png": "", "p1/l2.gt.txt": "\ufeffпочти"}
    )
    assert texts(truth) == {"p1/l1.tif": "Миновало", "p1/l2.png": "почти"}
    assert [sample.row for sample in truth.records] == ["p1/l1.gt.txt", "p1/l2.gt.txt"]
    assert truth.source == ".txt or .gt.txt beside each picture from 2 files, such as p1/l1.gt.txt"
    assert truth.rejections == []


def test_a_text_of_several_lines_keeps_them(tmp_path: Path) -> None:
    assert texts(read(tmp_path, {"a.jpg": "", "a.txt": "один\r\nдва\n"})) == {"a.jpg": "один\nдва"}


def test_calamari_variants_and_full_names_are_found(tmp_path: Path) -> None:
    truth = read(tmp_path, {"a.bin.png": "", "a.gt.txt": "раз", "v1.2.jpg": "", "v1.2.jpg.txt": "два"})
    assert texts(truth) == {"a.bin.png": "раз", "v1.2.jpg": "два"}


def test_a_picture_of_exactly_the_name_wins_over_its_variants(tmp_path: Path) -> None:
    truth = read(tmp_path, {"a.png": "", "a.bin.png": "", "a.nrm.png": "", "a.gt.txt": "раз"})
    assert texts(truth) == {"a.png": "раз"}
    assert [one.file for one in truth.waiting] == ["a.bin.png", "a.nrm.png"]


def test_pictures_that_share_a_text_are_rejected_and_listed(tmp_path: Path) -> None:
    truth = read(tmp_path, {"a.bin.png": "", "a.nrm.png": "", "a.gt.txt": "раз", "b.png": "", "b.gt.txt": "два"})
    assert texts(truth) == {"b.png": "два"}
    reasons = {rejection.row: rejection.reason for rejection in truth.rejections}
    assert reasons["a.gt.txt"].startswith("several images: a.bin.png, a.nrm.png share one text")


def test_a_text_that_lost_its_picture_is_rejected(tmp_path: Path) -> None:
    truth = read(tmp_path, {"a.png": "", "a.txt": "раз", "sub/b.txt": "два"})
    (rejection,) = truth.rejections
    assert (rejection.row, rejection.kind, rejection.counted) == ("sub/b.txt", "image not found", True)


def test_predictions_beside_the_pictures_are_no_ground_truth(tmp_path: Path) -> None:
    truth = read(tmp_path, {"a.png": "", "a.gt.txt": "раз", "a.pred.txt": "рас"})
    assert (texts(truth), truth.rejections) == ({"a.png": "раз"}, [])


def test_texts_in_another_encoding_are_one_error_that_names_them(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").touch()
        (tmp_path / f"{name}.gt.txt").write_text("Ёж", encoding="cp1251")
    with pytest.raises(GroundTruthError, match=r"2 text file\(s\).*\n  a\.gt\.txt.*prepare\.encoding.*\n  b\.gt\.txt"):
        read_ground_truth(tmp_path, "utf-8")
    assert set(texts(read_ground_truth(tmp_path, "cp1251")).values()) == {"Ёж"}
