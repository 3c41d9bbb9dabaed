"""The features of a run: complete or not there, and the same tokens that went in."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from ownhand.errors import Refusal
from ownhand.vision.features import FeatureCache, write_features


def tokens(seed: int, count: int = 5) -> torch.Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))


def write(folder: Path, keys: dict[str, int], **origin: str) -> None:
    write_features(folder, ((key, tokens(seed, seed)) for key, seed in keys.items()), origin, shard_mb=1)


def test_what_was_written_is_read_back_with_copies_behind_the_picture(tmp_path: Path) -> None:
    write(tmp_path, {"00001": 5, "00001~1": 6, "00002": 7}, mode="gundam")
    cache = FeatureCache(tmp_path)
    assert torch.equal(cache.tokens("00001~1"), tokens(6, 6))
    assert cache.count("00002") == 7
    assert cache.keys_of("00001") == ["00001", "00001~1"]
    assert cache.index["mode"] == "gundam"
    with pytest.raises(KeyError, match="00003"):
        cache.keys_of("00003")


def test_a_second_folder_adds_its_keys_behind_those_of_the_first(tmp_path: Path) -> None:
    write(tmp_path / "own", {"00001": 1, "00002": 2, "00002~1": 3})
    write(tmp_path / "more", {"00001~1": 4, "00001~2": 5})
    cache = FeatureCache(tmp_path / "own", tmp_path / "more")
    assert cache.keys_of("00001") == ["00001", "00001~1", "00001~2"] and cache.keys_of("00002") == ["00002", "00002~1"]
    for key, seed in {"00001": 1, "00001~2": 5, "00002~1": 3, "00001~1": 4}.items():  # from shards of equal names
        assert cache.count(key) == seed and torch.equal(cache.tokens(key), tokens(seed, seed))
    assert FeatureCache(tmp_path / "own").keys_of("00001") == ["00001"]


def test_a_full_shard_is_followed_by_another(tmp_path: Path) -> None:
    big = ((f"{i}", torch.zeros(200_000) + i) for i in range(4))
    assert write_features(tmp_path, big, {}, shard_mb=1) == 800_000
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        "tokens-00000.safetensors",
        "tokens-00001.safetensors",
    ]
    cache = FeatureCache(tmp_path)
    assert [float(cache.tokens(f"{i}")[0]) for i in range(4)] == [0, 1, 2, 3]


def test_an_open_cache_can_be_copied_as_for_a_spawned_worker(feature_folder: Path) -> None:
    cache = FeatureCache(feature_folder)
    before = cache.tokens("00001")
    assert torch.equal(copy.deepcopy(cache).tokens("00001"), before)


@pytest.mark.parametrize("content", [b'{"images": {"0', b"[]", b"{}", b'{"images": {"1": 5}}', b"\xff", b"[" * 100_000])
def test_a_damaged_index_is_named_with_what_makes_it_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "index.json").write_bytes(content)
    with pytest.raises(Refusal, match=r"index\.json is damaged.*dvc repro --force --single-item encode"):
        FeatureCache(tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"junk" * 9, "cut", "of others"])
def test_a_damaged_shard_is_named_with_what_makes_it_anew(tmp_path: Path, content: bytes | str | None) -> None:
    write(tmp_path, {"00001": 5, "00002": 6})
    shard = tmp_path / "tokens-00000.safetensors"
    whole = shard.read_bytes()
    if content == "of others":
        write(tmp_path / "others", {"00003": 5})
        whole = (tmp_path / "others" / shard.name).read_bytes()
    shard.unlink()
    if content is not None:
        shard.write_bytes(content if isinstance(content, bytes) else whole[:-4] if content == "cut" else whole)
    with pytest.raises(Refusal, match=r"tokens-00000\.safetensors is damaged.*dvc repro --force --single-item encode"):
        FeatureCache(tmp_path).tokens("00001")


def test_a_missing_cache_names_the_stage_to_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dvc repro encode"):
        FeatureCache(tmp_path)
