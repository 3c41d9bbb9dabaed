"""Set aside: lines and pictures that a person has looked at and that are no ground truth, with the reason.

`ownhand correct` writes set_aside.csv into data/raw: the columns filename (for a line of a page with "#" and its name
behind, as in metrics/waiting.csv) and why. It holds for what has no transcription; a text that stands somewhere counts.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from ownhand.ground_truth.records import GroundTruthError

NAME = "set_aside.csv"


def read_set_aside(raw: Path) -> dict[str, str]:
    """By name, why it was set aside; {} without the file. GroundTruthError when it is no table."""
    path = raw / NAME
    if path.exists() and not path.is_file():  # a FIFO would be waited for
        raise GroundTruthError(f"{path.as_posix()} is no file; remove it")
    try:
        rows = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))
    except FileNotFoundError:
        return {}
    except (UnicodeError, csv.Error) as error:
        raise GroundTruthError(f"{path.as_posix()} is no table in UTF-8 ({error}); mend or remove it") from None
    return {row[0]: row[1] for row in rows[1:] if len(row) > 1}
