"""Cross-validation in numbers: every line counts once, pages are drawn, and what does not fit is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from validation_set import PARAMS, ROWS, write, write_cross_validation, write_validation_set

from ownhand.errors import Refusal
from ownhand.evaluation.cross_validation import compare_with_validation, word_cross_validation
from stages.evaluate import evaluate

FOLDS = "data/cross_validation/folds.json"


def rewrite(root: Path, **changes: Any) -> None:
    content = json.loads((root / FOLDS).read_text(encoding="utf-8"))
    write(root / FOLDS, json.dumps(content | changes))


def crossed(root: Path, folds: int = 3, **changes: Any) -> dict[str, Any]:
    return evaluate(root, PARAMS.model_copy(update={"folds": folds, **changes}))


def test_the_rate_is_that_of_all_lines_each_counted_once(tmp_path: Path) -> None:
    root = write_cross_validation(write_validation_set(tmp_path), 3, read_in_training="train")
    found = crossed(root)["cross_validation"]
    characters = sum(len(truth) for _, truth, _, _ in ROWS) + len("train line")
    assert (found["folds"], found["n_lines"], found["n_pages"], found["n_characters"]) == (3, 5, 4, characters)
    assert found["adapter"]["cer"] == pytest.approx((1 + len(" line")) / characters, abs=1e-6)
    assert found["base"]["cer_low"] < found["base"]["cer"] < found["base"]["cer_high"]
    assert found["difference"]["cer"] == pytest.approx(found["base"]["cer"] - found["adapter"]["cer"], abs=2e-6)
    assert 0 < found["difference"]["p_value"] <= 1


def test_folds_stand_in_a_table_and_add_up_to_the_whole(tmp_path: Path) -> None:
    found = crossed(write_cross_validation(write_validation_set(tmp_path), 3))["cross_validation"]
    with (tmp_path / "metrics/tables/folds.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["fold"] for row in rows] == ["1", "2", "3"] == list(found["by_fold"])
    assert sum(int(row["lines"]) for row in rows) == found["n_lines"]
    assert sum(int(row["pages"]) for row in rows) == found["n_pages"]
    errors = sum(float(row["adapter_cer"]) * int(row["characters"]) for row in rows)
    assert errors / found["n_characters"] == pytest.approx(found["adapter"]["cer"], abs=1e-5)
    assert [float(row["adapter_cer"]) for row in rows] == [one["adapter_cer"] for one in found["by_fold"].values()]
    assert (rows[1]["val_loss"], rows[1]["trained_lines"], rows[1]["optimizer_steps"]) == ("0.5", "4", "7")


def test_without_folds_nothing_is_read_written_or_changed(tmp_path: Path) -> None:
    root = write_validation_set(tmp_path)
    write(root / FOLDS, json.dumps({"folds": 0}))
    alone = evaluate(root, PARAMS)
    kept = {name: (root / "metrics" / name).read_bytes() for name in ("evaluation.json", "lines.csv")}
    with_folds = crossed(write_cross_validation(root, 2), 2)
    assert {name: with_folds[name] for name in alone} == alone and "cross_validation" not in alone
    assert (root / "metrics/lines.csv").read_bytes() == kept["lines.csv"]
    assert (root / "metrics/tables/folds.csv").exists()
    assert evaluate(root, PARAMS) == alone
    assert (root / "metrics/evaluation.json").read_bytes() == kept["evaluation.json"]
    assert not (root / "metrics/tables/folds.csv").exists()


def test_few_pages_have_a_rate_and_no_interval(tmp_path: Path) -> None:
    found = crossed(write_cross_validation(write_validation_set(tmp_path), 2), 2, min_pages=5)["cross_validation"]
    assert found["adapter"]["cer"] > 0
    assert found["adapter"]["cer_low"] is found["difference"]["p_value"] is None


def test_what_does_not_fit_is_refused_with_the_stage_to_run(tmp_path: Path) -> None:
    root = write_validation_set(tmp_path)
    with pytest.raises(Refusal, match=r"folds.json is missing, but evaluate.folds is 3; run `dvc repro"):
        crossed(root)
    write_cross_validation(root, 2)
    with pytest.raises(Refusal, match="is of 2 folds, evaluate.folds is 3"):
        crossed(root)
    records = json.loads((root / FOLDS).read_text(encoding="utf-8"))["records"]
    rewrite(root, records=[records[0], records[0]])
    with pytest.raises(Refusal, match="does not hold out each sample of metadata.json once"):
        crossed(root, 2)
    rewrite(root, records=[{"fold": 1}])
    with pytest.raises(Refusal, match="folds.json cannot be read: Field required"):
        crossed(root, 2)
    rewrite(root, records=records)
    write(root / "data/cross_validation/adapter.jsonl", "")
    with pytest.raises(Refusal, match=r"(?s)force cross_validate.*no prediction for: 00001, 00002"):
        crossed(root, 2)


@pytest.mark.parametrize(
    ("cer", "low", "high", "said"),
    [
        (0.05, 0.02, 0.08, "easier"),
        (0.4, 0.35, 0.5, "harder"),
        (0.4, None, None, None),
        (0.2, 0.1, 0.3, None),
        (0.05, 0.0, 0.21, None),  # few pages, a wide interval: chance
    ],
)
def test_unusual_validation_pages_are_told(cer: float, low: float | None, high: float | None, said: str | None) -> None:
    rates = {"cer": 0.2, "cer_low": 0.1, "cer_high": 0.3}
    folds = {"adapter": rates, "base": rates, "n_pages": 9, "folds": 3}
    summary: dict[str, Any] = {"adapter": {"cer": cer, "cer_low": low, "cer_high": high}, "cross_validation": folds}
    found = compare_with_validation(summary)
    assert found is None if said is None else found is not None and f"seem {said} than most" in found
    assert len(word_cross_validation(summary)) == (1 if said is None else 2)
    folds["adapter"] = rates | {"cer_low": None, "cer_high": None}
    assert compare_with_validation(summary) is None
    assert word_cross_validation({"adapter": summary["adapter"]}) == []


def test_texts_that_the_adapter_of_a_fold_was_trained_on_are_counted_apart(tmp_path: Path) -> None:
    rows = [*ROWS, ("p4", "Добрый день!", "добр день", "добрый день"), ("p2", "Ещё строка", "ещё", "Ещё строка")]
    alone = crossed(write_cross_validation(write_validation_set(tmp_path / "alone", ROWS), 4), 4)["cross_validation"]
    found = crossed(write_cross_validation(write_validation_set(tmp_path / "more", rows), 5), 5)["cross_validation"]
    assert alone["n_lines_trained_texts"] == 0
    assert alone["adapter"]["cer_unseen_texts"] == alone["adapter"]["cer"]
    assert found["n_lines_trained_texts"] == 2  # "добрый день" on p2 and on p4, each trained on without the other
    characters = sum(len(truth) for _, truth, _, _ in rows) + len("train line") - len("добрый деньДобрый день!")
    assert found["adapter"]["cer_unseen_texts"] == pytest.approx(1 / characters, abs=1e-6)
    assert found["adapter"]["cer"] > found["adapter"]["cer_unseen_texts"]
