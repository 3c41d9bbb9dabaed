"""Killed at its renames and at random moments, the pipeline ends with the files of an uninterrupted run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import kills

pytestmark = pytest.mark.slow


@pytest.mark.skipif("KILLS" not in os.environ, reason="half an hour; set KILLS=1, or run python -m benchmarks.kills")
def test_kills_change_no_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = kills.main(["--renames", "6", "--random", "6", "--folder", str(tmp_path)])
    output = capsys.readouterr().out
    print(output)  # the seed, should it fail
    assert code == 0 and "kills: 0 problem(s)" in output
    assert output.count("the same") >= 7


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
