"""Presets: written into params.yaml whole, with its comments, and without losing what a person has set."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from ownhand.errors import Refusal
from ownhand.params import ParameterError, Params, flatten, read_params
from ownhand.presets import DEFAULTS, Preset, apply, choose, describe, find_edits, read_presets, render

ROOT = Path(__file__).parent.parent
PRESETS = read_presets(ROOT / "presets")
GPU = choose("gpu-24gb", PRESETS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A params.yaml of the defaults, with a comment of somebody's own."""
    file = tmp_path / "params.yaml"
    file.write_text(render(Params()) + "# my own remark\n", encoding="utf-8")
    return file


def put(preset: Preset, path: Path, keep: bool = False, force: bool = False) -> list[str]:
    return apply(preset, PRESETS, keep=keep, force=force, path=path)


def edit(path: Path, key: str, value: str) -> None:
    text, count = re.subn(rf"^( +{key}: )\S+", rf"\g<1>{value}", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert count == 1, key
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_each_preset_is_written_whole_and_the_way_back_leads_to_the_same_file(preset: Preset, path: Path) -> None:
    before = path.read_text(encoding="utf-8")
    put(preset, path)
    assert flatten(read_params(path)) == preset.everything
    text = path.read_text(encoding="utf-8")
    assert "# my own remark" in text
    comments = [line.partition("#")[2].strip() for line in before.splitlines()]
    assert [line.partition("#")[2].strip() for line in text.splitlines()] == comments
    put(choose(DEFAULTS, PRESETS), path)
    assert flatten(read_params(path)) == flatten(Params())


def test_what_changes_is_said_with_its_reason(path: Path) -> None:
    said = put(GPU, path)
    before, after = flatten(Params())["train.epochs"], GPU.everything["train.epochs"]
    assert f"train.epochs: {before} -> {after}  # {GPU.reasons['train.epochs']}" in said
    assert put(GPU, path) == []


def test_from_one_preset_to_another_nothing_of_the_first_is_left(path: Path) -> None:
    put(choose("gpu-8gb", PRESETS), path)
    put(GPU, path)
    assert flatten(read_params(path)) == GPU.everything


def test_values_of_ones_own_are_refused_by_name_and_nothing_is_written(path: Path) -> None:
    put(GPU, path)
    edit(path, "epochs", "12.5")
    edit(path, "val", "val.txt")
    before = path.read_bytes()
    with pytest.raises(Refusal, match=r"(?s)2 value.*val: val.txt \(gpu-8gb has null\).*epochs: 12.5"):
        put(choose("gpu-8gb", PRESETS), path)
    assert path.read_bytes() == before


def test_they_are_kept_or_given_up_where_one_says_so(path: Path) -> None:
    edit(path, "epochs", "12.5")
    put(GPU, path, keep=True)
    assert flatten(read_params(path)) == GPU.everything | {"train.epochs": 12.5}
    said = put(GPU, path, force=True)
    assert [line.partition("  #")[0] for line in said] == [f"train.epochs: 12.5 -> {GPU.everything['train.epochs']}"]
    assert flatten(read_params(path)) == GPU.everything


def test_a_value_that_the_preset_has_too_is_no_obstacle(path: Path) -> None:
    edit(path, "dtype", GPU.everything["model.dtype"])
    put(GPU, path)
    assert flatten(read_params(path)) == GPU.everything


def test_what_is_missing_comes_back_in_its_place_and_with_its_comment(path: Path) -> None:
    whole = path.read_text(encoding="utf-8")
    lines = [line for line in whole.splitlines(keepends=True) if "lora_r:" not in line and "device:" not in line]
    path.write_text("".join(lines), encoding="utf-8")
    put(choose(DEFAULTS, PRESETS), path)
    assert path.read_text(encoding="utf-8") == whole
    start, end = whole.index("transcribe:"), whole.index("evaluate:")
    path.write_text(whole[:start] + whole[end:], encoding="utf-8")
    put(choose(DEFAULTS, PRESETS), path)
    assert read_params(path) == Params()


def test_an_unknown_key_is_an_edit_that_cannot_be_kept(path: Path) -> None:
    edit(path, "lora_alpha", r"5\n  lora_alfa: 32")
    with pytest.raises(Refusal, match=r"train.lora_alfa: 32 \(unknown\)"):
        put(GPU, path)
    with pytest.raises(ParameterError, match=r"did you mean train.lora_alpha\?"):
        put(GPU, path, keep=True)
    assert "train.lora_alfa: 32 is gone" in put(GPU, path, force=True)
    assert flatten(read_params(path)) == GPU.everything


@pytest.mark.parametrize("content", [b"train: [", b"- a list", b"", "# Доля".encode("cp1251")])
def test_a_file_that_cannot_be_read_is_replaced_only_by_force(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ParameterError, match="--force"):
        put(GPU, path, keep=True)
    assert path.read_bytes() == content
    put(GPU, path, force=True)
    assert flatten(read_params(path)) == GPU.everything


def test_without_a_file_the_whole_of_it_is_written_with_the_meanings(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    put(choose(DEFAULTS, PRESETS), path)
    assert path.read_text(encoding="utf-8") == render(Params())


def test_the_list_says_what_is_set_now(path: Path) -> None:
    assert describe(PRESETS, path).endswith(" is cpu-demo")
    put(GPU, path)
    edit(path, "epochs", "12.5")
    assert describe(PRESETS, path).endswith("is gpu-24gb with 1 value(s) of your own:\n  train.epochs: 12.5")
    assert find_edits(PRESETS, path).base is GPU


def test_a_wrong_name_and_a_wrong_preset_are_named(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"no preset 'gpu-24'; did you mean gpu-24gb\? There are cpu-demo, "):
        choose("gpu-24", PRESETS)
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    (tmp_path / "presets/mine.yaml").write_text("# Mine.\n\ntrain:\n  epochs: -1.0 # why\n", encoding="utf-8")
    with pytest.raises(ParameterError, match=r"mine\.yaml: 1 problem\(s\)\n  train.epochs: "):
        read_presets(tmp_path / "presets")
    with pytest.raises(Refusal, match="holds no preset"):
        read_presets(tmp_path)
