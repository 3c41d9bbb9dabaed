"""Records: what every format of ground truth turns into, so that all that follows is the same for all of them."""

from __future__ import annotations

import codecs
import posixpath
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ownhand.errors import Refusal
from ownhand.ground_truth.regions import Region

# The first name of each role is ours and wins; the others are what neighbouring tools call it.
COLUMNS = {
    "filename": ("filename", "file_name", "file", "image", "image_path", "image_file", "image_name", "path", "файл"),
    "text": ("text", "transcription", "transcript", "ground_truth", "gt", "label", "sentence", "текст"),
    "page": ("page", "page_id", "страница"),
    "hand": ("hand", "writer", "writer_id", "почерк"),
}

File = tuple[str, Path]  # NFC POSIX name below data/raw, and where it is


class GroundTruthError(Refusal):
    """Ground truth that cannot be read as a whole; the message says where and what to do."""


@dataclass(frozen=True)
class Record:
    """One transcription, as a format says it, and then with its picture, as matching finds it.

    row: where a person finds it: a line number, or in formats of several files "page1.xml#line7"; filename: from
    data/raw on, as written, and once the picture is found its NFC POSIX name, with "#" and `line` behind it for a line
    of a page; page and hand may be ""; region and line: the part of the picture that is meant and its name, for lines
    of a page; elsewhere: further names to look for where a format's tools have such habits; path: the picture, Path()
    until it is found.
    """

    row: int | str
    filename: str
    text: str
    page: str = ""
    hand: str = ""
    region: Region | None = None
    line: str = ""
    elsewhere: tuple[str, ...] = ()
    path: Path = Path()


@dataclass(frozen=True)
class Rejection:
    """Something that does not become a sample. `reason` begins with its kind: "image not found: nearest ...".

    row: as in Record, None where there is none. counted: False for what was no candidate, such as a row that says again
    what another said; only counted ones are measured against `prepare.max_rejected_share`.
    """

    file: str
    row: int | str | None
    reason: str
    counted: bool = True

    @property
    def kind(self) -> str:
        return self.reason.partition(":")[0]


@dataclass(frozen=True)
class Waiting:
    """Something that waits for its transcription: a picture that nothing names, or a line of a page without text.

    file: as in Rejection, for a line with "#" and its name behind; row: where the text belongs, "" for a picture that
    nothing names.
    """

    file: str
    row: int | str
    what: str


@dataclass(frozen=True)
class Transcriptions:
    """What ground truth says before any picture is looked up; `rows` counts all entries, broken ones too."""

    rows: int
    records: list[Record]
    rejections: list[Rejection] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Format:
    """A way to write ground truth.

    name: as log and messages call it; find: those of all files that hold ground truth in this format;
    read: (these files, the others, encoding of plain text files) -> what they say; single: whether one file must hold
    it all; without: what is missing for a picture that no record names; blank_waits: whether a record without text is
    a line that somebody found and nobody transcribed yet, and no mistake.
    """

    name: str
    find: Callable[[Sequence[File]], list[File]]
    read: Callable[[Sequence[File], Sequence[File], str], Transcriptions]
    single: bool
    without: str
    blank_waits: bool = False


def is_absolute(filename: str) -> bool:
    """Whether a name is absolute on any system: /x, \\\\server\\x, C:\\x, C:x."""
    return re.match(r"[/\\]|[A-Za-z]:", filename) is not None


def beside(source: str, filename: str) -> str:
    """`filename`, which the file `source` names from its own folder on, from data/raw on."""
    folder = posixpath.dirname(source)
    return filename if is_absolute(filename) or not folder or not filename else f"{folder}/{filename}"


def read_text_file(path: Path, encoding: str) -> str:
    """The content of a text file in the declared encoding; utf-8 accepts a byte order mark.

    The encoding is never guessed: a wrong one is a GroundTruthError, because a text read wrongly would be taught
    wrongly. UTF-8 that is declared as something else is one, too.
    """
    return decode_text(path.read_bytes(), path.name, encoding)


def decode_text(content: bytes, name: str, encoding: str) -> str:
    """The same for the content of a file of that name."""
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
        raise GroundTruthError(f"{name}{where} is not valid {encoding}; {remedy}") from None
    if not is_utf8 and not content.isascii() and _is_utf8(content):
        raise GroundTruthError(f"{name} is UTF-8, prepare.encoding is {encoding}; set prepare.encoding to utf-8")
    if "\0" in text:
        raise GroundTruthError(f"{name} holds NUL, so it is not {encoding}; set prepare.encoding, perhaps utf-16")
    return text


def _is_utf8(content: bytes) -> bool:
    try:
        return "\0" not in content.decode("utf-8")
    except UnicodeDecodeError:
        return False
