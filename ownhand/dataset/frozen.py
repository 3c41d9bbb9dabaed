"""Frozen sides: a list in data/raw says which pages validate or test, so that numbers stay comparable while data grow.

The list must lie in data/raw, because DVC watches that folder. It holds one name per line: a picture's file name from
data/raw on, or a page. A picture stands for its whole page, since a page is never on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ownhand.errors import Refusal
from ownhand.text import to_nfc

SHOWN = 10


def read_frozen(
    raw: Path, lists: dict[str, str | None], names: Sequence[str], pages: Sequence[tuple[str, str]]
) -> list[str]:
    """The side of each sample that a list names, "" for the others.

    lists: side to the list's name below `raw`, None for a side without one; names: original file name of each sample,
    pages: its (hand, page). Raises Refusal for a list that is not there, for names that are no accepted sample's, and
    for pages that two lists name.
    """
    places: dict[str, set[tuple[str, str]]] = {}
    for name, page in zip(names, pages, strict=True):
        places.setdefault(name, set()).add(page)
        places.setdefault(page[1], set()).add(page)
    problems = []
    sides: dict[tuple[str, str], str] = {}
    for side, file in lists.items():
        if file is None:
            continue
        wanted = _read_list(raw, side, file)
        unknown = [name for name in wanted if name not in places]
        if unknown:
            shown = "".join(f"\n  {name}" for name in unknown[:SHOWN])
            rest = f"\n  and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
            problems.append(
                f"prepare.{side}: {len(unknown)} of {len(wanted)} names in {file} are no accepted picture and no page; "
                f"metrics/rejected.csv may say why:{shown}{rest}"
            )
        for page in sorted({page for name in wanted for page in places.get(name, ())}):
            if sides.setdefault(page, side) != side:
                problems.append(f"prepare.{side}: page {page[1]!r} stands in the list of prepare.{sides[page]}, too")
    if problems:
        raise Refusal("\n".join(problems))
    return [sides.get(page, "") for page in pages]


def _read_list(raw: Path, side: str, file: str) -> list[str]:
    path = raw / file
    if not path.resolve().is_relative_to(raw.resolve()):
        raise Refusal(f"prepare.{side}: {file} must lie in {raw.as_posix()}, where DVC sees its changes")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"prepare.{side}: the list {path.as_posix()} cannot be read as UTF-8 text: {error}") from None
    return [to_nfc(line.strip()) for line in lines if line.strip()]
