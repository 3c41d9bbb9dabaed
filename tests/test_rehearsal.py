"""Rehearsal: printed lines train beside the hand, everywhere that an adapter is trained, and count nowhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT, edit_params, written

from ownhand.checks.run import inspect_run
from ownhand.images import open_image
from ownhand.params import read_params
from ownhand.samples import read_metadata, write_metadata
from ownhand.training.run import prepare_datasets
from ownhand.vision.features import FeatureCache
from ownhand.vision.probes import printed_lines
from ownhand.vision.rehearsal import is_rehearsal, possible_samples, rehearsal_samples
from stages import cross_validate, encode, train


def test_lines_are_unlike_each_other_and_each_is_as_large_as_its_picture() -> None:
    lines = possible_samples(0.5, 100)
    assert len({line.text for line in lines}) == len({line.sha256 for line in lines}) == len(lines) == 48
    assert all(open_image(Path(line.image_path)).size == (line.width, line.height) for line in lines)
    assert all(is_rehearsal(line.image_id) and line.split == "train" for line in lines)
    there = {path.as_posix() for path in Path(lines[0].image_path).parent.glob("*.jpg")}
    assert there == {line.image_path for line in lines}


def test_no_word_of_five_letters_is_measured_and_rehearsed() -> None:
    def long_words(text: str) -> set[str]:
        return {word for word in text.lower().split() if len(word) > 4}

    measured = " ".join(line.text for line in printed_lines())
    hand = (ROOT / "demo/texts/hand.tsv").read_text(encoding="utf-8")
    rehearsed = long_words(" ".join(line.text for line in possible_samples(0.5, 100)))
    assert not rehearsed & long_words(measured)
    assert not rehearsed & long_words(hand)


@pytest.mark.parametrize(("share", "lines", "expected"), [(0.0, 500, 0), (0.14, 3, 0), (0.14, 20, 3), (0.14, 500, 24)])
def test_the_share_is_of_all_that_is_trained_on(share: float, lines: int, expected: int) -> None:
    assert len(rehearsal_samples(share, lines * [written("", "p1", "слово")])) == expected


def test_the_script_that_the_hand_shows_less_of_is_rehearsed_and_none_that_was_not_encoded() -> None:
    russian, french = written("", "p1", "Был в кафе «Paris»"), written("", "p1", "Été à Москва, 1912, chez nous")
    possible = {line.image_id for line in possible_samples(0.25, 6)}
    for hand, expected in ((russian, "latin"), (french, "cyrillic")):
        rehearsed = [line.image_id for line in rehearsal_samples(0.25, 6 * [hand])]
        assert rehearsed == [f"rehearsal/{expected}-00", f"rehearsal/{expected}-01"] and possible.issuperset(rehearsed)


@pytest.fixture
def workspace(stage_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four lines on four pages, three of them for training, and three rehearsal lines beside."""
    edit_params(stage_folder, "encode", copies=1)
    edit_params(stage_folder, "train", rehearsal_share=0.5, epochs=1.0)
    monkeypatch.chdir(stage_folder)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return stage_folder


@pytest.mark.parametrize("targets", [["attention"], ["projector"]], ids=["from the cache", "from pictures"])
def test_they_train_with_their_copies_and_are_told_apart(workspace: Path, targets: list[str]) -> None:
    edit_params(workspace, "train", lora_targets=targets)
    encode.main()
    datasets = prepare_datasets(read_params(), read_metadata(), FeatureCache(train.FEATURES))
    rehearsed = [example.key for example in datasets.train.examples if is_rehearsal(example.image_id)]
    names = [line.image_id for line in rehearsal_samples(0.5, [one for one in read_metadata() if one.split == "train"])]
    assert rehearsed == [key for name in names for key in (name, f"{name}~1")] and len(names) == 3
    assert not any(
        is_rehearsal(one.image_id) for one in datasets.train.without_copies(9).examples + datasets.val.examples
    )
    assert all(datasets.train[n] for n in range(len(datasets.train)))
    train.main()
    metrics = json.loads(train.METRICS.read_text(encoding="utf-8"))
    assert (metrics["train_lines"], metrics["rehearsal_lines"], metrics["train_examples"]) == (3, 3, 12)
    foretold = next(one.seen for one in inspect_run(read_params()) if one.code == "CONF-014")
    assert f"= {metrics['optimizer_steps']} " in f"{foretold} " and metrics["optimizer_steps"] == 6


@pytest.mark.slow
def test_every_fold_trains_on_them_and_none_holds_them_out(workspace: Path) -> None:
    edit_params(workspace, "evaluate", folds=2)
    write_metadata([replace(one, page=one.image_id, group=one.image_id) for one in read_metadata()])
    encode.main()
    cross_validate.main()
    records = json.loads((cross_validate.OUTPUT / "folds.json").read_text(encoding="utf-8"))["records"]
    assert sorted(name for record in records for name in record["held_out"]) == [
        one.image_id for one in read_metadata()
    ]
    assert [record["optimizer_steps"] for record in records] == [4, 4]  # 2 + 2 lines and as many copies, in pairs
