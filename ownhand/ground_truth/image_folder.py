"""Imagefolder: the layout of Hugging Face's dataset loader, metadata.csv or metadata.jsonl beside the pictures.

A folder and its sub-folders (train, test, ...) may hold one each; `file_name` counts from there. Folders named after
splits mean nothing here: prepare makes its own split, by page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ownhand.ground_truth.annotations import read_annotations
from ownhand.ground_truth.json_lines import read_plain_row, read_records
from ownhand.ground_truth.records import File, Format, Transcriptions, beside

NAMES = ("metadata.csv", "metadata.jsonl")


def _find(files: Sequence[File]) -> list[File]:
    return [(name, path) for name, path in files if path.name.casefold() in NAMES]


def _read(own: Sequence[File], files: Sequence[File], encoding: str) -> Transcriptions:
    readings = []
    for source, path in own:
        is_table = path.name.casefold() == NAMES[0]
        reading = read_annotations(path, encoding) if is_table else read_records(path, encoding, read_plain_row)
        records = [
            replace(record, row=f"{source}:{record.row}", filename=beside(source, record.filename))
            for record in reading.records
        ]
        rejections = [
            replace(one, row=f"{source}:{one.row}", file=beside(source, one.file)) for one in reading.rejections
        ]
        readings.append(Transcriptions(reading.rows, records, rejections, reading.notes))
    return Transcriptions(
        sum(reading.rows for reading in readings),
        [record for reading in readings for record in reading.records],
        [rejection for reading in readings for rejection in reading.rejections],
        [note for reading in readings for note in reading.notes],
    )


FORMAT = Format(
    "imagefolder (metadata.csv or .jsonl)", _find, _read, single=False, without="no row of a metadata file names it"
)
