"""Rejections: the list of all that did not become a sample, and the point at which there are too many.

What waits for its transcription is no rejection and has a list of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ownhand.errors import Refusal
from ownhand.files import write_table
from ownhand.ground_truth.records import Rejection, Waiting

REJECTED, WAITING = "rejected.csv", "waiting.csv"
SHOWN = 5  # kinds in a message; the list is complete


def write_rejections(path: Path, rejections: Sequence[Rejection]) -> None:
    """The list of everything that did not become a sample, in the order of the rows, files without a row last."""
    ordered = sorted(rejections, key=lambda one: (one.row is None, _natural(one.row), one.file))
    write_table(path, ("file", "row", "reason"), ((one.file, one.row or "", one.reason) for one in ordered))


def write_waiting(path: Path, waiting: Sequence[Waiting]) -> None:
    """The list of what waits for its transcription: lines in the order of the pages, pictures last."""
    ordered = sorted(waiting, key=lambda one: (one.row == "", _natural(one.row), one.file))
    write_table(path, ("file", "row", "what"), ((one.file, one.row, one.what) for one in ordered))


def count_waiting(waiting: Sequence[Waiting], listed: Path) -> str:
    """One line for the log: how many pictures and lines wait."""
    kinds = Counter(one.what.partition(":")[0] for one in waiting)
    counts = " and ".join(f"{number} {kind}{'' if number == 1 else 's'}" for kind, number in sorted(kinds.items()))
    return f"{counts} without a transcription ({listed.as_posix()}); they wait, nothing is wrong with them"


def refuse_too_many(
    rejections: Sequence[Rejection],
    accepted: int,
    max_share: float,
    raw: Path,
    listed: Path,
    waiting: Sequence[Waiting] = (),
) -> None:
    """Raise Refusal, with the most frequent kinds, when the counted rejections are more than `max_share` of all."""
    counted = [rejection for rejection in rejections if rejection.counted]
    candidates = accepted + len(counted)
    if candidates == 0:
        wait = f"; {len(waiting)} wait for their transcription ({listed.with_name(WAITING)})" if waiting else ""
        raise Refusal(f"{raw.as_posix()}: no picture with a transcription, so there is nothing to prepare{wait}")
    if len(counted) <= max_share * candidates:
        return
    reasons = "".join(f"\n  {line}" for line in count_kinds(counted)[:SHOWN])
    raise Refusal(
        f"{len(counted)} of {candidates} samples are rejected, prepare.max_rejected_share allows {max_share:.0%}; "
        f"mend them or raise it. All are in {listed.as_posix()}. Most frequent:{reasons}"
    )


def count_kinds(rejections: Sequence[Rejection]) -> list[str]:
    """One line per kind of rejection, the most frequent first, with an example."""
    lines = []
    for kind, count in Counter(rejection.kind for rejection in rejections).most_common():
        example = next(rejection for rejection in rejections if rejection.kind == kind)
        row = "" if example.row is None else f"row {example.row}, "
        lines.append(f"{count} x {kind}, such as {row}{example.file!r}: {example.reason}")
    return lines


def _natural(row: int | str | None) -> list[tuple[str, int, str]]:
    """A key under which line 10 follows line 9, whatever stands before the number and however long it is."""
    parts = [(before, number.lstrip("0")) for before, number in re.findall(r"(\D*)(\d*)", str(row or ""))]
    return [(before, len(number), number) for before, number in parts]  # int() refuses more than 4,300 digits
