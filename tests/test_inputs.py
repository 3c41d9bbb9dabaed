"""What is edited while a stage runs is never recorded as what its result was made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from ownhand.errors import Refusal
from ownhand.inputs import Inputs

PIPELINE = """
stages:
  prepare:
    cmd: python -m stages.prepare
    deps: [data/raw, base.json]
    params: [prepare, train.max_tokens]
"""
PARAMS = "prepare: {val_share: 0.2}\ntrain: {max_tokens: 100, epochs: 3.0}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data/raw/page/__pycache__").mkdir(parents=True)
    (tmp_path / "data/raw/page/1.jpg").write_bytes(b"picture")
    (tmp_path / "data/raw/annotations.csv").write_text("1.jpg,text")
    (tmp_path / "base.json").write_text("{}")
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / ".dvcignore").write_text("# names\n._*\n__pycache__/\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "content", "named"),
    [
        ("data/raw/annotations.csv", "1.jpg,texts", "data/raw/annotations.csv"),
        ("data/raw/page/2.jpg", "new", "data/raw/page/2.jpg"),
        ("base.json", "{ }", "base.json"),
        ("params.yaml", PARAMS.replace("0.2", "0.3"), "prepare in params.yaml"),
        ("params.yaml", PARAMS.replace("100", "90"), "train.max_tokens in params.yaml"),
        ("params.yaml", "prepare: [", "params.yaml"),
    ],
)
def test_an_edit_under_way_is_refused_by_name(folder: Path, path: str, content: str, named: str) -> None:
    inputs = Inputs.of("prepare")
    inputs.refuse_edits()
    (folder / path).write_text(content)
    with pytest.raises(Refusal, match=named):
        inputs.refuse_edits()


def test_what_was_removed_is_named_and_of_many_the_first(folder: Path) -> None:
    inputs = Inputs.of("prepare")
    (folder / "base.json").unlink()
    for number in range(5):
        (folder / f"data/raw/{number}.jpg").touch()
    with pytest.raises(
        Refusal, match=r"^base\.json, data/raw/0\.jpg, data/raw/1\.jpg and 3 more changed while prepare ran"
    ):
        inputs.refuse_edits()


def test_what_is_of_no_concern_to_the_stage_may_be_edited(folder: Path) -> None:
    inputs = Inputs.of("prepare")
    (folder / "params.yaml").write_text("# for the next run\n" + PARAMS.replace("3.0", "9.0"))
    (folder / "data/other.csv").write_text("x")
    (folder / "data/raw/page/__pycache__/x.pyc").write_text("x")
    (folder / "data/raw/._1.jpg").write_text("x")
    inputs.refuse_edits()


def test_without_a_pipeline_nothing_is_recorded_and_nothing_refused(folder: Path) -> None:
    (folder / "dvc.yaml").unlink()
    inputs = Inputs.of("prepare")
    (folder / "base.json").write_text("other")
    inputs.refuse_edits()


@pytest.mark.parametrize("stage", ["prepare", "check", "encode", "train", "transcribe", "cross_validate", "evaluate"])
def test_every_stage_looks_at_its_own_inputs_first_and_last(stage: str) -> None:
    """Two look once more, where they have read what the key of their unfinished work is made of."""
    source = (Path(__file__).parent.parent / f"stages/{stage}.py").read_text(encoding="utf-8")
    assert source.count(f'Inputs.of("{stage}")') == 1
    assert source.count("inputs.refuse_edits()") == (2 if stage in ("train", "transcribe") else 1)
