"""JSON lines: one JSON object per line and picture, plain or as the chats of fine-tuning tools.

Plain          {"image": "a.jpg", "text": "..."}, names as in the columns of annotations.csv
ms-swift       {"messages": [{"role": "user", "content": "<image>..."}, {"role": "assistant", "content": "..."}],
                "images": ["a.jpg"]}; also its {"query": "<image>...", "response": "...", "images": [...]}
Unsloth        {"messages": [{"role": "user", "content": [{"type": "text", ...}, {"type": "image", "image": "a.jpg"}]},
                {"role": "assistant", "content": [{"type": "text", "text": "..."}]}]}; its DeepSeek-OCR notebook calls
                the roles <|User|> and <|Assistant|> and puts "images" into the message
In every layout, page and hand may stand beside. Prompts are not kept: training uses the base model's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ownhand.ground_truth.records import (
    COLUMNS,
    File,
    Format,
    Record,
    Rejection,
    Transcriptions,
    beside,
    read_text_file,
)
from ownhand.text import clean_transcription

SUFFIX = ".jsonl"
OTHER_FORMAT = "metadata.jsonl"  # of imagefolder


class RowError(ValueError):
    """A row that is not one picture with one text; the message is a reason."""


def read_rows(path: Path, encoding: str) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
    """(line, object, "") of every line that is not blank, or (line, None, what is wrong)."""
    for number, line in enumerate(read_text_file(path, encoding).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            yield number, None, "it holds half a character (a lone surrogate such as \\ud83d)"
            continue
        except (ValueError, RecursionError) as error:
            yield number, None, f"no valid JSON ({error})"
            continue
        if isinstance(row, dict):
            yield number, row, ""
        else:
            yield number, None, f"a JSON object is expected, this is {type(row).__name__}"


def read_records(path: Path, encoding: str, read_row: Callable[[dict[str, Any]], dict[str, str]]) -> Transcriptions:
    """The rows of a file as records, their file names as they are written; `read_row` may raise RowError."""
    records: list[Record] = []
    rejections: list[Rejection] = []
    for number, row, problem in read_rows(path, encoding):
        try:
            if row is None:
                raise RowError(problem)
            values = {role: clean_transcription(value) for role, value in read_row(row).items()}
        except RowError as error:
            rejections.append(Rejection("", number, f"broken row: {error}"))
        else:
            records.append(Record(number, values["filename"], values["text"], values["page"], values["hand"]))
    return Transcriptions(len(records) + len(rejections), records, rejections)


def read_plain_row(row: dict[str, Any]) -> dict[str, str]:
    """The values of filename, text, page and hand in a row whose keys are named like the columns of a table.

    Missing page and hand are "". Raises RowError for a missing, doubled or non-text value.
    """
    values = {}
    for role, known in COLUMNS.items():
        keys = [key for key in row if key.strip().casefold() in known]
        keys = [key for key in keys if key.strip().casefold() == role] or keys
        if len(keys) > 1:
            raise RowError(f"{', '.join(keys)} all mean {role!r}")
        if not keys and role in ("filename", "text"):
            raise RowError(f"no key {role!r} (or {', '.join(known[1:])}); keys seen: {', '.join(row) or 'none'}")
        value = row[keys[0]] if keys else ""
        values[role] = _as_path(value) if role == "filename" else _as_text(value, keys[0] if keys else role)
    return values


def _read_row(row: dict[str, Any]) -> dict[str, str]:
    """As `read_plain_row`, for any layout."""
    if "messages" in row:
        turns = [_read_message(message) for message in _as_list(row["messages"], "messages")]
        images = [image for _, _, found in turns for image in found]
        answers = [text for role, text, _ in turns if role == "assistant"]
    elif "response" in row:
        images, answers = [], [_as_text(row["response"], "response")]
    else:
        return read_plain_row(row)
    images += _read_images(row)
    for what, seen in (("picture", images), ("answer", answers)):
        if len(seen) != 1:
            raise RowError(f"one {what} per row is expected, this row has {len(seen)}")
    return {
        "filename": images[0],
        "text": answers[0],
        "page": _as_text(row.get("page", ""), "page"),
        "hand": _as_text(row.get("hand", ""), "hand"),
    }


def _read_message(message: Any) -> tuple[str, str, list[str]]:
    """(role in lower case without decoration, text, pictures) of one turn of a chat."""
    if not isinstance(message, dict):
        raise RowError("a message must be an object with role and content")
    role = re.sub(r"\W", "", _as_text(message.get("role"), "role")).casefold()
    content = message.get("content")
    images = _read_images(message)
    if isinstance(content, str):
        return role, content, images
    texts = []
    for part in _as_list(content, "content"):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            texts.append(_as_text(part.get("text"), "text"))
        elif kind == "image" and "image" in part:  # without it, a placeholder for one of "images"
            images.append(_as_path(part["image"]))
        elif kind != "image":
            raise RowError(f"a part of a message must have the type text or image; seen: {kind!r}")
    return role, "\n".join(texts), images


def _read_images(owner: dict[str, Any]) -> list[str]:
    value = owner.get("images", [])
    return [_as_path(image) for image in ([value] if isinstance(value, (str, dict)) else _as_list(value, "images"))]


def _as_path(image: Any) -> str:
    path = image.get("path") if isinstance(image, dict) else image
    if not isinstance(path, str):
        raise RowError("a picture must be given by its file name; pictures inside JSON are not read")
    return path


def _as_list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise RowError(f"{name} must be a list, it is {type(value).__name__}")
    return value


def _as_text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise RowError(f"{name} must be text in double quotes, it is {type(value).__name__} ({json.dumps(value)[:40]})")
    return value


def _find(files: Sequence[File]) -> list[File]:
    return [file for file in files if file[0].casefold().endswith(SUFFIX) and file[1].name.casefold() != OTHER_FORMAT]


def _read(own: Sequence[File], files: Sequence[File], encoding: str) -> Transcriptions:
    ((source, path),) = own
    reading = read_records(path, encoding, _read_row)
    # Chats are written where a training script runs; their paths may count from there.
    records = [
        replace(record, filename=beside(source, record.filename), elsewhere=(record.filename,))
        for record in reading.records
    ]
    return replace(reading, records=records)


FORMAT = Format("JSON lines", _find, _read, single=True, without="no line of the JSON lines names it")
