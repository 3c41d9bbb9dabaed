"""Examples: for a confusion, a line on which it happened, with the spot in the transcription and in the reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ownhand.evaluation.metrics import Edit, align
from ownhand.evaluation.readings import ScoredLine

CONTEXT = 16  # characters shown on each side of the spot


@dataclass(frozen=True)
class Spot:
    """A text around one place: what stands before, at and after it; `cut_before`, `cut_after`: there is more."""

    before: str
    at: str
    after: str
    cut_before: bool
    cut_after: bool


@dataclass(frozen=True)
class Example:
    """A confusion (written, read; "" is nothing), how often it happened, and one line with it."""

    written: str
    read: str
    times: int
    line: ScoredLine
    truth: Spot
    prediction: Spot


def find_examples(lines: Sequence[ScoredLine], confusions: Sequence[tuple[str, str, int]]) -> list[Example]:
    """One example for each of `confusions` (written, read, times), in their order, of the adapter.

    The line is the one that was read best otherwise, where the spot is easiest to find; another confusion's line is
    taken again only when there is no other.
    """
    ordered = sorted(lines, key=lambda line: (line.scores["adapter"].cer, line.sample.image_id))
    places: dict[tuple[str, str], list[tuple[ScoredLine, list[Edit], int, int]]] = {
        (written, read): [] for written, read, _ in confusions
    }
    for line in ordered:
        edits = align(line.sample.text, line.adapter.text)
        for written, read, number, offset in _confused(edits):
            if (written, read) in places:
                places[written, read].append((line, edits, number, offset))
    examples: list[Example] = []
    used: set[str] = set()
    for written, read, times in confusions:
        found = places[written, read]
        line, edits, number, offset = next((p for p in found if p[0].sample.image_id not in used), found[0])
        used.add(line.sample.image_id)
        truth = _spot([edit.truth for edit in edits], number, offset)
        prediction = _spot([edit.prediction for edit in edits], number, offset)
        examples.append(Example(written, read, times, line, truth, prediction))
    return examples


def _confused(edits: Sequence[Edit]) -> Iterator[tuple[str, str, int, int]]:
    """(written, read, number of the edit, offset in it) for every single confusion."""
    for number, edit in enumerate(edits):
        if edit.kind != "equal":
            for offset in range(max(len(edit.truth), len(edit.prediction))):
                yield (
                    "".join(edit.truth[offset : offset + 1]),
                    "".join(edit.prediction[offset : offset + 1]),
                    number,
                    offset,
                )


def _spot(parts: Sequence[tuple[str, ...]], number: int, offset: int) -> Spot:
    before = [cluster for part in parts[:number] for cluster in part] + list(parts[number][:offset])
    after = list(parts[number][offset + 1 :]) + [cluster for part in parts[number + 1 :] for cluster in part]
    return Spot(
        before="".join(before[-CONTEXT:]),
        at="".join(parts[number][offset : offset + 1]),
        after="".join(after[:CONTEXT]),
        cut_before=len(before) > CONTEXT,
        cut_after=len(after) > CONTEXT,
    )
