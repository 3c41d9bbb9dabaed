"""Files are whole or not there at all."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ownhand.errors import Refusal
from ownhand.files import (
    AppendedLines,
    Unwritable,
    clear_folder,
    read_json,
    write_atomically,
    write_folder,
    write_json,
    write_text,
    writing,
)


def test_text_is_utf8_with_unix_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "sub" / "a.txt", "ё\nдва\n")
    assert (tmp_path / "sub" / "a.txt").read_bytes() == "ё\nдва\n".encode()


def test_a_failure_while_writing_leaves_the_previous_file_and_no_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), write_atomically(path) as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise RuntimeError
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="Windows has other rights")
def test_who_may_read_a_file_stays_so(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for mode in (0o600, 0o664, 0o444):
        write_text(path, "old")
        path.chmod(mode)
        write_text(path, "new")
        assert (path.read_text(encoding="utf-8"), path.stat().st_mode & 0o777) == ("new", mode)


def test_a_full_disk_is_named_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with (
        pytest.raises(
            Unwritable, match=r"a\.txt could not be written \(No space left.*before is intact; the disk at .* MB"
        ),
        write_atomically(path),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text(encoding="utf-8") == "old"


def test_json_keeps_letters_readable_and_refuses_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ё": 1})
    assert "ё" in (tmp_path / "a.json").read_text(encoding="utf-8")
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": float("nan")})


WRITERS: dict[str, Callable[[Path], object]] = {
    "Python": lambda path: path.write_bytes(bytes(400_000)),
    "torch": lambda path: torch.save({"a": torch.zeros(100_000)}, path),
    "safetensors": lambda path: save_file({"a": torch.zeros(100_000)}, path),
}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit of this kind")
@pytest.mark.parametrize("writer", WRITERS)
def test_a_write_that_the_system_stops_is_named_whoever_writes(tmp_path: Path, writer: str) -> None:
    import resource

    path = tmp_path / "weights"
    path.write_text("old", encoding="utf-8")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with (
            pytest.raises(
                Unwritable, match=r"weights could not be written \(.*the disk at .* MB free: make room there"
            ),
            write_atomically(path) as temporary,
        ):
            WRITERS[writer](temporary)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("weights", "old")]


def test_what_is_no_matter_of_the_disk_passes(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shape"), writing(tmp_path):
        raise RuntimeError("shape mismatch")
    with pytest.raises(Refusal, match="^Error while serializing: I/O error$"), writing(tmp_path):
        raise Refusal("Error while serializing: I/O error")
    with pytest.raises(Unwritable) as refused, writing(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")
    assert "make room" not in str(refused.value)


def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for name in (f"a.json.{ended.pid}.tmp", f"b.json.{os.getppid()}.tmp", "notes.tmp", "c.tmp"):
        (tmp_path / name).touch()
    write_json(tmp_path / "a.json", 1)
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", f"b.json.{os.getppid()}.tmp", "notes.tmp", "c.tmp"}


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    with write_folder(target) as unfinished:
        write_text(unfinished / "a", "1")
        write_text(unfinished / "old", "1")
    with pytest.raises(KeyError), write_folder(target) as unfinished:
        write_text(unfinished / "a", "2")
        raise KeyError
    assert (target / "a").read_text() == "1"
    with write_folder(target) as unfinished:
        write_text(unfinished / "a", "3")
    assert [path.name for path in target.iterdir()] == ["a"] and (target / "a").read_text() == "3"
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


@pytest.mark.parametrize("leads", ["somewhere", "nowhere"])
def test_a_link_in_the_place_of_a_folder_goes_and_not_what_it_leads_to(tmp_path: Path, leads: str) -> None:
    target, elsewhere = tmp_path / "model", tmp_path / "elsewhere"
    if leads == "somewhere":
        write_text(elsewhere / "kept", "kept")
    target.symlink_to(elsewhere, target_is_directory=True)
    for content in ("first", "second"):
        with write_folder(target) as unfinished:
            write_text(unfinished / "weights", content)
        assert (target / "weights").read_text() == content
    assert not list(tmp_path.glob("*.tmp")) and not target.is_symlink()
    assert leads == "nowhere" or [path.name for path in elsewhere.iterdir()] == ["kept"]


def test_a_file_in_the_place_of_a_folder_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("somebody's", encoding="utf-8")
    with pytest.raises(Unwritable, match="model is a file, .*: move the file away"), write_folder(tmp_path / "model"):
        pass
    assert (tmp_path / "model").read_text(encoding="utf-8") == "somebody's"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("name", ["model.tmp", "model.previous.tmp"])
@pytest.mark.parametrize("kind", ["file", "link"])
def test_whatever_has_the_temporary_name_of_a_folder_does_not_stop_it(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / "model").mkdir()
    if kind == "file":
        (tmp_path / name).write_text("", encoding="utf-8")
    else:
        (tmp_path / name).symlink_to("nowhere", target_is_directory=True)
    with write_folder(tmp_path / "model") as unfinished:
        write_text(unfinished / "weights", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model/weights").read_text() == "new"


def test_killed_between_the_renames_of_a_folder_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "adapter"
    with write_folder(target) as unfinished:
        write_text(unfinished / "a", "1")
    target.replace(tmp_path / "adapter.previous.tmp")  # as a kill there leaves it
    (tmp_path / "adapter.tmp").mkdir()
    with pytest.raises(KeyError), write_folder(target):
        assert (target / "a").read_text() == "1"
        raise KeyError
    assert (target / "a").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a": 1', "damaged"),
        (b"", "damaged"),
        ("ё".encode("cp1251"), "damaged"),
        ('{"a": 1}'.encode("utf-16"), "damaged"),
        (b"[" * 100_000, "damaged"),
        (None, "is missing"),
    ],
)
def test_a_json_file_that_cannot_be_read_is_named_with_what_to_do(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "evaluation.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Refusal, match=r"evaluation\.json is .*run it again"):
        read_json(path, "run it again")
    with pytest.raises(Refusal, match=said):
        read_json(path, "run it again")


@pytest.mark.parametrize("hashed", [False, True])
def test_lines_that_were_appended_come_back_but_one_that_was_cut(tmp_path: Path, hashed: bool) -> None:
    path = tmp_path / "read.jsonl"
    with AppendedLines(path, hashed) as lines:
        lines.append({"text": "мама"})
        lines.append({"text": "a\u2028b"})
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with AppendedLines(path, hashed) as lines:
        assert lines.kept == [{"text": "мама"}]
        lines.append({"text": "a\u2028b"})
    assert path.read_bytes() == whole
    assert len(AppendedLines.read(path, hashed)) == 2 and AppendedLines.read(tmp_path / "none", hashed) == []


@pytest.mark.parametrize("content", ['{"image": "a.jpg", "text": "да"}', '{"path": 1}\n', "7\n", '{"path": "a"}\n[]\n'])
def test_a_file_of_other_lines_is_refused_and_not_rewritten(tmp_path: Path, content: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(Refusal, match=r"train\.jsonl was not written by this command: take another name"):
        AppendedLines(path, key="path")
    assert path.read_text(encoding="utf-8") == content, "its last line may lack a line end, and is not cut for that"


@pytest.mark.parametrize("change", [("мама", "папа"), ('"мама"', "мама"), ("[", "["), ("[", "{"), ("]", "")])
def test_unfinished_work_that_was_altered_is_said_and_done_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str]
) -> None:
    path = tmp_path / "base-0.jsonl"
    with AppendedLines(path, hashed=True) as lines:
        for text in ("да", "мама", "нет"):
            lines.append({"text": text})
    content = path.read_text(encoding="utf-8").splitlines(keepends=True)
    content[1] = content[1].replace(*change, 1) if change != ("[", "[") else "\0" * 40 + "\n"
    path.write_text("".join(content), encoding="utf-8", newline="\n")
    with AppendedLines(path, hashed=True) as lines:
        assert lines.kept == [{"text": "да"}]
    assert "base-0.jsonl, line 2, is damaged" in capsys.readouterr().out
    assert path.read_text(encoding="utf-8") == content[0]


@pytest.mark.parametrize("content", ["Дорогая мама!", "Дорогая мама!\nКак дела?\n", '{"a": 1}\nx\n{"a": 2}\n'])
def test_a_file_of_somebody_else_is_not_overwritten(tmp_path: Path, content: str) -> None:
    path = tmp_path / "letter.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(Refusal, match=r"letter\.txt, line [12], is damaged or no JSON: remove the file"):
        AppendedLines(path)
    assert path.read_text(encoding="utf-8") == content


@pytest.mark.skipif(os.name == "nt", reason="Windows has none of these")
@pytest.mark.parametrize("what", ["folder", "FIFO", "device"])
def test_lines_are_not_appended_to_what_is_no_file(tmp_path: Path, what: str) -> None:
    path = tmp_path / "out"
    if what == "folder":
        path.mkdir()
    elif what == "FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/null")
    with pytest.raises(Refusal, match=r"out is no file: take another name"):
        AppendedLines(path)
    with pytest.raises(Refusal, match=r"out is no file"):
        AppendedLines.read(path)


@pytest.mark.parametrize("there", ["nothing", "folder", "file", "link", "dangling link"])
def test_a_folder_is_emptied_whatever_stands_there_and_nothing_behind_a_link(tmp_path: Path, there: str) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "data/processed"
    elsewhere.mkdir()
    (elsewhere / "mine").touch()
    folder.parent.mkdir()
    if there == "folder":
        shutil.copytree(elsewhere, folder)
    elif there == "file":
        folder.touch()
    elif there != "nothing":
        folder.symlink_to(elsewhere if there == "link" else "nowhere")
    clear_folder(folder)
    assert folder.is_dir() and not folder.is_symlink() and not list(folder.iterdir())
    assert (elsewhere / "mine").exists()
