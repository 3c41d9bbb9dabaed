"""Read: what was read is written as it comes, and nothing that was read is lost."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import edit_params
from PIL import Image

from ownhand.errors import Refusal
from ownhand.params import read_params
from ownhand.read import How, Reader, expand, read
from ownhand.samples import Reading


@pytest.fixture
def folder(stage_folder: Path, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two photographs and a file that is none, in a project with a small model."""
    monkeypatch.chdir(stage_folder)
    edit_params(stage_folder, "transcribe", max_new_tokens=4, batch_size=1)
    edit_params(stage_folder, "prepare", max_side_px=100)
    photos = stage_folder / "photos"
    photos.mkdir()
    pictures[0].save(photos / "1 large.png")
    (photos / "2 broken.png").write_bytes(b"no picture")
    small = pictures[0].copy()
    small.thumbnail((100, 100), Image.Resampling.LANCZOS)
    small.save(photos / "3 small.png")
    return photos


def test_a_photograph_is_reduced_as_prepare_would_and_a_broken_one_stops_nothing(folder: Path) -> None:
    photos, _ = expand([str(folder)])
    large, broken, small = Reader(read_params(), None).read_paths(path for _, path in photos)
    assert large.reading == small.reading is not None
    assert broken.reading is None and broken.problem


def test_lines_come_as_they_are_read_and_the_exit_code_tells_of_refusals(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read([str(folder)], read_params(), None, How("jsonl")) == 1
    captured = capsys.readouterr()
    assert [Path(json.loads(line)["path"]).name for line in captured.out.splitlines()] == ["1 large.png", "3 small.png"]
    assert "2 broken.png: " in captured.err and "2 pictures read, 1 refused" in captured.err
    assert read([str(folder / "1 large.png")], read_params(), None, How("json")) == 0
    assert len(json.loads(capsys.readouterr().out)) == 1


def test_a_file_of_results_goes_on_behind_a_half_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = folder.parent / "read.jsonl"
    read([str(folder)], read_params(), None, How(out=out))
    whole = out.read_bytes()
    out.write_bytes(whole[:-5])
    seen: list[Path] = []
    read_paths = Reader.read_paths
    monkeypatch.setattr(Reader, "read_paths", lambda self, paths: read_paths(self, seen.extend(paths) or list(seen)))
    read([str(folder)], read_params(), None, How(out=out))
    assert out.read_bytes() == whole
    assert [path.name for path in seen] == ["2 broken.png", "3 small.png"]


@pytest.mark.parametrize("name", ["", "-"])
def test_what_is_no_file_is_a_sentence(name: str) -> None:
    with pytest.raises(Refusal, match="cannot be read; name photographs"):
        expand([name])


def test_an_unreadable_folder_is_named_and_the_rest_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "locked").mkdir()
    scandir = os.scandir

    def lock(path: str | Path) -> Any:  # root may open every folder
        if Path(path).name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr("ownhand.folders.os.scandir", lock)
    assert read([str(folder)], read_params(), None, How("jsonl")) == 1
    captured = capsys.readouterr()
    assert [Path(json.loads(line)["path"]).name for line in captured.out.splitlines()] == ["1 large.png", "3 small.png"]
    assert f"{(folder / 'locked').as_posix()}: Permission denied" in captured.err
    assert "2 pictures read, 2 refused" in captured.err


@pytest.mark.parametrize("style", ["text", "json", "jsonl"])
def test_an_interruption_takes_nothing_back_of_what_was_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, style: str
) -> None:
    whole, calls = Reader.read, []

    def read_one(self: Reader, images: Sequence[Image.Image]) -> list[Reading]:
        if calls:
            raise KeyboardInterrupt
        calls.append(images)
        return whole(self, images)

    monkeypatch.setattr(Reader, "read", read_one)
    seen = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(seen), "utf-8"))
    with pytest.raises(KeyboardInterrupt):
        read([str(folder)], read_params(), None, How(style))
    assert len(calls[0]) == 1
    assert "1 large.png" in seen.getvalue().decode() and "3 small.png" not in seen.getvalue().decode()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_not_utf_8_is_written_escaped(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = os.fsdecode(os.fsencode(folder) + b"/\xff.png")
    os.rename(folder / "1 large.png", odd)
    assert read([odd], read_params(), None, How("jsonl")) == 0
    assert json.loads(capsys.readouterr().out)["path"].endswith("\\xff.png")


def test_a_page_is_read_by_the_lines_of_its_file_and_written_as_another(
    folder: Path, pictures: list[Image.Image], capsys: pytest.CaptureFixture[str]
) -> None:
    edit_params(folder.parent, "prepare", max_side_px=2000)
    for old in list(folder.iterdir()):
        old.unlink()
    width, height = max(one.width for one in pictures[:2]), pictures[0].height
    page = Image.new("RGB", (width, 2 * height), "white")
    for number, picture in enumerate(pictures[:2]):
        page.paste(picture, (0, number * height))
    page.save(folder / "page.png")
    boxes = [f"0,{top} {width},{top} {width},{top + height} 0,{top + height}" for top in (0, height)]
    lines = "".join(f'<TextLine id="l{i}"><Coords points="{box}"/></TextLine>' for i, box in enumerate(boxes))
    namespace = "http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"
    (folder / "page.xml").write_text(
        f'<PcGts xmlns="{namespace}"><Page imageFilename="page.png" imageWidth="{width}" imageHeight="{2 * height}">'
        f'<TextRegion id="r">{lines}</TextRegion></Page></PcGts>',
        encoding="utf-8",
    )
    assert read([str(folder)], read_params(), None, How("jsonl")) == 0
    record = json.loads(capsys.readouterr().out)
    assert [line["line"] for line in record["lines"]] == ["l0", "l1"]
    with pytest.raises(Refusal, match="name a folder with --out"):
        read([str(folder)], read_params(), None, How("page"))
    assert read([str(folder)], read_params(), None, How("page", folder.parent / "read")) == 0
    written = (folder.parent / "read/page.xml").read_text(encoding="utf-8")
    assert written.count("<TextLine") == 2 and 'conf="' in written
    assert read([str(folder)], read_params(), None, How("jsonl", whole=True)) == 0
    assert "lines" not in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("out", ["data/raw", "data/raw/pages"])
def test_what_was_read_never_becomes_ground_truth(folder: Path, out: str) -> None:
    with pytest.raises(Refusal, match="is ground truth"):
        read([str(folder)], read_params(), None, How("page", Path(out)))
