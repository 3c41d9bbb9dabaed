"""Imagefolder: the layout of Hugging Face's dataset loader, metadata.csv or metadata.jsonl beside the pictures.

A folder and its sub-folders (train, test, ...) may hold one each; `file_name` counts from there. Folders named after
splits mean nothing here: prepare makes its own split, by page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stages.lib.dataset.ground_truth.annotations import read_table
from stages.lib.dataset.ground_truth.json_lines import RowError, read_plain_row, read_rows
from stages.lib.dataset.ground_truth.records import File, Format, Reading, Record, Rejection, beside
from stages.lib.text import clean_transcription

NAMES = ("metadata.csv", "metadata.jsonl")


def _find(files: Sequence[File]) -> list[File]:
    return [(name, path) for name, path in files if path.name.casefold() in NAMES]


def _read(own: Sequence[File], files: Sequence[File], encoding: str) -> Reading:
    readings = []
    for source, path in own:
        is_table = path.name.casefold() == NAMES[0]
        reading = read_table(path, encoding) if is_table else _read_json_lines(path, encoding)
        records = [
            replace(record, row=f"{source}:{record.row}", filename=beside(source, record.filename))
            for record in reading.records
        ]
        rejections = [
            replace(one, row=f"{source}:{one.row}", file=beside(source, one.file)) for one in reading.rejections
        ]
        readings.append(Reading(reading.rows, records, rejections, reading.notes))
    return Reading(
        sum(reading.rows for reading in readings),
        [record for reading in readings for record in reading.records],
        [rejection for reading in readings for rejection in reading.rejections],
        [note for reading in readings for note in reading.notes],
    )


def _read_json_lines(path: Path, encoding: str) -> Reading:
    records: list[Record] = []
    rejections: list[Rejection] = []
    for number, row, problem in read_rows(path, encoding):
        try:
            if row is None:
                raise RowError(problem)
            values = {role: clean_transcription(value) for role, value in read_plain_row(row).items()}
        except RowError as error:
            rejections.append(Rejection("", number, f"broken row: {error}"))
        else:
            records.append(Record(number, values["filename"], values["text"], values["page"], values["hand"]))
    return Reading(len(records) + len(rejections), records, rejections)


FORMAT = Format(
    "imagefolder (metadata.csv or .jsonl)", _find, _read, single=False, without="no row of a metadata file names it"
)
