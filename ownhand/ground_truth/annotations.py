"""Annotations: the table of file names and texts, `annotations.csv`, `.tsv` or `.xlsx`, as a person wrote it.

Cells stay text ("007", "NA", "null") and are then cleaned; quoted ones may hold delimiters, quotes and line breaks.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ownhand.ground_truth.records import (
    COLUMNS,
    File,
    Format,
    GroundTruthError,
    Record,
    Rejection,
    Transcriptions,
    read_text_file,
)
from ownhand.text import clean_transcription, to_nfc

NAMES = ("annotations.csv", "annotations.tsv", "annotations.xlsx")
WORKBOOK = ".xlsx"
DELIMITERS = (",", ";", "\t")
REQUIRED = ("filename", "text")

_Row = tuple[int, int, list[str], str]  # first and last line, fields, what is wrong with it


def read_annotations(path: Path, encoding: str) -> Transcriptions:
    """The records of a CSV, TSV or Excel file, in order; the delimiter comes from the header.

    Rows without any content are skipped, rows with a wrong number of fields or stray quotes are rejected. Raises
    GroundTruthError for a wrong encoding, a damaged workbook, unknown columns, and for quotes that swallow the
    following rows.
    """
    if path.suffix.casefold() == WORKBOOK:
        return _read_rows(path, _read_workbook(path), "")
    content = read_text_file(path, encoding)
    delimiter, _, _ = read_header(path, content)
    return _read_rows(path, _Lines(content, delimiter), delimiter)


def _read_rows(path: Path, lines: Iterable[_Row], delimiter: str) -> Transcriptions:
    rows = list(lines)
    header = _header(rows)
    columns = _find_columns(path, header)
    records: list[Record] = []
    rejections: list[Rejection] = []
    swallowed: list[str] = []
    header_seen = False
    for row, end, fields, problem in rows:
        if problem and end > row:
            swallowed.append(f"lines {row} to {end}: {problem}")
        elif problem:
            remedy = "" if "field limit" in problem else '; a quoted text is written "like ""this"" one"'
            reason = f"broken row: {problem}{remedy}"
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
    return Transcriptions(len(records) + len(rejections), records, rejections, notes)


def _read_workbook(path: Path) -> list[_Row]:
    """The rows of the first sheet, every cell as text; a number that Excel shows whole is written whole."""
    import pandas  # here, for it takes its time and few have a workbook

    try:
        sheet = pandas.read_excel(path, header=None, dtype=str, keep_default_na=False, na_filter=False)
    except Exception as error:  # of many kinds: no zip, no workbook, no sheet
        raise GroundTruthError(f"{path.name} cannot be read as an Excel workbook ({error}); save it again") from None
    return [(number, number, list(map(str, row)), "") for number, row in enumerate(sheet.itertuples(index=False), 1)]


class _Lines:
    """Every row of a text; goes on behind one that the csv module refuses."""

    def __init__(self, content: str, delimiter: str) -> None:
        # strict: a stray quote is a problem, not a guess. Outer blanks are stripped anyway, so one may precede a quote.
        self.reader = csv.reader(
            io.StringIO(content, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True
        )

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> _Row:
        row = self.reader.line_num + 1
        try:
            fields = next(self.reader)
            return row, self.reader.line_num, fields, ""
        except csv.Error as error:
            return row, self.reader.line_num, [], str(error)


def read_header(path: Path, content: str) -> tuple[str, list[str], dict[str, int]]:
    """(delimiter, column names, position of each role): the delimiter under which most columns are known."""
    delimiter = max(DELIMITERS, key=lambda one: _known_columns(_header(_Lines(content, one))))
    header = _header(_Lines(content, delimiter))
    return delimiter, header, _find_columns(path, header)


def read_first_row(content: str, delimiter: str) -> tuple[list[str], str]:
    """The fields of the first row of a text, and what is wrong with it; none at its end."""
    _, _, fields, problem = next(_Lines(content, delimiter), (0, 0, [], ""))
    return fields, problem


def _header(rows: Iterable[_Row]) -> list[str]:
    return next((fields for _, _, fields, _ in rows if any(fields)), [])


def _roles(header: Sequence[str]) -> dict[str, list[int]]:
    """The places of the columns that may have each role; its own name wins over other names."""
    names = [re.sub(r"[\s-]+", "_", to_nfc(column).strip().casefold()) for column in header]
    roles = {}
    for role, known in COLUMNS.items():
        places = [at for at, name in enumerate(names) if name in known]
        roles[role] = [at for at in places if names[at] == role] or places
    return roles


def _known_columns(header: Sequence[str]) -> tuple[int, int]:
    """How well a header reads: known columns, then columns."""
    return sum(map(bool, _roles(header).values())), len(header)


def _find_columns(path: Path, header: list[str]) -> dict[str, int]:
    """The position of each role."""
    roles = _roles(header)
    problems = [f"no column {role!r} (or {', '.join(COLUMNS[role][1:])})" for role in REQUIRED if not roles[role]]
    problems += [f"{len(places)} columns for {role!r}" for role, places in roles.items() if len(places) > 1]
    if problems:
        seen = ", ".join(repr(column) for column in header) or "none, the file is empty"
        raise GroundTruthError(f"{path.name}: {'; '.join(problems)}. Columns seen: {seen}. Name them in the first line")
    return {role: places[0] for role, places in roles.items() if places}


def _find(files: Sequence[File]) -> list[File]:
    return [(name, path) for name, path in files if name.casefold() in NAMES]


def _read(own: Sequence[File], files: Sequence[File], encoding: str) -> Transcriptions:
    return read_annotations(own[0][1], encoding)


FORMAT = Format(
    "annotations.csv, .tsv or .xlsx", _find, _read, single=True, without="no row of the annotations names it"
)
