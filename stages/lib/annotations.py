"""Annotations: the table of file names and texts, `annotations.csv` or `.tsv`, exactly as a person wrote it.

Texts stay text ("007", "NA", "null"), quoted ones may hold delimiters, quotes and line breaks. The encoding is never
guessed: a wrong one is an error, because a text read wrongly would be taught wrongly.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

from stages.lib.failures import Refusal
from stages.lib.text import clean_transcription, to_nfc

DELIMITERS = (",", ";", "\t")
# The first name of each column is ours and wins; the others are what neighbouring tools call it.
COLUMNS = {
    "filename": ("filename", "file_name", "file", "image", "image_path", "image_file", "image_name", "path", "файл"),
    "text": ("text", "transcription", "transcript", "ground_truth", "gt", "label", "sentence", "текст"),
    "page": ("page", "page_id", "страница"),
    "hand": ("hand", "writer", "writer_id", "почерк"),
}
REQUIRED = ("filename", "text")


class GroundTruthError(Refusal):
    """Ground truth that cannot be read as a whole; the message says where and what to do."""


@dataclass(frozen=True)
class Record:
    """One entry of a table; `row` is the line of the file where it starts, page and hand may be ""."""

    row: int
    filename: str
    text: str
    page: str
    hand: str


@dataclass(frozen=True)
class Rejection:
    """Something that does not become a sample. `reason` begins with its kind: "image not found: nearest ...".

    row: line of the annotations file, None where there is none. counted: False for what was no candidate, such as a
    picture without a transcription; only counted ones are measured against `prepare.max_rejected_share`.
    """

    file: str
    row: int | None
    reason: str
    counted: bool = True

    @property
    def kind(self) -> str:
        return self.reason.partition(":")[0]


@dataclass(frozen=True)
class Table:
    """What an annotations file says, before any file is looked up. `rows` counts all entries, broken ones too."""

    name: str
    delimiter: str
    rows: int
    records: list[Record]
    rejections: list[Rejection]
    unused_columns: list[str]


def read_table(path: Path, encoding: str) -> Table:
    """The records of a CSV or TSV file, in order; the delimiter comes from the header.

    Rows without any content are skipped, rows with a wrong number of fields or stray quotes are rejected. Raises
    GroundTruthError for a wrong encoding, unknown columns, and for quotes that swallow the following rows.
    """
    content = _decode(path, encoding)
    delimiter, header, columns = _read_header(path, content)
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
    return Table(path.name, delimiter, len(records) + len(rejections), records, rejections, unused)


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


def _decode(path: Path, encoding: str) -> str:
    content = path.read_bytes()
    try:
        is_utf8 = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
        text = content.decode("utf-8-sig" if is_utf8 else encoding)
    except LookupError:
        raise GroundTruthError(f"prepare.encoding: {encoding!r} is no text encoding; usual: utf-8, cp1251") from None
    except UnicodeError as error:
        where = ""
        if isinstance(error, UnicodeDecodeError):
            line = content.count(b"\n", 0, error.start) + 1
            where = f", line {line}: byte 0x{content[error.start]:02x}"
        is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        perhaps = "utf-16" if is_utf16 else "cp1251 for Cyrillic from Excel"
        remedy = f"set prepare.encoding to the encoding of the file (perhaps {perhaps}), or save the file as UTF-8"
        raise GroundTruthError(f"{path.name}{where} is not valid {encoding}; {remedy}") from None
    if not is_utf8 and not content.isascii() and _is_utf8(content):
        raise GroundTruthError(f"{path.name} is UTF-8, prepare.encoding is {encoding}; set prepare.encoding to utf-8")
    if "\0" in text:
        raise GroundTruthError(f"{path.name} holds NUL, so it is not {encoding}; set prepare.encoding, perhaps utf-16")
    return text


def _is_utf8(content: bytes) -> bool:
    try:
        return "\0" not in content.decode("utf-8")
    except UnicodeDecodeError:
        return False


def _read_header(path: Path, content: str) -> tuple[str, list[str], dict[str, int]]:
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
