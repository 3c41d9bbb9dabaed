"""What was converted before is taken over, and only that; nothing wrong is ever taken."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ownhand.dataset import conversion
from ownhand.dataset.conversion import Original, convert_pictures
from ownhand.dataset.conversion_cache import INDEX, ConversionCache, KnownHashes, open_cache, picture_key
from ownhand.ground_truth.regions import Region, box
from ownhand.images import ImageLimits

LIMITS = ImageLimits(max_side_px=100, min_side_px=8, max_pixels=1_000_000, max_aspect=20.0)


@pytest.fixture
def originals(tmp_path: Path) -> list[Original]:
    """Five pictures of noise, three lines of a page, and a file that is no picture."""
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 256, (40, 60 + 10 * number, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    lines = [(tmp_path / "5.png", Region(box(0, 10 * y, 90, 10), None)) for y in range(3)]
    return [*((tmp_path / f"{number}.png", None) for number in range(5)), *lines, (tmp_path / "bad.png", None)]


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were opened for conversion."""
    names: list[str] = []
    whole = conversion.open_image

    def note(path: Path, limits: ImageLimits) -> Image.Image:
        names.append(path.name)
        return whole(path, limits)

    monkeypatch.setattr(conversion, "open_image", note)
    return names


def convert(tmp_path: Path, originals: list[Original], run: str) -> tuple[list[str], dict[str, bytes]]:
    """(reasons and hashes, files written) of a run with the cache, as `prepare` does it."""
    cache = ConversionCache(tmp_path / "cache/today")
    results = convert_pictures(originals, tmp_path / run, LIMITS, cache=cache)
    cache.tidy()
    files = {path.name: path.read_bytes() for path in (tmp_path / run).iterdir()}
    return [result if isinstance(result, str) else f"{result.sha256} {result.bits.hex()}" for result in results], files


def test_a_second_run_opens_nothing_but_what_failed_and_ends_the_same(
    tmp_path: Path, originals: list[Original], converted: list[str]
) -> None:
    first = convert(tmp_path, originals, "one")
    without = convert_pictures(originals, tmp_path / "without", LIMITS)
    assert first[0] == [r if isinstance(r, str) else f"{r.sha256} {r.bits.hex()}" for r in without]
    converted.clear()
    assert convert(tmp_path, originals, "two") == first
    assert converted == ["bad.png"]


def test_only_new_and_changed_pictures_are_converted_and_renamed_ones_are_known(
    tmp_path: Path, originals: list[Original], converted: list[str]
) -> None:
    convert(tmp_path, originals, "one")
    converted.clear()
    Image.new("RGB", (50, 50)).save(tmp_path / "1.png")
    Image.new("RGB", (50, 60)).save(tmp_path / "new.png")
    (tmp_path / "2.png").rename(tmp_path / "renamed.png")
    names = ["new.png", "0.png", "1.png", "renamed.png"]
    convert(tmp_path, [(tmp_path / name, None) for name in names], "two")
    assert sorted(converted) == ["1.png", "new.png"]


def test_what_a_run_does_not_use_is_removed_with_what_belongs_to_other_parameters(
    tmp_path: Path, originals: list[Original]
) -> None:
    (tmp_path / "cache/other").mkdir(parents=True)
    (tmp_path / "cache/other/x.jpg").write_bytes(b"old")
    convert(tmp_path, originals, "one")
    convert(tmp_path, originals[:2], "two")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["today"]
    assert len(list((tmp_path / "cache/today").glob("*.jpg"))) == 2
    assert len(ConversionCache(tmp_path / "cache/today").kept) == 2


def test_a_kept_picture_that_was_changed_or_lost_is_converted_again(
    tmp_path: Path, originals: list[Original], converted: list[str]
) -> None:
    first = convert(tmp_path, originals, "one")
    kept = sorted((tmp_path / "cache/today").glob("*.jpg"))
    kept[0].unlink()
    content = kept[1].read_bytes()
    kept[1].unlink()
    kept[1].write_bytes(content[:-1])
    converted.clear()
    assert convert(tmp_path, originals, "two") == first
    assert len(converted) == 3  # these two and the one that is no picture


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such device")
def test_what_is_no_file_where_a_kept_picture_was_is_converted_again(
    tmp_path: Path, originals: list[Original], converted: list[str]
) -> None:
    first = convert(tmp_path, originals, "one")
    kept = sorted((tmp_path / "cache/today").glob("*.jpg"))
    kept[0].unlink()
    kept[0].mkdir()
    kept[1].unlink()
    kept[1].symlink_to("/dev/zero")  # hashing it would not end
    converted.clear()
    assert convert(tmp_path, originals, "two") == first
    assert len(converted) == 3  # these two and the one that is no picture


def test_a_kill_at_any_byte_of_the_index_loses_at_most_one_picture(
    tmp_path: Path, originals: list[Original], converted: list[str]
) -> None:
    cache = ConversionCache(tmp_path / "cache/today")
    convert_pictures(originals, tmp_path / "one", LIMITS, cache=cache)
    index = tmp_path / "cache/today" / INDEX
    whole = index.read_bytes()
    for cut in range(len(whole) - 200, len(whole), 9):
        index.write_bytes(whole[:cut])
        assert len(ConversionCache(tmp_path / "cache/today").kept) >= 6
    converted.clear()
    convert(tmp_path, originals, "two")
    assert len(converted) <= 2


@pytest.mark.skipif(os.name == "nt", reason="there it is copied")
def test_kept_pictures_are_links_and_outlive_the_outputs(tmp_path: Path, originals: list[Original]) -> None:
    convert(tmp_path, originals, "one")
    (kept,) = {path.stat().st_nlink for path in (tmp_path / "cache/today").glob("*.jpg")}
    assert kept == 2
    for path in (tmp_path / "one").iterdir():
        path.unlink()
    assert all(path.stat().st_size for path in (tmp_path / "cache/today").glob("*.jpg"))


def test_every_limit_has_a_cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", tmp_path.as_posix())
    folders = set()
    for limits in (
        LIMITS,
        LIMITS,
        ImageLimits(101, 8, 1_000_000, 20.0),
        ImageLimits(100, 9, 1_000_000, 20.0),
        ImageLimits(100, 8, 1_000_001, 20.0),
        ImageLimits(100, 8, 1_000_000, 21.0),
    ):
        with open_cache(limits) as cache:
            folders.add(cache.folder)
    assert len(folders) == 5
    assert all(folder.is_relative_to(tmp_path / ".checkpoints/prepare") for folder in folders)


def test_two_lines_of_a_page_have_keys_of_their_own() -> None:
    one, other = (Region(box(0, y, 9, 9), None) for y in (0, 1))
    keys = {picture_key("ab", None), picture_key("ab", one), picture_key("ab", other), picture_key("cd", one)}
    assert len(keys) == 4


@pytest.mark.parametrize("change", ["nothing", "time", "size", "another file"])
def test_a_file_is_read_again_only_when_it_does_not_stand_as_it_was(
    tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, known = tmp_path / "a.jpg", KnownHashes(tmp_path / "hashes.json")
    path.write_bytes(b"one")
    stat = path.stat()
    assert known.of(path) == hashlib.sha256(b"one").hexdigest()
    known.save()
    if change == "another file":
        (tmp_path / "b.jpg").write_bytes(b"two")
        os.replace(tmp_path / "b.jpg", path)
    elif change != "nothing":
        path.write_bytes(b"two" if change == "time" else b"three")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + (change == "time")))
    if change == "another file" and path.stat().st_ino == stat.st_ino:
        pytest.skip("this file system has no inodes")
    if change == "nothing":
        monkeypatch.setattr("ownhand.dataset.conversion_cache.hash_file", None)
    assert KnownHashes(known.path).of(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"a.jpg": 1}', b"\xff", b"[" * 100_000])
def test_a_damaged_file_of_hashes_only_costs_time(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jpg").write_bytes(b"one")
    Path("hashes.json").write_bytes(content)
    hashes = KnownHashes(Path("hashes.json"))
    assert hashes.of(Path("a.jpg")) == hashlib.sha256(b"one").hexdigest()
    assert hashes.of(Path("missing.jpg")) is None
    hashes.save()
    assert list(KnownHashes(Path("hashes.json")).known) == ["a.jpg"]


@pytest.mark.parametrize("line", [b"5", b"[1]", b'[[1], 1, 1, "a", "00"]', b"[" * 100_000, b"\0"])
def test_a_damaged_line_of_the_index_only_costs_time(tmp_path: Path, originals: list[Original], line: bytes) -> None:
    first = convert(tmp_path, originals, "one")
    index = tmp_path / "cache/today" / INDEX
    index.write_bytes(line + b"\n" + index.read_bytes())
    assert convert(tmp_path, originals, "two") == first
