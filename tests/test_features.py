"""The feature cache: complete or not there, and the same tokens that went in."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from ownhand.vision.features import FeatureCache, FeatureWriter, finish_cache


def tokens(seed: int, count: int = 5) -> torch.Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))


def test_what_was_written_is_read_back_with_copies_behind_the_picture(tmp_path: Path) -> None:
    writer = FeatureWriter(tmp_path / "unfinished", shard_mb=1)
    for key, seed in (("00001", 1), ("00001~1", 2), ("00002", 3)):
        writer.add(key, tokens(seed, 4 + seed))
    writer.flush()
    finish_cache([writer.folder], tmp_path / "features", {"mode": "gundam"})
    cache = FeatureCache(tmp_path / "features")
    assert torch.equal(cache.tokens("00001~1"), tokens(2, 6))
    assert cache.count("00002") == 7
    assert cache.keys_of("00001") == ["00001", "00001~1"]
    assert cache.index["mode"] == "gundam"
    with pytest.raises(KeyError, match="00003"):
        cache.keys_of("00003")


def test_a_second_folder_adds_its_keys_behind_those_of_the_first(tmp_path: Path) -> None:
    for name, keys in (("own", {"00001": 1, "00002": 2, "00002~1": 3}), ("more", {"00001~1": 4, "00001~2": 5})):
        writer = FeatureWriter(tmp_path / "unfinished", shard_mb=1)
        for key, seed in keys.items():
            writer.add(key, tokens(seed, seed))
        writer.flush()
        finish_cache([writer.folder], tmp_path / name, {"from": name})
    cache = FeatureCache(tmp_path / "own", tmp_path / "more")
    assert cache.keys_of("00001") == ["00001", "00001~1", "00001~2"] and cache.keys_of("00002") == ["00002", "00002~1"]
    for key, seed in {"00001": 1, "00001~2": 5, "00002~1": 3, "00001~1": 4}.items():  # from shards of equal names
        assert cache.count(key) == seed and torch.equal(cache.tokens(key), tokens(seed, seed))
    assert FeatureCache(tmp_path / "own").keys_of("00001") == ["00001"]


def test_complete_shards_survive_an_interruption_and_half_ones_do_not_count(tmp_path: Path) -> None:
    writer = FeatureWriter(tmp_path, shard_mb=1)
    writer.add("00001", tokens(1))
    writer.flush()
    writer.add("00002", tokens(2))  # killed before the flush
    (tmp_path / "tokens-00001.safetensors.77.tmp").write_bytes(b"half")
    again = FeatureWriter(tmp_path, shard_mb=1)
    assert "00001" in again
    assert "00002" not in again
    again.add("00002", tokens(2))
    again.flush()
    finish_cache([again.folder], tmp_path / "features", {})
    assert torch.equal(FeatureCache(tmp_path / "features").tokens("00001"), tokens(1))


def test_killed_while_the_shards_are_moved_no_shard_is_overwritten(tmp_path: Path) -> None:
    writer = FeatureWriter(tmp_path / "unfinished", shard_mb=1)
    for i in range(3):
        writer.add(f"0000{i}", tokens(i))
        writer.flush()
    (tmp_path / "features").mkdir()
    first = tmp_path / "unfinished" / "tokens-00000.safetensors"
    first.replace(tmp_path / "features" / first.name)  # killed here
    again = FeatureWriter(tmp_path / "unfinished", shard_mb=1)
    assert "00000" not in again and "00002" in again
    again.add("00000", tokens(0))
    again.flush()
    finish_cache([again.folder], tmp_path / "features", {})
    cache = FeatureCache(tmp_path / "features")
    assert all(torch.equal(cache.tokens(f"0000{i}"), tokens(i)) for i in range(3))
    assert len(list((tmp_path / "features").glob("tokens-*"))) == 3
    assert cache.index["images"]["00000"]["shard"] == "tokens-00000.safetensors", "in the place that it had"


def test_shards_are_written_when_they_are_full(tmp_path: Path) -> None:
    writer = FeatureWriter(tmp_path, shard_mb=1)
    writer.add("00001", torch.zeros(200_000))
    assert not list(tmp_path.glob("*.safetensors"))
    writer.add("00002", torch.zeros(100_000))
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["tokens-00000.safetensors"]


def test_an_open_cache_can_be_pickled_for_a_spawned_worker(feature_folder: Path) -> None:
    cache = FeatureCache(feature_folder)
    before = cache.tokens("00001")
    assert torch.equal(pickle.loads(pickle.dumps(cache)).tokens("00001"), before)


def test_a_missing_cache_names_the_stage_to_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dvc repro encode"):
        FeatureCache(tmp_path)
