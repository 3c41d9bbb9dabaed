"""Text files: beside each picture a file with its text, `a.gt.txt` or `a.txt` beside `a.png`.

This is how tesstrain, Calamari and kraken keep lines. Where only variants such as a.bin.png exist, the one variant is
taken; `a.png.txt` is read, too. What a model read, `a.pred.txt`, is no ground truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from ownhand.ground_truth.records import (
    File,
    Format,
    GroundTruthError,
    Record,
    Rejection,
    Transcriptions,
    read_text_file,
)
from ownhand.images import has_image_suffix
from ownhand.text import clean_transcription, to_nfc

SUFFIXES = (".gt.txt", ".txt")  # in this order: the first one is the end of the second's
PREDICTION = ".pred.txt"
SHOWN = 5  # pictures of one text, in its rejection


class _Pictures:
    """Picture names, found by what their text file is called."""

    def __init__(self, files: Sequence[File]) -> None:
        self.by_stem: dict[str, list[str]] = {}  # of a/b.bin.png: a/b.bin.png, a/b.bin
        self.by_first_part: dict[str, list[str]] = {}  # and a/b
        for name, _ in files:
            if has_image_suffix(name):
                path = PurePosixPath(name)
                self.by_stem.setdefault(_key(name), []).append(name)
                self.by_stem.setdefault(_key(str(path.with_suffix(""))), []).append(name)
                first = str(path.with_name(path.name.split(".")[0]))
                self.by_first_part.setdefault(_key(first), []).append(name)

    def find(self, base: str) -> list[str]:
        return self.by_stem.get(_key(base)) or self.by_first_part.get(_key(base), [])


def _key(name: str) -> str:
    return to_nfc(name.casefold())


def _base(name: str) -> str | None:
    """The name of a text file without its suffix, None for other files."""
    if name.casefold().endswith(PREDICTION):
        return None
    for suffix in SUFFIXES:
        if name.casefold().endswith(suffix):
            return name[: -len(suffix)]
    return None


def _find(files: Sequence[File]) -> list[File]:
    """All text files, as soon as one lies beside a picture of its name: then one that does not has lost its own."""
    pictures = _Pictures(files)
    own = [(file, base) for file in files if (base := _base(file[0])) is not None]
    return [file for file, _ in own] if any(pictures.find(base) for _, base in own) else []


def _read(own: Sequence[File], files: Sequence[File], encoding: str) -> Transcriptions:
    pictures = _Pictures(files)
    records: list[Record] = []
    rejections: list[Rejection] = []
    problems = []
    for name, path in own:
        base = _base(name) or name
        found = pictures.find(base)
        if not found:
            rejections.append(Rejection(base, name, "image not found: no picture of this name lies beside the text"))
        elif len(found) > 1:
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            reason = f"several images: {', '.join(found[:SHOWN])}{more} share one text; leave one of them"
            rejections.append(Rejection(base, name, reason))
        else:
            try:
                records.append(Record(name, found[0], clean_transcription(read_text_file(path, encoding))))
            except GroundTruthError as error:
                problems.append(str(error))
    if problems:
        raise GroundTruthError(f"{len(problems)} text file(s) cannot be read:\n  " + "\n  ".join(problems[:10]))
    return Transcriptions(len(records) + len(rejections), records, rejections)


FORMAT = Format(
    ".txt or .gt.txt beside each picture", _find, _read, single=False, without="no text file of its name lies beside it"
)
