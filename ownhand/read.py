"""Read: new photographs become text.

    ownhand read PHOTO... | FOLDER  [--base] [--format text|json|jsonl] [--adapter FOLDER] [--out FILE]

Reads   the given pictures, the base model, models/adapter/; parameters `model`, `prepare` (limits), `encode`,
        `transcribe`.
Writes  to standard output or FILE, as it reads: the text of each picture, or JSON with a confidence between 0 and 1.
Refuses pictures that cannot be read: each is named on standard error, the rest is read, the exit code is then 1.

The same pixels, prompt and decoding as in `encode` and `transcribe`: a validation photograph reads as in the prediction
file. One batch of pictures is in memory at a time. With --out (JSON Lines) a run that was interrupted goes on: pictures
that FILE names already are not read again.
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
from ownhand.images import ImageLimits, UnreadableImage, find_files, has_image_suffix, open_image
from ownhand.model.adapter import load_adapter
from ownhand.model.base import BaseModel
from ownhand.model.decoding import Reading, transcribe
from ownhand.params import Params
from ownhand.progress import track
from ownhand.runtime import set_up
from ownhand.vision.features import compute_vision_tokens


@dataclass(frozen=True)
class Outcome:
    """One picture with its reading, or with the reason why there is none."""

    path: Path
    reading: Reading | None
    problem: str = ""

    @property
    def name(self) -> str:
        """The path for people and files: POSIX form, bytes that are no UTF-8 escaped."""
        return self.path.as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

    def record(self) -> dict[str, Any]:
        """What JSON formats hold of a picture that was read."""
        assert self.reading is not None
        reading = self.reading
        return {
            "path": self.name,
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
            self.model = load_adapter(self.model, adapter)

    def read(self, images: Sequence[Image.Image]) -> list[Reading]:
        """One reading per upright RGB picture, in order."""
        tokens = [compute_vision_tokens(self.model, self.base.vision.views(image)) for image in images]
        return transcribe(self.model, tokens, self.base, self.params.transcribe, None)

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


def read(
    pictures: Sequence[str], params: Params, adapter: Path | None, style: str = "text", out: Path | None = None
) -> int:
    """Read files and folders and write what was read as it comes; returns the exit code: 1 when any was refused.

    `adapter` None reads with the base model alone; style: text, json or jsonl; `out`: a JSON Lines file instead of
    standard output. Refusal when there is nothing to read.
    """
    paths, unreadable = expand(pictures)
    if not paths and not unreadable:
        raise Refusal("no picture given, and none in the given folder")
    if not any(path.exists() for path in paths) and not unreadable:  # said before a model is loaded
        raise Refusal(f"there is no such file: {', '.join(path.as_posix() for path in paths)}")
    with AppendedLines(out) if out else _Printed(style, single=len(paths) == 1) as lines:
        known = {record["path"] for record in lines.kept}
        left = [path for path in paths if Outcome(path, None).name not in known]
        if len(left) < len(paths):
            print(f"read: {len(paths) - len(left)} pictures are in {out} already", file=sys.stderr)
        outcomes = Reader(params, adapter).read_paths(left) if left else iter(())
        failed = 0
        for outcome in chain(unreadable, track(outcomes, total=len(left), what="reading", unit="picture")):
            if outcome.reading is None:
                failed += 1
                print(f"{outcome.name}: {outcome.problem}", file=sys.stderr)
            else:
                lines.append(outcome.record())
    print(f"read: {len(left) + len(unreadable) - failed} pictures read, {failed} refused", file=sys.stderr)
    return 1 if failed else 0


def expand(pictures: Iterable[str]) -> tuple[list[Path], list[Outcome]]:
    """(the given files, and every file below the given folders that is named like a picture, in order of name;
    outcomes of the folders that cannot be read). Refusal for an empty name and for standard input."""
    paths: list[Path] = []
    unreadable: list[Outcome] = []
    for picture in pictures:
        if not picture or picture == "-":
            seen = "an empty name" if not picture else "standard input"
            raise Refusal(f"{seen} cannot be read; name photographs or folders, or . for this folder")
        path = Path(picture)
        if path.is_dir():
            found = find_files(path)
            paths += [file for name, file in found.files if has_image_suffix(name)]
            unreadable += [Outcome(path / name, None, reason) for name, reason in found.unreadable.items()]
        else:
            paths.append(path)
    return paths, unreadable


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
