"""Proof: reading is told from reciting, and unlearning is seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from validation_set import read_validation_lines, write, write_validation_set

from ownhand.errors import Refusal
from ownhand.evaluation.proof import find_problems, read_probes, summarise_probes

ROWS = [("p1", "мама мыла раму", "", "мама мыла раму"), ("p2", "добрый день", "", "добрый вень")]


def probe(name: str, image_id: str, truth: str, prediction: str, reader: str = "adapter") -> dict[str, str]:
    return {
        "probe": name,
        "reader": reader,
        "image_id": image_id,
        "picture": image_id,
        "truth": truth,
        "prediction": prediction,
    }


def summary_of(root: Path, probes: list[dict[str, str]]) -> dict[str, Any]:
    lines = read_validation_lines(write_validation_set(root, ROWS))
    write(root / "probes.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in probes))
    return summarise_probes(read_probes(root / "probes.jsonl"), lines)


READS = [
    probe("swapped", "00002", "мама мыла раму", "добрый день"),
    probe("swapped", "00003", "добрый день", "мама мыла раму"),
    probe("blank", "00002", "мама мыла раму", ""),
    probe("blank", "00003", "добрый день", ""),
    probe("printed", "printed/00", "Вход", "Вход", "base"),
    probe("printed", "printed/00", "Вход", "Вхол"),
]


def test_a_model_that_reads_is_compared_on_the_same_lines_and_gets_no_warning_for_reciting(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, READS)
    assert summary["reads"]["n_lines"] == 2
    assert summary["reads"]["cer"] == 1 / 25
    assert summary["reads"]["cer_blank_pictures"] == 1
    assert summary["reads"]["cer_swapped_pictures"] > 0.8
    assert set(find_problems(summary)) == {"EVAL-003"}


def test_a_model_that_recites_is_named(tmp_path: Path) -> None:
    readings = {f"{number:05d}": adapter for number, (*_, adapter) in enumerate(ROWS, start=2)}
    recited = [{**row, "prediction": readings[row["image_id"]]} for row in READS if row["image_id"] in readings]
    assert set(find_problems(summary_of(tmp_path, recited))) == {"EVAL-001", "EVAL-002"}


def test_texts_known_by_heart_without_any_error_are_reciting_too(tmp_path: Path) -> None:
    by_heart = [{**row, "prediction": row["truth"]} for row in READS if row["image_id"] == "00002"]
    assert summary_of(tmp_path, by_heart)["reads"]["cer"] == 0
    assert set(find_problems(summary_of(tmp_path, by_heart))) == {"EVAL-001", "EVAL-002"}


def test_only_the_lines_that_were_probed_are_compared(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, [READS[0], READS[2]])
    assert (summary["reads"]["n_lines"], summary["reads"]["cer"]) == (1, 0)


def test_unlearning_counts_from_the_base_model_and_relearning_is_no_problem(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, READS)
    assert summary["retention"] == {"n_lines": 1, "base_cer": 0, "adapter_cer": 0.25, "lost": 0.25}
    better = [{**row, "reader": {"base": "adapter", "adapter": "base"}[row["reader"]]} for row in READS[-2:]]
    assert find_problems(summary_of(tmp_path, better)) == {}


def test_without_swapped_pictures_or_printed_lines_there_is_no_number_and_no_warning(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, [READS[2]])
    assert summary["reads"]["cer_swapped_pictures"] is summary["retention"]["lost"] is None
    assert find_problems(summary) == {}


def test_a_missing_or_broken_file_names_the_stage(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="missing; run `dvc repro --force transcribe`"):
        read_probes(tmp_path / "probes.jsonl")
    write(tmp_path / "probes.jsonl", '{"probe": "x"}\n')
    with pytest.raises(Refusal, match="cannot be read: .*; run `dvc repro --force transcribe`"):
        read_probes(tmp_path / "probes.jsonl")
