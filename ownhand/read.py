"""Read: new photographs become text.

    ownhand read PHOTO... | FOLDER  [--pages] [--whole] [--base] [--format text|json|jsonl|page|alto] [--adapter FOLDER]
                                    [--out FILE|FOLDER] [--force]

Reads   the given pictures and the PAGE or ALTO files that name them, the base model, models/adapter/; parameters
        `model`, `prepare` (limits), `encode`, `transcribe`.
Writes  to standard output or FILE, as it reads: the text of each picture, or JSON with a confidence between 0 and 1;
        with --format page or alto an XML file for each into FOLDER, its lines with text and confidence.
Refuses pictures that cannot be read: each is named on standard error, the rest is read, the exit code is then 1.

A picture whose lines stand in a PAGE or ALTO file is read line by line, cut as `prepare` cuts them. --pages finds the
lines where no file has them (`ownhand lines`); any other picture is read as one. The same pixels, prompt and decoding
as in `encode` and `transcribe`: a validation photograph reads as in the prediction file. One batch of pictures is in
memory at a time. With --out (JSON Lines) a run that was interrupted goes on: pictures that FILE names are not read
again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from PIL import Image

from ownhand.errors import Refusal
from ownhand.files import AppendedLines
from ownhand.images import ImageLimits, UnreadableImage, open_image
from ownhand.model.adapter import load_adapter
from ownhand.model.base import BaseModel
from ownhand.model.decoding import transcribe_tokens
from ownhand.model.views import compute_vision_tokens
from ownhand.pages.detector import load_detector
from ownhand.pages.geometry import trace_lines
from ownhand.pages.known_lines import PageFiles
from ownhand.pages.lines import Blocks, name_of
from ownhand.pages.lines import expand as expand_photos
from ownhand.pages.reading import STYLES, ReadPage, place_of, read_pages, write_page
from ownhand.params import Params
from ownhand.progress import track
from ownhand.runtime import set_up
from ownhand.samples import Reading

RAW = Path("data/raw")
BAR: dict[str, Any] = {"what": "reading", "unit": "picture"}


@dataclass(frozen=True)
class Outcome:
    """One picture with its reading, or with the reason why there is none."""

    photo: Path
    reading: Reading | None
    problem: str = ""

    def record(self) -> dict[str, Any]:
        """What JSON formats hold of a picture that was read."""
        assert self.reading is not None
        reading = self.reading
        return {
            "path": name_of(self.photo),
            "text": reading.text,
            "confidence": reading.confidence,
            "runaway": reading.runaway,
        }


class Reader:
    """A loaded model that turns pictures into text, a batch at a time."""

    def __init__(self, params: Params, adapter: Path | None) -> None:
        """Load the base model, with the adapter of that folder unless it is None. Refusal when they do not fit."""
        device = set_up(params.runtime)
        self.params, self.base = params, BaseModel.open(params)
        self.model: Any = self.base.load(device, expert_weights=params.transcribe.expert_weights)
        if adapter is not None:  # before pictures are seen: an adapter may change the vision tower too
            self.model = load_adapter(self.model, adapter, params.transcribe.adapter_strength)

    def read(self, images: Sequence[Image.Image]) -> list[Reading]:
        """One reading per upright RGB picture, in order."""
        tokens = [compute_vision_tokens(self.model, self.base.view_rules.views(image)) for image in images]
        return transcribe_tokens(self.model, tokens, self.base, self.params.transcribe, None)

    def read_paths(self, paths: Iterable[Path]) -> Iterator[Outcome]:
        """The outcome of each file, in order, as soon as its batch is read."""
        limits = ImageLimits.of(self.params.prepare)
        remaining = iter(paths)
        while batch := list(islice(remaining, self.params.transcribe.batch_size)):
            images: dict[Path, Image.Image] = {}
            problems: dict[Path, str] = {}
            for path in batch:
                try:
                    images[path] = open_image(path, limits)
                except UnreadableImage as error:
                    problems[path] = error.reason
                except OSError as error:
                    problems[path] = error.strerror or str(error)
            readings = dict(zip(images, self.read(list(images.values())), strict=True)) if images else {}
            for path in batch:
                yield Outcome(path, readings.get(path), problems.get(path, ""))


@dataclass(frozen=True)
class How:
    """What `read` is to make of pictures: style "text", "json", "jsonl", "page" or "alto"; out: a JSON Lines file, or
    for page and alto a folder; pages: find lines where no file has them; whole: read every picture as one; force:
    replace files in the folder."""

    style: str = "text"
    out: Path | None = None
    pages: bool = False
    whole: bool = False
    force: bool = False


def read(pictures: Sequence[str], params: Params, adapter: Path | None, how: How = How()) -> int:
    """Read files and folders and write what was read as it comes; returns the exit code: 1 when any was refused.

    `adapter` None reads with the base model alone. Refusal when there is nothing to read, or no folder to write to.
    """
    photos, unreadable = expand(pictures)
    paths = [path for _, path in photos]
    if not paths and not unreadable:
        raise Refusal("no picture given, and none in the given folder")
    if not any(path.exists() for path in paths) and not unreadable:  # said before a model is loaded
        raise Refusal(f"there is no such file: {', '.join(path.as_posix() for path in paths)}")
    if how.style in STYLES and how.out is None:
        raise Refusal(f"--format {how.style} writes a file for each picture: name a folder with --out")
    if how.style in STYLES and how.out and how.out.resolve().is_relative_to(RAW.resolve()):
        raise Refusal(f"{how.out.as_posix()} is ground truth, and what a model read is none; name another folder")
    to_file = how.out is not None and how.style not in STYLES
    printed = _Printed(how.style, single=len(paths) == 1)
    with AppendedLines(how.out, key="path") if how.out and to_file else printed as lines:
        known = {record["path"] for record in lines.kept}
        left = [(folder, path) for folder, path in photos if name_of(path) not in known]
        if len(left) < len(paths):
            print(f"read: {len(paths) - len(left)} pictures are in {how.out} already", file=sys.stderr)
        failed = 0
        for outcome in chain(unreadable, track(_read_all(left, params, adapter, how), total=len(left), **BAR)):
            problem = outcome.problem
            if not problem and isinstance(outcome, ReadPage) and how.style in STYLES and how.out:
                problem = _write_page(outcome, dict((path, folder) for folder, path in left), how)
            elif not problem:
                lines.append(outcome.record())
            if problem:
                failed += 1
                print(f"{name_of(outcome.photo)}: {problem}", file=sys.stderr)
    print(f"read: {len(left) + len(unreadable) - failed} pictures read, {failed} refused", file=sys.stderr)
    return 1 if failed else 0


def _read_all(
    photos: list[tuple[Path, Path]], params: Params, adapter: Path | None, how: How
) -> Iterator[Outcome | ReadPage]:
    """The outcome of each (folder, picture): by its lines where it has any, else several pictures at a time."""
    if not photos:
        return
    find = None
    if how.pages and not how.whole:
        detect = load_detector()

        def find(image: Image.Image) -> Blocks:
            return trace_lines(image, detect(image))

    limits, reader = ImageLimits.of(params.prepare), Reader(params, adapter)
    known = {folder: PageFiles(folder) for folder, _ in photos} if not how.whole else {}
    if find is None and how.style not in STYLES and not any(files.own for files in known.values()):
        yield from reader.read_paths(path for _, path in photos)
        return
    yield from read_pages(photos, reader.read, limits, find, how.whole)


def _write_page(page: ReadPage, folders: dict[Path, Path], how: How) -> str:
    """Write what was read of a page; why not, where it was refused."""
    assert how.out is not None
    try:
        write_page(page, place_of(page.photo, folders[page.photo], how.out), how.style, how.force)
    except Refusal as refusal:
        return str(refusal)
    return ""


def expand(pictures: Iterable[str]) -> tuple[list[tuple[Path, Path]], list[Outcome]]:
    """((folder, file) of the given files and of all files below the given folders that are named like a picture, in
    order of name; outcomes of the folders that cannot be read). Refusal for an empty name and for standard input."""
    for picture in pictures:
        if not picture or picture == "-":
            seen = "an empty name" if not picture else "standard input"
            raise Refusal(f"{seen} cannot be read; name photographs or folders, or . for this folder")
    photos, unreadable = expand_photos(pictures)
    return photos, [Outcome(path, None, reason) for path, reason in unreadable]


class _Printed:
    """Standard output in the place of a file: text under each file's name, JSON lines, or one JSON array."""

    kept: tuple[dict[str, Any], ...] = ()

    def __init__(self, style: str, single: bool) -> None:
        self.style, self.single, self.first = style, single, True

    def append(self, record: dict[str, Any]) -> None:
        if self.style == "json":
            print("[" if self.first else ",", json.dumps(record, ensure_ascii=False, indent=2), sep="\n", end="")
        elif self.style == "jsonl":
            print(json.dumps(record, ensure_ascii=False))
        else:
            print(record["text"] if self.single else f"{record['path']}\n{record['text']}\n")
        self.first = False
        sys.stdout.flush()

    def __enter__(self) -> _Printed:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self.style == "json" and not isinstance(kind, type):
            print("[]" if self.first else "\n]")
