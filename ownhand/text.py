"""Text: one normal form, and the units in which text is counted and compared."""

from __future__ import annotations

import unicodedata

import regex

_CLUSTER = regex.compile(r"\X")
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")
_VISIBLE = regex.compile(r"[^\p{Z}\p{C}]")


def to_nfc(text: str) -> str:
    """Unicode normal form C: "й" is one code point, whichever keyboard or file system it came from."""
    return unicodedata.normalize("NFC", text)


def clean_transcription(text: str) -> str:
    """A transcription as it is kept: NFC, line ends as "\\n", no white space around it; nothing else is touched.

    Line ends are made equal because the same table saved on Windows and on Linux must teach the same text.
    """
    return to_nfc(text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def collapse_whitespace(text: str) -> str:
    """Every run of white space, line breaks and no-break spaces included, as one space; none at the ends."""
    return " ".join(text.split())


def comparable(text: str) -> str:
    """The text as it is measured and shown: NFC, white space collapsed. Case and punctuation count."""
    return collapse_whitespace(to_nfc(text))


def is_blank(text: str) -> bool:
    """Whether nothing in the text would leave ink: white space, zero-width and control characters only."""
    return _VISIBLE.search(text) is None


def grapheme_clusters(text: str) -> list[str]:
    """What a reader calls characters (Unicode UAX 29): a letter with its combining marks is one, an emoji is one."""
    return list(_CLUSTER.findall(text))


def words(text: str) -> list[str]:
    """The words in lower case, without punctuation: what two texts are compared by when a line may stand in a page."""
    return list(_WORD.findall(to_nfc(text).casefold()))
