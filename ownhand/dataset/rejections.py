"""Rejections: the list of all that did not become a sample, and the point at which there are too many."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ownhand.errors import Refusal
from ownhand.files import write_text
from ownhand.ground_truth import Rejection

SHOWN = 5  # kinds in a message; the list is complete


def write_rejections(path: Path, rejections: Sequence[Rejection]) -> None:
    """The list of everything that did not become a sample, in the order of the rows, files without a row last."""
    rows = io.StringIO()
    table = csv.writer(rows, lineterminator="\n")
    table.writerow(["file", "row", "reason"])
    for rejection in sorted(rejections, key=lambda one: (one.row is None, _natural(one.row), one.file)):
        table.writerow([rejection.file, rejection.row or "", rejection.reason])
    write_text(path, rows.getvalue())


def refuse_too_many(rejections: Sequence[Rejection], accepted: int, max_share: float, raw: Path, listed: Path) -> None:
    """Raise Refusal, with the most frequent kinds, when the counted rejections are more than `max_share` of all."""
    counted = [rejection for rejection in rejections if rejection.counted]
    candidates = accepted + len(counted)
    if candidates == 0:
        raise Refusal(f"{raw.as_posix()}: the transcriptions name no picture; nothing to prepare")
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


def _natural(row: int | str | None) -> list[tuple[str, int]]:
    """A key under which line 10 follows line 9, whatever stands before the number."""
    return [(before, int(number or 0)) for before, number in re.findall(r"(\D*)(\d*)", str(row or ""))]
