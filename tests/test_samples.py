"""The samples and their split: every finding provoked."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ownhand.checks.findings import Finding
from ownhand.checks.lengths import Lengths
from ownhand.checks.samples import SampleFacts, check_samples, find_missing, read_rejections
from ownhand.samples import Sample


def sample(number: int, text: str, split: str, page: str = "") -> Sample:
    name = f"{number}.jpg"
    return Sample(f"{number:05d}", name, text, name, page or f"p{number}", "", 600, 60, split, str(number))


TRAIN = [
    sample(1, "Миновало почти десятилетие с тех пор", "train"),
    sample(2, "вода и хлеб", "train"),
    sample(3, "ещё один цвет", "train"),
]
VAL = [sample(4, "тепло и тихо", "val"), sample(5, "солнце село", "val")]


def facts(samples: list[Sample] | None = None, **changes: Any) -> SampleFacts:
    good = SampleFacts(
        samples=TRAIN + VAL if samples is None else samples,
        rejected=Counter(),
        missing=[],
        in_bytes=Counter(),
        lost=(),
        lengths=Lengths(
            each=(), longest=300, sample=TRAIN[0], vision=273, labels=20, answer=20, prompt=280, aspect=5.0
        ),
        min_pages=2,
        folds=0,
        max_tokens=512,
    )
    return replace(good, **changes)


def found(case: SampleFacts) -> dict[str, Finding]:
    return {finding.code: finding for finding in check_samples(case) if finding.level != "ready"}


def test_a_clean_split_has_nothing_to_mend() -> None:
    assert found(facts()) == {}
    counts = next(one.seen for one in check_samples(facts()) if one.code == "DATA-001")
    assert counts == (
        "training: 3 lines on 3 pages, 60 characters; validation: 2 lines on 2 pages, 23 characters; 1 hand"
    )


@pytest.mark.parametrize(
    ("case", "code", "level"),
    [
        (facts([]), "DATA-001", "blocker"),
        (facts(TRAIN), "DATA-001", "blocker"),
        (facts(TRAIN + VAL[:1]), "DATA-002", "warning"),
        (facts(min_pages=3), "DATA-002", "warning"),
        (facts([*TRAIN, *VAL, sample(6, "вода  и хлеб", "val")]), "DATA-003", "warning"),
        (facts([*TRAIN, *VAL, sample(6, "Миновало почти десятилетие", "val")]), "DATA-004", "warning"),
        (facts([*TRAIN, *VAL, sample(6, "вот Миновало почти десятилетие с тех пор", "val")]), "DATA-004", "warning"),
        (facts([*TRAIN, *VAL, sample(6, "хлеб № 5", "val")]), "DATA-007", "warning"),
        (facts(in_bytes=Counter({"ё": 3})), "DATA-008", "warning"),
        (facts(lost=("☃",)), "DATA-009", "blocker"),
        (facts(rejected=Counter({"image not found": 2})), "DATA-010", "warning"),
        (facts(max_tokens=299), "DATA-011", "blocker"),
        (facts(missing=[TRAIN[1]]), "DATA-012", "blocker"),
        (facts([replace(one, group=one.image_id) for one in TRAIN + VAL], folds=6), "DATA-013", "blocker"),
        (facts(folds=2), "DATA-013", "blocker"),  # metadata.json without groups
        (facts(unfit_files={"a.jpg": "a FIFO"}), "DATA-014", "blocker"),
    ],
)
def test_each_fault_is_found_and_nothing_else(case: SampleFacts, code: str, level: str) -> None:
    findings = found(case)
    assert {name: one.level for name, one in findings.items()} == {code: level}
    assert findings[code].seen and findings[code].remedy


def test_a_leak_names_both_pictures_and_their_sides() -> None:
    seen = found(facts([*TRAIN, *VAL, sample(6, "Миновало почти десятилетие", "val")]))["DATA-004"].seen
    assert "the text of 6.jpg (val) stands inside that of 1.jpg (train)" in seen


def test_texts_on_one_side_are_no_leak() -> None:
    assert found(facts([*TRAIN, *VAL, sample(6, "Миновало почти десятилетие", "train")])) == {}


def test_few_texts_that_were_trained_on_are_mentioned_without_a_warning() -> None:
    val = [sample(number, f"строка {number}", "val") for number in range(10, 29)]
    (finding,) = [
        one for one in check_samples(facts([*TRAIN, *val, sample(6, "Вода и хлеб", "val")])) if one.code == "DATA-003"
    ]
    assert finding.level == "ready"
    assert finding.seen.startswith(
        '1 of 20 validation lines have a text that is trained on, too, such as "Вода и хлеб"'
    )


def test_what_is_no_file_is_found_without_any_sample() -> None:
    unfit = {f"{number}.jpg": "a link to nothing (x)" for number in range(7)}
    findings = found(facts([], unfit_files=unfit))
    assert findings.keys() == {"DATA-001", "DATA-014"}
    assert findings["DATA-014"].seen.startswith("0.jpg is a link to nothing (x), ")
    assert findings["DATA-014"].seen.endswith("and 2 more")


def test_unseen_and_lost_characters_are_named() -> None:
    seen = found(facts([*TRAIN, *VAL, sample(6, "хлеб № 5", "val")]))["DATA-007"].seen
    assert "№" in seen and "5" in seen
    assert "SNOWMAN" in found(facts(lost=("☃",)))["DATA-009"].seen


def test_few_characters_in_bytes_are_mentioned_without_a_warning() -> None:
    long = [replace(TRAIN[0], text="а" * 500), *TRAIN[1:], *VAL]
    finding = next(one for one in check_samples(facts(long, in_bytes=Counter({"ё": 1}))) if one.code == "DATA-008")
    assert finding.level == "ready" and "ё" in finding.seen


def test_one_validation_line_makes_an_interval_impossible() -> None:
    assert "an interval is impossible" in found(facts(TRAIN + VAL[:1]))["DATA-002"].seen


def test_folds_that_can_be_made_say_what_they_cost_and_few_pages_recommend_them() -> None:
    grouped = [replace(one, group=one.image_id) for one in TRAIN + VAL]
    finding = next(one for one in check_samples(facts(grouped, folds=2)) if one.code == "DATA-013")
    assert finding.level == "ready"
    assert finding.seen == "2 trainings more: each of 5 pages is read once; at least 2 lines train each adapter"
    assert "evaluate.folds" in found(facts(min_pages=3))["DATA-002"].remedy
    assert "evaluate.folds" not in found(facts(grouped, min_pages=3, folds=2))["DATA-002"].remedy


def test_everything_wrong_is_said_at_once() -> None:
    broken = facts(
        [*TRAIN, sample(4, "вода и хлеб", "val", page="p1")],
        rejected=Counter({"empty text": 1, "text too long": 2}),
        missing=[TRAIN[0]],
        lost=("☃",),
        max_tokens=10,
    )
    assert found(broken).keys() == {
        "DATA-002",
        "DATA-003",
        "DATA-009",
        "DATA-010",
        "DATA-011",
        "DATA-012",
    }
    assert "1 x empty text, 2 x text too long" in found(broken)["DATA-010"].seen


def test_rejections_are_counted_by_kind(tmp_path: Path) -> None:
    path = tmp_path / "rejected.csv"
    path.write_text("file,row,reason\na.jpg,2,text too long: 9 tokens\nb.jpg,3,text too long: 8\n")
    assert read_rejections(path) == {"text too long": 2}
    assert read_rejections(tmp_path / "none.csv") == {}


def test_a_lost_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").touch()
    samples = [replace(one, image_path=f"{tmp_path}/{one.image_path}") for one in TRAIN[:2]]
    assert find_missing(samples) == [samples[1]]
