"""Read: new photographs become text.

    python -m ownhand.read PHOTO... | FOLDER  [--base] [--format text|json|jsonl] [--adapter FOLDER]

Reads   the given pictures, the base model, models/adapter/; parameters `model`, `prepare` (limits, cleaning),
        `encode`, `transcribe`.
Writes  to standard output: the text of each picture, or JSON with a confidence between 0 and 1.
Refuses pictures that cannot be read: each is named on standard error, the rest is read, the exit code is then 1.

The same cleaning, pixels, prompt and decoding as in `prepare`, `encode` and `transcribe`: a validation photograph reads
as in the prediction file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownhand.dataset.cleaning import Cleaning, clean
from ownhand.errors import Refusal, run_stage
from ownhand.images import (
    ImageLimits,
    UnreadableImage,
    find_files,
    has_image_suffix,
    open_image,
)
from ownhand.model.adapter import load_adapter
from ownhand.model.decoding import Reading, transcribe
from ownhand.model.families import read_family
from ownhand.model.loading import find_model, load_base_model, read_tokenizer, special_tokens
from ownhand.model.views import read_view_sizes
from ownhand.params import Params, read_params
from ownhand.progress import track
from ownhand.runtime import DTYPES, set_up
from ownhand.vision.features import VisionInput, compute_vision_tokens


@dataclass(frozen=True)
class Outcome:
    """One picture with its reading, or with the reason why there is none."""

    path: Path
    reading: Reading | None
    problem: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ownhand.read", description="Photographs of handwriting become text."
    )
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PHOTO|FOLDER")
    parser.add_argument("--base", action="store_true", help="the base model alone, without the adapter")
    parser.add_argument("--adapter", type=Path, default=Path("models/adapter"), help="default: %(default)s")
    parser.add_argument("--format", choices=("text", "json", "jsonl"), default="text", help="default: %(default)s")
    arguments = parser.parse_args()
    paths = list(expand(arguments.pictures))
    outcomes = read(paths, read_params(), None if arguments.base else arguments.adapter)
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr] # a Windows console may have another default
    show(outcomes, arguments.format)
    failed = [outcome for outcome in outcomes if outcome.reading is None]
    for outcome in failed:
        print(f"{outcome.path}: {outcome.problem}", file=sys.stderr)
    print(
        f"read: {len(outcomes) - len(failed)} of {len(outcomes)} pictures read, {len(failed)} refused", file=sys.stderr
    )
    if failed:
        raise SystemExit(1)


def expand(paths: Iterable[Path]) -> Iterable[Path]:
    """The given files, and every file below the given folders that is named like a picture, in order of name."""
    for path in paths:
        if path.is_dir():
            yield from (file for name, file in find_files(path).files if has_image_suffix(name))
        else:
            yield path


def read(paths: list[Path], params: Params, adapter: Path | None) -> list[Outcome]:
    """Outcomes in the order of `paths`; `adapter` None reads with the base model alone. Refusal without any file."""
    if not paths:
        raise Refusal("no picture given, and none in the given folder")
    if not any(path.exists() for path in paths):  # said before a model is loaded, which takes its time
        raise Refusal(f"there is no such file: {', '.join(path.as_posix() for path in paths)}")
    device = set_up(params.runtime)
    folder = find_model(params.model.name_or_path, params.model.revision)
    model: Any = load_base_model(
        params.model.name_or_path,
        params.model.revision,
        dtype=DTYPES[params.model.dtype],
        device=device,
        attn_implementation=params.model.attn_implementation,
    )
    if adapter is not None:  # before the pictures are seen: an adapter may change the vision tower too
        model = load_adapter(model, adapter)
    vision = VisionInput(params.encode.mode, read_view_sizes(folder), params.encode.max_tiles)
    limits, cleaning = ImageLimits.of(params.prepare), Cleaning.of(params.prepare)
    vision_tokens, problems = {}, {}
    for path in track(paths, what="pictures", unit="picture"):
        try:
            image = clean(open_image(path, limits), cleaning, limits.max_side_px).image
            vision_tokens[path] = compute_vision_tokens(model, vision.views(image))
        except UnreadableImage as error:
            problems[path] = error.reason
        except OSError as error:
            problems[path] = error.strerror or str(error)
    tokenizer = read_tokenizer(folder)
    special = special_tokens(tokenizer, read_family(folder).prompt)
    readings = dict(
        zip(
            vision_tokens,
            transcribe(model, list(vision_tokens.values()), tokenizer, special, params.transcribe, "reading"),
            strict=True,
        )
    )
    return [Outcome(path, readings.get(path), problems.get(path, "")) for path in paths]


def show(outcomes: list[Outcome], style: str) -> None:
    """Print the readings: plain text under each file's name, or JSON objects with path, text, confidence, runaway."""
    records = [
        {
            "path": outcome.path.as_posix(),
            "text": outcome.reading.text,
            "confidence": outcome.reading.confidence,
            "runaway": outcome.reading.runaway,
        }
        for outcome in outcomes
        if outcome.reading is not None
    ]
    if style == "json":
        print(json.dumps(records, ensure_ascii=False, indent=2))
    elif style == "jsonl":
        for record in records:
            print(json.dumps(record, ensure_ascii=False))
    else:
        for record in records:
            print(record["text"] if len(outcomes) == 1 else f"{record['path']}\n{record['text']}\n")


if __name__ == "__main__":
    run_stage(main)
