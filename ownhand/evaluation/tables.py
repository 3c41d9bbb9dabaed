"""Tables: the error rates of every reader broken down by page, hand, length and script.

A row is a dictionary whose keys are the columns of the CSV file in metrics/tables; rates are shares.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import regex

from ownhand.evaluation.metrics import RULES, align, count_lenient_errors, micro_average
from ownhand.evaluation.readings import ScoredLine, readers_of

SCRIPTS = {
    "Cyrillic": regex.compile(r"\p{Cyrillic}"),
    "Latin": regex.compile(r"\p{Latin}"),
    "digits": regex.compile(r"\p{N}"),
    "punctuation": regex.compile(r"[\p{P}\p{S}]"),
    "space": regex.compile(r"\s"),
}
OTHER_SCRIPT = "other"
NOTHING = "∅"  # stands for "no character" where an empty cell would not be drawn
CONFUSED_CHARACTERS = 24  # of the drawn confusion matrix; a larger one cannot be read


def script_of(cluster: str) -> str:
    """The name in SCRIPTS that the first code point of a grapheme cluster belongs to, or "other"."""
    return next((name for name, pattern in SCRIPTS.items() if pattern.match(cluster)), OTHER_SCRIPT)


def length_class(characters: int) -> tuple[int, int]:
    """(fewest, most) characters of the class that a line belongs to: 1-5, 6-10, 11-15, 16-20, 21-30, 31-40, 41-60, …

    The classes are the same for every data set, so that runs can be compared.
    """
    low, high, step = 1, 5, 5
    while characters > high:
        low, high = high + 1, high + step
        step = high // 2 if high >= 4 * step else step
    return low, high


def by_page(lines: Sequence[ScoredLine]) -> list[dict[str, Any]]:
    """A row per page, the adapter's worst first."""
    rows = _grouped(lines, "page", lambda line: line.page)
    return sorted(rows, key=lambda row: (-row["adapter_cer"], row["page"]))


def by_hand(lines: Sequence[ScoredLine]) -> list[dict[str, Any]]:
    """A row per hand in order of name; a hand without a name is ""."""
    return sorted(_grouped(lines, "hand", lambda line: line.sample.hand), key=lambda row: row["hand"])


def by_length(lines: Sequence[ScoredLine]) -> list[dict[str, Any]]:
    """A row per class of lengths that occurs, short ones first; `characters_to` is the longest of its class."""
    rows = _grouped(lines, "characters_to", lambda line: length_class(line.characters)[1])
    rows.sort(key=lambda row: row["characters_to"])
    return [{"characters_from": length_class(row["characters_to"])[0], **row} for row in rows]


def by_script(lines: Sequence[ScoredLine]) -> list[dict[str, Any]]:
    """A row per script that is written or was read.

    Substitutions and deletions count for the script of the written character, insertions for that of the added one;
    so the errors and the characters of all rows add up to those of the CER. The rate is None where a script is read
    but never written.
    """
    readers = readers_of(lines)
    written: Counter[str] = Counter()
    errors: dict[str, Counter[str]] = {reader: Counter() for reader in readers}
    for line in lines:
        for number, reader in enumerate(readers):
            for edit in align(line.sample.text, line.readings[reader].text):
                if number == 0:
                    written.update(script_of(cluster) for cluster in edit.truth)
                if edit.kind != "equal":
                    errors[reader].update(script_of(cluster) for cluster in edit.truth or edit.prediction)
    rows = []
    for script in (*SCRIPTS, OTHER_SCRIPT):
        if written[script] or any(errors[reader][script] for reader in readers):
            row: dict[str, Any] = {"script": script, "characters": written[script]}
            for reader in readers:
                wrong = errors[reader][script]
                row[f"{reader}_errors"] = wrong
                row[f"{reader}_cer"] = wrong / written[script] if written[script] else None
            rows.append(row)
    return rows


def by_leniency(lines: Sequence[ScoredLine]) -> list[dict[str, Any]]:
    """The CER as the lenient rules are applied one after another: the first row forgives nothing, the last all."""
    rows = []
    for number in range(len(RULES) + 1):
        row: dict[str, Any] = {"rule": "none", "meaning": "nothing is forgiven"}
        if number:
            row = {"rule": RULES[number - 1].name, "meaning": RULES[number - 1].meaning}
        for reader in readers_of(lines):
            counts = [
                count_lenient_errors(line.sample.text, line.readings[reader].text, RULES[:number]) for line in lines
            ]
            row[f"{reader}_cer"] = micro_average(counts) if any(n for _, n in counts) else None
        rows.append(row)
    return rows


def confusion_cells(confusions: Iterable[tuple[str, str, int]]) -> list[dict[str, str]]:
    """A row per single error of the most confused characters: what `dvc plots` counts into a confusion matrix."""
    rows = list(confusions)
    weight: Counter[str] = Counter()
    for truth, prediction, times in rows:
        weight.update({truth: times, prediction: times} if truth != prediction else {})
    shown = {character for character, _ in weight.most_common(CONFUSED_CHARACTERS)}
    return [
        {"truth": _shown(truth), "prediction": _shown(prediction)}
        for truth, prediction, times in rows
        if truth in shown and prediction in shown
        for _ in range(times)
    ]


def _shown(character: str) -> str:
    return {"": NOTHING, " ": "␣"}.get(character, character)


def _grouped(lines: Sequence[ScoredLine], column: str, key: Callable[[ScoredLine], Any]) -> list[dict[str, Any]]:
    """Per group: its key, lines, characters, and per reader the CER and the median of its lines' CERs."""
    groups: dict[Any, list[ScoredLine]] = {}
    for line in lines:
        groups.setdefault(key(line), []).append(line)
    rows = []
    for name, own in groups.items():
        row: dict[str, Any] = {column: name, "lines": len(own), "characters": sum(line.characters for line in own)}
        for reader in readers_of(lines):
            scores = [line.scores[reader] for line in own]
            row[f"{reader}_cer"] = micro_average((score.character_errors, score.characters) for score in scores)
            row[f"{reader}_cer_median"] = statistics.median(score.cer for score in scores)
        rows.append(row)
    return rows
