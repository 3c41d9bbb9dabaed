"""Progress: bars for who watches, lines without control characters for a log."""

from __future__ import annotations

import io
import sys

import pytest
from tqdm import tqdm

from ownhand import progress
from ownhand.progress import Lines, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert isinstance(track([1], what="encode", unit="picture"), tqdm)
    assert list(track(iter("ab"), total=2, what="encode", unit="picture")) == ["a", "b"]
    assert "\r" in sys.stderr.getvalue()


def test_a_log_has_a_line_every_so_often(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter(range(0, 10_000, 7))  # seconds; one look for each picture
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(track(range(12), what="encode", unit="picture")) == list(range(12))
    assert capsys.readouterr().err.splitlines() == [
        "encode: 5 of 12 pictures after 00:35, about 00:49 left",
        "encode: 10 of 12 pictures after 01:10, about 00:14 left",
    ]


def test_short_work_and_nameless_work_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with track((), total=3, what="reading", unit="line") as lines:
        lines.update(3)
    list(track([1, 2], what=None, unit="line"))
    list(track([], what="encode", unit="picture"))
    assert capsys.readouterr().err == ""


def test_only_the_first_process_writes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    for rank, said in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        Lines[int]((), total=2, what="encode", unit="picture").update()
        assert len(capsys.readouterr().err.splitlines()) == said


def test_a_run_that_goes_on_is_timed_from_where_it_went_on() -> None:
    lines = Lines[int]((), total=100, what="training", unit="step", done=50)
    lines.done = 75
    assert lines.line(60) == "training: 75 of 100 steps after 01:00, about 01:00 left"
    assert Lines[int](iter(()), what="walk", unit="file").line(1) == "walk: 0 files after 00:01"
