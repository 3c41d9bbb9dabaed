"""Unfinished work: whole by its manifest, or said and set aside."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ownhand.training.checkpoints import (
    MARKER,
    SealCheckpoints,
    find_damage,
    is_whole,
    keep,
    last_whole_checkpoint,
    seal,
)

FILES = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")


def write(folder: Path, files: tuple[str, ...] = FILES) -> Path:
    folder.mkdir(parents=True)
    for name in files:
        (folder / name).write_text(f"{folder.name} {name}", encoding="utf-8")
    return folder


def replace(path: Path) -> None:
    path.write_bytes(b"x" * path.stat().st_size)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "said"),
    [(Path.unlink, "is missing"), (cut, "bytes instead of"), (replace, "has changed since it was written")],
)
@pytest.mark.parametrize("name", FILES)
def test_whatever_is_wrong_with_a_file_is_said(
    tmp_path: Path, name: str, damage: Callable[[Path], None], said: str
) -> None:
    folder = write(tmp_path / "checkpoint-3")
    seal(folder)
    assert find_damage(folder) is None
    damage(folder / name)
    found = find_damage(folder)
    assert found is not None and name in found and said in found


@pytest.mark.parametrize("marker", ["", "{}", "[]", '{"files": {"a": 1}, "beside": []}', "\0", '{"files": {}}'])
def test_a_damaged_marker_vouches_for_nothing(tmp_path: Path, marker: str) -> None:
    seal(write(tmp_path / "checkpoint-3"))
    (tmp_path / "checkpoint-3" / MARKER).write_text(marker, encoding="utf-8")
    assert "COMPLETE cannot be used" in str(find_damage(tmp_path / "checkpoint-3"))


def test_the_highest_whole_step_is_taken_and_what_is_not_whole_is_set_aside_or_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (3, 12, 15, 21):
        write(tmp_path / f"checkpoint-{step}")
        if step != 15:  # killed before its marker
            seal(tmp_path / f"checkpoint-{step}")
    replace(tmp_path / "checkpoint-21/optimizer.pt")
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-12"
    assert "checkpoint-21.damaged: optimizer.pt has changed" in capsys.readouterr().out
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["checkpoint-12", "checkpoint-21.damaged", "checkpoint-3"]
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-12"
    assert last_whole_checkpoint(tmp_path / "nothing") is None


@pytest.mark.parametrize("name", FILES)
def test_a_checkpoint_that_was_sealed_without_a_part_is_none(tmp_path: Path, name: str) -> None:
    seal(write(tmp_path / "checkpoint-3"))
    seal(write(tmp_path / "checkpoint-6", tuple(file for file in FILES if file != name)))
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-3"


def test_a_checkpoint_needs_the_best_adapter_that_it_names(tmp_path: Path) -> None:
    seal(write(tmp_path / "best-2", ("adapter_model.safetensors",)))
    for step in (2, 4):
        seal(write(tmp_path / f"checkpoint-{step}"), ["best-2"] if step == 4 else [])
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    replace(tmp_path / "best-2/adapter_model.safetensors")
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-2"


def test_a_folder_that_was_set_aside_twice_is_no_trouble(tmp_path: Path) -> None:
    for _ in range(2):
        seal(write(tmp_path / "features", ("index.json",)))
        cut(tmp_path / "features/index.json")
        assert not is_whole(tmp_path / "features")
    assert not is_whole(tmp_path / "features")
    assert [path.name for path in tmp_path.iterdir()] == ["features.damaged"]


def test_old_checkpoints_go_by_their_step_whatever_their_times_say(tmp_path: Path) -> None:
    callback = SealCheckpoints()
    for hours, step in enumerate((9, 12, 99, 100)):
        folder = write(tmp_path / f"checkpoint-{step}")
        callback.on_save(
            SimpleNamespace(output_dir=str(tmp_path)), SimpleNamespace(global_step=step, log_history=[]), 0
        )
        for path in (folder, *folder.iterdir()):  # the clock is set back before each of them
            os.utime(path, (1_900_000_000 - 3600 * hours,) * 2)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-99", "checkpoint-100"}
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-100"


def test_a_marker_alone_is_no_checkpoint(tmp_path: Path) -> None:
    seal(write(tmp_path / "checkpoint-3"))
    seal(write(tmp_path / "checkpoint-6", ()))
    for path in seal_and_list(write(tmp_path / "checkpoint-9")):
        path.unlink()
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-3"


def seal_and_list(folder: Path) -> list[Path]:
    """All files of a folder that is sealed now, without its marker."""
    seal(folder)
    return [path for path in folder.iterdir() if path.name != MARKER]


@pytest.mark.skipif(os.name == "nt", reason="Windows opens no folder")
def test_what_a_marker_vouches_for_lies_on_the_disk_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "checkpoint-3")
    (folder / "adapter").mkdir()
    (folder / "adapter/weights").write_bytes(b"1")
    flushed: list[tuple[int, bool]] = []  # (number of the file or folder, whether the marker was there)
    fsync = os.fsync

    def note(handle: int) -> None:
        flushed.append((os.fstat(handle).st_ino, (folder / MARKER).exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    seal(folder)
    before = {number for number, marked in flushed if not marked}
    content = [path for path in folder.rglob("*") if path.name != MARKER]
    assert {path.stat().st_ino for path in (*content, folder, tmp_path)} <= before
    assert (folder.stat().st_ino, True) in flushed  # the marker's own name


def test_what_is_kept_comes_back_and_what_was_altered_is_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, made = tmp_path / "fold-1.json", []
    value = {"rows": [{"prediction": "мама", "confidence": 0.123456}], "record": {"fold": 1}}

    def make() -> dict[str, Any]:
        made.append(1)
        return value

    assert keep(path, make) == keep(path, make) == value
    assert len(made) == 1
    whole = path.read_text(encoding="utf-8")
    spoiled = (whole.replace("мама", "папа"), whole[:-9], "", "[]", json.dumps(value))
    for number, content in enumerate(spoiled, start=2):
        path.write_text(content, encoding="utf-8")
        assert keep(path, make) == value
        assert len(made) == number
        assert "fold-1.json.damaged" in capsys.readouterr().out
        assert path.read_text(encoding="utf-8") == whole


def test_an_older_folder_of_the_same_name_is_in_nobodys_way(tmp_path: Path) -> None:
    write(tmp_path / "checkpoint-3.damaged")
    write(tmp_path / "checkpoint-x")
    seal(write(tmp_path / "checkpoint-3"))
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    shutil.rmtree(tmp_path / "checkpoint-3")
    assert last_whole_checkpoint(tmp_path) is None
