"""The token store: nothing half or damaged is taken, and nothing that is not needed stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ownhand.files import hash_file, write_json
from ownhand.vision.token_store import TokenStore


def tokens(seed: int) -> torch.Tensor:
    return torch.randn(5, 8, generator=torch.Generator().manual_seed(seed))


def filled(folder: Path, keys: dict[str, int]) -> TokenStore:
    """A store with a shard for each key."""
    store = TokenStore(folder, shard_mb=1)
    for key, seed in keys.items():
        store.add(key, tokens(seed))
        store.flush()
    return store


def test_what_was_stored_is_there_for_the_next_run_and_what_was_pending_is_not(tmp_path: Path) -> None:
    store = filled(tmp_path, {"a": 1})
    store.add("b", tokens(2))  # killed before the flush
    (tmp_path / "half.safetensors.77.tmp").write_bytes(b"half")
    again = TokenStore(tmp_path, shard_mb=1)
    assert "a" in again and "b" not in again
    assert torch.equal(again.tokens("a"), tokens(1))


KEYS: dict[str, Any] = {
    "missing key": ["a", "c"],
    "no keys": [],
    "null": None,
    "text": "ab",
    "list": [["a"]],
    "number": [1],
}


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "manifest", "nested", "folder", "no manifest", *KEYS])
def test_a_damaged_shard_is_said_and_made_again_while_the_others_stay(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = filled(tmp_path, {"a": 1, "b": 2})
    shard = store.shards["a"].path
    whole = bytearray(shard.read_bytes())
    if damage == "flip":
        whole[-1] ^= 1
        shard.write_bytes(whole)
    elif damage == "cut":
        shard.write_bytes(whole[:-20])
    elif damage == "remove":
        shard.unlink()
    elif damage == "folder":
        shard.unlink()
        (shard / "in it").mkdir(parents=True)
    elif damage == "no manifest":
        shard.with_suffix(".json").unlink()
        shard.with_suffix(".json").mkdir()
    elif damage in KEYS:
        write_json(shard.with_suffix(".json"), {"sha256": hash_file(shard), "keys": KEYS[damage]})
    else:
        content = {"manifest": "{", "nested": "[" * 99_999}[damage]
        shard.with_suffix(".json").write_text(content, encoding="utf-8")
    again = TokenStore(tmp_path, shard_mb=1)
    assert "a" not in again and torch.equal(again.tokens("b"), tokens(2))
    assert "is damaged; it is removed" in capsys.readouterr().out
    again.add("a", tokens(1))
    again.flush()
    (tmp_path / "left").mkdir()
    again.tidy({"a", "b"}, limit_mb=1)
    assert torch.equal(TokenStore(tmp_path, shard_mb=1).tokens("a"), tokens(1))


def test_another_process_sees_what_was_added_after_a_refresh(tmp_path: Path) -> None:
    first, second = TokenStore(tmp_path, shard_mb=1), filled(tmp_path, {"a": 1})
    assert "a" in second and "a" not in first
    first.refresh()
    assert torch.equal(first.tokens("a"), tokens(1))


def test_what_nothing_needs_goes_and_a_limit_of_nothing_empties_the_store(tmp_path: Path) -> None:
    store = filled(tmp_path, {"a": 1, "b": 2, "c": 3})
    store.tidy({"a", "c"}, limit_mb=1)
    assert "b" not in store and {"a", "c"} <= TokenStore(tmp_path, shard_mb=1).shards.keys()
    store.tidy({"a", "c"}, limit_mb=0)
    assert list(tmp_path.iterdir()) == []
