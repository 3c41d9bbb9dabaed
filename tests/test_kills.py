"""Killed at its renames and at random moments, the pipeline ends with the files of an uninterrupted run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks import kills


@pytest.mark.slow
@pytest.mark.skipif("KILLS" not in os.environ, reason="half an hour; set KILLS=1, or run python -m benchmarks.kills")
def test_kills_change_no_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = kills.main(["--renames", "6", "--random", "6", "--folder", str(tmp_path)])
    output = capsys.readouterr().out
    print(output)  # the seed, should it fail
    assert code == 0 and "; 0 problem(s)" in output
    assert output.count("the same") >= 7


@pytest.mark.slow
def test_a_kill_that_makes_a_difference_is_seen(tmp_path: Path) -> None:
    bench = kills.Bench(tmp_path)
    bench.finish(kills.command("prepare"))
    bench.after["prepare"] = bench.outputs()
    assert len(bench.after["prepare"]) > 10 and bench.compare("prepare") == []
    (bench.work / "data/processed/val/metadata.json").write_text("[]", encoding="utf-8")
    (bench.work / "metrics/split.json.17.tmp").touch()
    (bench.work / ".checkpoints/train/0/checkpoint-3").mkdir(parents=True)
    assert bench.compare("prepare") == [
        "differs: data/processed/val/metadata.json",
        "differs: metrics/split.json.17.tmp",
        "left over: metrics/split.json.17.tmp",
        "left over: .checkpoints/train/0/checkpoint-3",
    ]


def test_what_was_done_before_an_interruption_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = {"seed": 5, "seconds": 1.0, "places": [{"stage": "train", "number": 1, "target": "x"}], "after": {}}
    (tmp_path / "uninterrupted.json").write_text(json.dumps(whole), encoding="utf-8")
    done = [
        {"kind": kills.RENAMES, "kills": 1, "what": "train", "problems": []},
        {"kind": kills.RANDOM, "kills": 6, "what": "at 1 s", "problems": ["differs: a"]},
    ]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in done), encoding="utf-8")
    assert kills.main(["--renames", "1", "--random", "6", "--folder", str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert "seed 5, 2 results so far" in output
    assert output.endswith("1 at renames and 6 at random moments; 1 problem(s)\n  at 1 s: differs: a\n")
