"""Annotations: the table of file names and texts, `annotations.csv` or `.tsv`, exactly as a person wrote it.

Texts stay text ("007", "NA", "null"), quoted ones may hold delimiters, quotes and line breaks.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from ownhand.ground_truth.records import (
    COLUMNS,
    File,
    Format,
    GroundTruthError,
    Reading,
    Record,
    Rejection,
    read_text_file,
)
from ownhand.text import clean_transcription, to_nfc

NAMES = ("annotations.csv", "annotations.tsv")
DELIMITERS = (",", ";", "\t")
REQUIRED = ("filename", "text")


def read_table(path: Path, encoding: str) -> Reading:
    """The records of a CSV or TSV file, in order; the delimiter comes from the header.

    Rows without any content are skipped, rows with a wrong number of fields or stray quotes are rejected. Raises
    GroundTruthError for a wrong encoding, unknown columns, and for quotes that swallow the following rows.
    """
    content = read_text_file(path, encoding)
    delimiter, header, columns = read_header(path, content)
    records: list[Record] = []
    rejections: list[Rejection] = []
    swallowed: list[str] = []
    lines = _Lines(content, delimiter)
    header_seen = False
    for row, fields, problem in lines:
        if problem and lines.reader.line_num > row:
            swallowed.append(f"lines {row} to {lines.reader.line_num}: {problem}")
        elif problem:
            reason = f'broken row: {problem}; a quoted text is written "like ""this"" one"'
            rejections.append(Rejection("", row, reason))
        elif not any(value.strip() for value in fields):
            continue
        elif not header_seen:
            header_seen = True
        else:
            values = {role: clean_transcription(fields[at]) for role, at in columns.items() if at < len(fields)}
            name = values.get("filename", "")
            if len(fields) > len(header) or "filename" not in values or "text" not in values:
                counts = f"{len(fields)} field(s), the header has {len(header)}"
                remedy = f"a text that holds {delimiter!r} needs double quotes around it"
                rejections.append(Rejection(name, row, f"broken row: {counts}; {remedy}"))
            else:
                records.append(Record(row, name, values["text"], values.get("page", ""), values.get("hand", "")))
    if swallowed:
        where = "\n  ".join(swallowed)
        raise GroundTruthError(f"{path.name}: a double quote is opened and not closed in its row\n  {where}")
    unused = [column for at, column in enumerate(header) if column and at not in columns.values()]
    notes = [f"{path.name}: columns that are not used: {', '.join(unused)}"] if unused else []
    return Reading(len(records) + len(rejections), records, rejections, notes)


class _Lines:
    """(line where it starts, fields, problem) of every row; goes on behind a row that the csv module refuses."""

    def __init__(self, content: str, delimiter: str) -> None:
        # strict: a stray quote is a problem, not a guess. Outer blanks are stripped anyway, so one may precede a quote.
        self.reader = csv.reader(
            io.StringIO(content, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True
        )

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> tuple[int, list[str], str]:
        row = self.reader.line_num + 1
        try:
            return row, next(self.reader), ""
        except csv.Error as error:
            return row, [], str(error)


def read_header(path: Path, content: str) -> tuple[str, list[str], dict[str, int]]:
    """(delimiter, column names, position of each role): the delimiter under which most columns are known."""
    readings = []
    for delimiter in DELIMITERS:
        header = next((fields for _, fields, _ in _Lines(content, delimiter) if any(fields)), [])
        names = [re.sub(r"[\s-]+", "_", to_nfc(column).strip().casefold()) for column in header]
        roles = {}
        for role, known in COLUMNS.items():
            places = [at for at, name in enumerate(names) if name in known]
            roles[role] = [at for at in places if names[at] == role] or places
        readings.append((sum(map(bool, roles.values())), len(header), delimiter, header, roles))
    _, _, delimiter, header, roles = max(readings, key=lambda reading: reading[:2])
    problems = [f"no column {role!r} (or {', '.join(COLUMNS[role][1:])})" for role in REQUIRED if not roles[role]]
    problems += [f"{len(places)} columns for {role!r}" for role, places in roles.items() if len(places) > 1]
    if problems:
        seen = ", ".join(repr(column) for column in header) or "none, the file is empty"
        raise GroundTruthError(f"{path.name}: {'; '.join(problems)}. Columns seen: {seen}. Name them in the first line")
    return delimiter, header, {role: places[0] for role, places in roles.items() if places}


def _find(files: Sequence[File]) -> list[File]:
    return [(name, path) for name, path in files if name.casefold() in NAMES]


def _read(own: Sequence[File], files: Sequence[File], encoding: str) -> Reading:
    return read_table(own[0][1], encoding)


FORMAT = Format("annotations.csv or .tsv", _find, _read, single=True, without="no row of the annotations names it")
