"""Lenient comparison: what a reader of the text would forgive, as a table of rules that the report shows.

The headline rate forgives nothing but Unicode forms and runs of whitespace. The lenient rate stands beside it, because
"Елка" for "Ёлка" or a wrong kind of dash is an error for an archive and none for a search.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ownhand.text import collapse_whitespace

QUOTES = "\"'`´«»‹›„‚“”‟‘’‛′″"
DASHES = "-‐‑‒–—―−"


@dataclass(frozen=True)
class Rule:
    """One thing that is forgiven: its name, its meaning in words, and what it makes of a text."""

    name: str
    meaning: str
    apply: Callable[[str], str]


def _drop_punctuation(text: str) -> str:
    return "".join(character for character in text if not unicodedata.category(character).startswith("P"))


_ONE_QUOTE = str.maketrans(dict.fromkeys(QUOTES, '"'))
_ONE_DASH = str.maketrans(dict.fromkeys(DASHES, "-"))
_NO_YO = str.maketrans({"ё": "е", "Ё": "Е"})

RULES = (
    Rule("case", "capital letters as small ones", str.lower),
    Rule("ё", "as е", lambda text: text.translate(_NO_YO)),
    Rule(
        "quotes",
        f"quotation marks and apostrophes of all kinds as one: {' '.join(QUOTES)}",
        lambda t: t.translate(_ONE_QUOTE),
    ),
    Rule("dashes", f"hyphens, dashes and minus signs as one: {' '.join(DASHES)}", lambda t: t.translate(_ONE_DASH)),
    Rule("punctuation", "left out, whatever Unicode calls punctuation", _drop_punctuation),
)


def forgive(text: str, rules: Sequence[Rule] = RULES) -> str:
    """An NFC text with all `rules` applied in order and its whitespace collapsed again; it may become empty."""
    for rule in rules:
        text = rule.apply(text)
    return collapse_whitespace(text)
