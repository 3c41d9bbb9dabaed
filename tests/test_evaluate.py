"""The stage: numbers that follow from the predictions, files that are the same every time."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from validation_set import PARAMS, ROWS, read_predictions, write, write_predictions, write_validation_set

from ownhand.errors import Refusal
from ownhand.evaluation.others import keep_predictions
from stages.evaluate import evaluate

TABLES = ["rates", "leniency", "pages", "hands", "lengths", "scripts", "calibration", "review", "confusion_cells"]
OUTPUTS = (
    *("evaluation.json", "lines.csv", "confusions.csv", "report/index.html"),
    *(f"tables/{name}.csv" for name in TABLES),
)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def leaves(value: Any) -> list[Any]:
    return [leaf for part in value.values() for leaf in leaves(part)] if isinstance(value, dict) else [value]


def test_rates_are_sums_over_all_lines(tmp_path: Path) -> None:
    summary = evaluate(write_validation_set(tmp_path), PARAMS)
    characters = 14 + 6 + 11 + 13
    assert (summary["n_lines"], summary["n_characters"], summary["n_pages"]) == (4, characters, 3)
    assert summary["base"]["cer"] == round((2 + 2 + 11 + 10) / characters, 6)
    assert summary["adapter"]["cer"] == round(1 / characters, 6)
    assert summary["adapter"]["exact_match"] == 0.75
    assert (summary["base"]["runaway_rate"], summary["base"]["blank_rate"]) == (0.25, 0.25)
    base = summary["base"]
    assert base["insertions"] + base["deletions"] + base["substitutions"] == 25
    assert summary["difference"]["relative"] == round(24 / 25, 6)


def test_the_interval_holds_the_rate_and_the_p_value_is_a_probability(tmp_path: Path) -> None:
    summary = evaluate(write_validation_set(tmp_path), PARAMS)
    for name in ("base", "adapter", "difference"):
        assert summary[name]["cer_low"] <= summary[name]["cer"] <= summary[name]["cer_high"]
    assert summary["base"]["wer_low"] <= summary["base"]["wer"] <= summary["base"]["wer_high"]
    assert 0 < summary["difference"]["p_value"] <= 1


def test_below_min_pages_there_is_no_interval(tmp_path: Path) -> None:
    summary = evaluate(write_validation_set(tmp_path), PARAMS.model_copy(update={"min_pages": 4}))
    ends = [
        summary[name][f"{rate}_{end}"]
        for name in ("base", "adapter")
        for rate in ("cer", "wer")
        for end in ("low", "high")
    ]
    assert ends == [None] * 8
    assert summary["difference"]["cer_low"] is summary["difference"]["p_value"] is None


def test_one_validation_line_works_like_any_number(tmp_path: Path) -> None:
    summary = evaluate(write_validation_set(tmp_path, ROWS[:1]), PARAMS)
    assert (summary["n_lines"], summary["n_pages"], summary["adapter"]["cer"]) == (1, 1, 0)
    assert summary["adapter"]["cer_low"] is None


def test_a_page_of_several_lines_is_one_sample(tmp_path: Path) -> None:
    page = "Миновало почти десятилетие (deep neural network)\n" * 13
    rows = [("p1", page.strip(), page.replace("\n", " ").upper(), page.replace("почти", "пошти"))]
    summary = evaluate(write_validation_set(tmp_path, rows), PARAMS)
    assert summary["n_characters"] == 13 * 49 - 1
    assert summary["adapter"]["substitutions"] == 13


def test_the_main_file_holds_numbers_and_nulls_and_no_lists(tmp_path: Path) -> None:
    evaluate(write_validation_set(tmp_path), PARAMS)
    content = json.loads((tmp_path / "metrics/evaluation.json").read_text(encoding="utf-8"))
    assert all(leaf is None or isinstance(leaf, int | float) for leaf in leaves(content))


def test_two_perfect_readers_give_no_relative_reduction(tmp_path: Path) -> None:
    summary = evaluate(write_validation_set(tmp_path, [(page, text, text, text) for page, text, _, _ in ROWS]), PARAMS)
    assert summary["base"]["cer"] == summary["difference"]["cer"] == 0
    assert summary["difference"]["relative"] is None
    assert summary["difference"]["p_value"] == 1


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        evaluate(write_validation_set(tmp_path / name), PARAMS)
        contents.append([(tmp_path / name / "metrics" / output).read_bytes() for output in OUTPUTS])
    assert contents[0] == contents[1]
    assert b"\r" not in b"".join(contents[0])


def test_another_seed_moves_the_interval_and_not_the_rate(tmp_path: Path) -> None:
    rows = [(f"p{number}", "мама мыла раму", "мама мыла раму"[number:], "мама мыла раму") for number in range(9)]
    write_validation_set(tmp_path, rows)
    first, second = (evaluate(tmp_path, PARAMS.model_copy(update={"seed": seed})) for seed in (1, 2))
    assert first["base"]["cer"] == second["base"]["cer"]
    assert first["base"]["cer_low"] != second["base"]["cer_low"]


def test_every_line_stands_in_the_table_with_its_texts_as_they_were_read(tmp_path: Path) -> None:
    evaluate(write_validation_set(tmp_path, [*ROWS, ("p4", 'a,"b"\nc', "x\ny", 'a,"b"\nc')]), PARAMS)
    rows = rows_of(tmp_path / "metrics/lines.csv")
    assert [row["image_id"] for row in rows] == ["00002", "00003", "00004", "00005", "00006"]
    assert (rows[4]["truth"], rows[4]["base_prediction"]) == ('a,"b"\nc', "x\ny")
    assert (rows[3]["base_runaway"], rows[3]["adapter_runaway"]) == ("true", "false")
    assert float(rows[1]["adapter_cer"]) == round(1 / 6, 6)


def test_confusions_are_the_adapters(tmp_path: Path) -> None:
    evaluate(write_validation_set(tmp_path), PARAMS)
    assert rows_of(tmp_path / "metrics/confusions.csv") == [{"truth": "5", "prediction": "6", "count": "1"}]


def test_the_tables_hold_what_the_main_file_sums_up(tmp_path: Path) -> None:
    summary = evaluate(write_validation_set(tmp_path), PARAMS)
    tables = {name: rows_of(tmp_path / f"metrics/tables/{name}.csv") for name in TABLES}
    assert {path.stem for path in (tmp_path / "metrics/tables").glob("*.csv")} == set(TABLES)
    cer = next(row for row in tables["rates"] if (row["reader"], row["rate"]) == ("base", "cer"))
    assert (float(cer["value"]), float(cer["low"])) == (summary["base"]["cer"], summary["base"]["cer_low"])
    assert float(cer["minus_adapter"]) == summary["difference"]["cer"]
    assert float(tables["leniency"][0]["adapter_cer"]) == summary["adapter"]["cer"]
    assert float(tables["leniency"][-1]["adapter_cer"]) == summary["adapter"]["cer_lenient"]
    assert tables["calibration"] == tables["review"] == []  # four lines are too few


def test_refused_predictions_leave_the_previous_results_alone(tmp_path: Path) -> None:
    evaluate(write_validation_set(tmp_path), PARAMS)
    before = [(tmp_path / "metrics" / output).read_bytes() for output in OUTPUTS]
    write_predictions(tmp_path, "adapter", read_predictions(tmp_path, "adapter")[1:])
    with pytest.raises(Refusal, match="no prediction for: 00002"):
        evaluate(tmp_path, PARAMS)
    assert [(tmp_path / "metrics" / output).read_bytes() for output in OUTPUTS] == before


def others_file(path: Path, readings: Sequence[str]) -> Path:
    rows = [{"image_id": f"{n:05d}", "prediction": text, "extra": n} for n, text in enumerate(readings, start=2)]
    write(path, "\ufeff" + "".join(json.dumps(row) + "\n" for row in rows))  # as an editor on Windows saves it
    return path


def test_another_reader_stands_beside_base_and_adapter_everywhere(tmp_path: Path) -> None:
    root = write_validation_set(tmp_path)
    alone = evaluate(root, PARAMS)
    keep_predictions(root, others_file(tmp_path / "out.jsonl", [truth for _, truth, _, _ in ROWS]), "tesseract-5.3")
    summary = evaluate(root, PARAMS)
    assert {name: summary[name] for name in alone} == alone
    assert summary["others"]["tesseract-5.3"]["cer"] == 0
    assert rows_of(tmp_path / "metrics/lines.csv")[0]["tesseract-5.3_prediction"] == ROWS[0][1]
    rates = rows_of(tmp_path / "metrics/tables/rates.csv")
    row = next(row for row in rates if (row["reader"], row["rate"]) == ("tesseract-5.3", "cer"))
    assert float(row["minus_adapter"]) == pytest.approx(-summary["adapter"]["cer"])
    assert "tesseract-5.3_cer" in rows_of(tmp_path / "metrics/tables/scripts.csv")[0]


def run_alone(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONUTF8": "1"}
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", *(command or ["stages.evaluate"])],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def test_alone_it_ends_with_one_line_and_never_loads_torch(tmp_path: Path) -> None:
    ended = run_alone(write_validation_set(tmp_path))
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.startswith("evaluate: read 2 x 4 predictions") and ended.stdout.count("\n") == 1
    imported = set(re.findall(r"\|\s+(\w+)$", ended.stderr, re.MULTILINE))
    assert "jinja2" in imported and "torch" not in imported


def test_alone_a_refusal_is_a_message_and_exit_code_1(tmp_path: Path) -> None:
    write_validation_set(tmp_path)
    write_predictions(tmp_path, "base", [])
    ended = run_alone(tmp_path)
    assert ended.returncode == 1
    assert "no prediction for: 00002, 00003, 00004, 00005" in ended.stderr and "Traceback" not in ended.stderr


def test_lines_whose_text_was_trained_on_are_marked_in_the_table_and_told_in_the_report(tmp_path: Path) -> None:
    rows = [*ROWS, ("p3", "train line", "rain", "train line")]
    evaluate(write_validation_set(tmp_path, rows), PARAMS)
    assert [row["text_was_trained"] for row in rows_of(tmp_path / "metrics/lines.csv")] == [*["false"] * 4, "true"]
    report = (tmp_path / "metrics/report/index.html").read_text(encoding="utf-8").replace("\u00a0", " ")
    assert "1 line of 5 has a text that was trained on, too" in report
    assert "CER of the lines whose text was not trained on" in report
    rates = {row["rate"] for row in rows_of(tmp_path / "metrics/tables/rates.csv")}
    assert "cer_unseen_texts" in rates
    evaluate(write_validation_set(tmp_path), PARAMS)
    assert "trained on, too" not in (tmp_path / "metrics/report/index.html").read_text(encoding="utf-8")
