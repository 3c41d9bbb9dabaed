"""Other readers: what another OCR read in the validation pictures, kept in data/others and scored beside ours.

data/others/README.md says what such a file holds.
"""

from __future__ import annotations

import re
from pathlib import Path

from ownhand.errors import Refusal
from ownhand.evaluation.readings import (
    OTHERS_REMEDY,
    READERS,
    own_files,
    read_predictions,
    read_text,
    readers_of,
    score_lines,
)
from ownhand.evaluation.summary import Rate, compare_rates
from ownhand.files import write_text
from ownhand.params import EvaluateParams
from ownhand.samples import PROCESSED, read_metadata

OTHERS = Path("data/others")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def other_files(root: Path) -> dict[str, Path]:
    """The prediction files of other readers below `root`, by name; Refusal for a name that cannot be a column."""
    files = {path.stem: path for path in sorted((root / OTHERS).glob("*.jsonl"))}
    for name, path in files.items():
        _check_name(name, path.relative_to(root))
    return files


def keep_predictions(root: Path, path: Path, name: str) -> None:
    """Take another reader's prediction file into data/others; Refusal when it does not fit the validation lines."""
    _check_name(name, path)
    image_ids = [sample.image_id for sample in read_metadata(root / PROCESSED, ["val"])]
    read_predictions(path, image_ids, OTHERS_REMEDY)
    write_text(root / OTHERS / f"{name}.jsonl", read_text(path))


def compare(root: Path, path: Path, name: str, params: EvaluateParams) -> str:
    """Keep the file of another reader as `name`, and say in lines how it compares with base model and adapter.

    Without predictions of these there is nothing to compare with yet; the file is kept all the same.
    """
    keep_predictions(root, path, name)
    kept = f"kept as {(OTHERS / name).as_posix()}.jsonl; `dvc repro` adds it to the report"
    if not all(file.exists() for file in own_files(root).values()):
        return f"{kept}, once base model and adapter have read the same lines"
    lines = score_lines(read_metadata(root / PROCESSED), own_files(root), other_files(root))
    rates = {(rate.reader, rate.name): rate for rate in compare_rates(lines, params)}
    rows = [_word_reader(reader, rates[reader, "cer"]) for reader in readers_of(lines)]
    return "\n".join([f"CER on {len(lines)} validation line(s):", *rows, kept])


def _word_reader(reader: str, cer: Rate) -> str:
    interval = f" ({cer.interval.low:.1%} to {cer.interval.high:.1%})" if cer.interval else ""
    return f"  {reader:<12} {cer.value:.1%}{interval}" if cer.value is not None else f"  {reader:<12} -"


def _check_name(name: str, path: Path) -> None:
    if name in READERS or not NAME.fullmatch(name):
        raise Refusal(
            f"{path.as_posix()}: {name!r} cannot be the name of a reader; use Latin letters, digits, '.', '-' and '_', "
            f"and neither of {', '.join(READERS)} (--name)"
        )
