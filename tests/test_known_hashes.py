"""A remembered hash is never that of another content, and a file that stands as it was is not read again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from ownhand.dataset import known_hashes
from ownhand.dataset.known_hashes import KnownHashes, hash_file


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read."""
    names: list[str] = []

    def note(path: Path) -> known_hashes.HashedFile | None:
        names.append(path.name)
        return hash_file(path)

    monkeypatch.setattr(known_hashes, "hash_file", note)
    return names


def saved(folder: Path, *names: str) -> Path:
    """A file of hashes that a first run left behind."""
    hashes = KnownHashes(folder / "hashes.json")
    for name in names:
        hashes.of(folder / name)
    hashes.save()
    return hashes.path


def test_a_file_that_stands_as_it_was_is_not_read_again(tmp_path: Path, reads: list[str]) -> None:
    (tmp_path / "a.jpg").write_bytes(b"one")
    again = KnownHashes(saved(tmp_path, "a.jpg"))
    reads.clear()
    assert again.of(tmp_path / "a.jpg") == hashlib.sha256(b"one").hexdigest()
    assert reads == []


@pytest.mark.parametrize("change", ["time", "size", "another file"])
def test_a_changed_file_is_hashed_anew(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"one")
    stat = path.stat()
    again = KnownHashes(saved(tmp_path, "a.jpg"))
    if change == "another file":
        (tmp_path / "b.jpg").write_bytes(b"two")
        os.replace(tmp_path / "b.jpg", path)
    else:
        path.write_bytes(b"two" if change == "time" else b"three")
    if change != "time":
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    else:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    if change == "another file" and path.stat().st_ino == stat.st_ino:
        pytest.skip("this file system has no inodes")
    assert again.of(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_a_run_did_not_ask_for_is_forgotten(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    second = KnownHashes(saved(tmp_path, "a.jpg", "b.jpg"))
    second.of(tmp_path / "b.jpg")
    second.save()
    assert [Path(name).name for name in KnownHashes(second.path).known] == ["b.jpg"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": 1}', b"\xff"])
def test_a_damaged_file_of_hashes_only_costs_time(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(b"one")
    (tmp_path / "hashes.json").write_bytes(content)
    assert KnownHashes(tmp_path / "hashes.json").of(tmp_path / "a.jpg") == hashlib.sha256(b"one").hexdigest()


def test_a_file_that_cannot_be_read_has_no_hash(tmp_path: Path) -> None:
    assert KnownHashes(tmp_path / "hashes.json").of(tmp_path / "missing.jpg") is None
    assert hash_file(tmp_path) is None
