"""Error rates: how far a prediction is from its transcription.

The headline is the character error rate over grapheme clusters: Levenshtein distance, every insertion, deletion and
substitution counting 1, divided by the number of clusters of the transcription. Both texts are compared in NFC with
runs of whitespace, line breaks included, collapsed to one space. Nothing is clipped: a prediction that is longer than
its transcription can pass 100 %.

Beside it stand the rate over Unicode code points and the word error rate, both jiwer's, as most tools give them; and a
lenient rate, which forgives what a reader would (RULES; the report shows them), because "Елка" for "Ёлка" or a wrong
kind of dash is an error for an archive and none for a search. The arithmetic over clusters is that of dinglehopper.

Counting functions return (errors, n), so that callers can add them up and divide once (the micro-average).
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import jiwer
from rapidfuzz.distance import Levenshtein

from ownhand.text import collapse_whitespace, comparable, grapheme_clusters

QUOTES = "\"'`´«»‹›„‚“”‟‘’‛′″"
DASHES = "-‐‑‒–—―−"
CLEAR_RISE = 0.1  # nats per token that the pictures of other lines must add to the loss of a model that reads its own


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


EditKind = Literal["equal", "substitution", "insertion", "deletion"]
KINDS: dict[str, EditKind] = {
    "equal": "equal",
    "replace": "substitution",
    "insert": "insertion",
    "delete": "deletion",
}


@dataclass(frozen=True)
class Edit:
    """A stretch of an alignment; the clusters of `truth` were read as those of `prediction`.

    An insertion has no truth, a deletion no prediction; a substitution has equally many clusters on both sides.
    """

    kind: EditKind
    truth: tuple[str, ...]
    prediction: tuple[str, ...]


@dataclass(frozen=True)
class Score:
    """One prediction against its transcription, as counts that can be added over lines.

    characters: grapheme clusters of the transcription; insertions: characters read that are not there; deletions:
    characters not read; code_points, words: of the transcription; lenient_characters: of the transcription after the
    RULES, possibly 0; blank: of the prediction.
    """

    characters: int
    insertions: int
    deletions: int
    substitutions: int
    code_points: int
    code_point_errors: int
    lenient_characters: int
    lenient_errors: int
    words: int
    word_errors: int
    blank: bool

    @property
    def character_errors(self) -> int:
        """Insertions, deletions and substitutions together."""
        return self.insertions + self.deletions + self.substitutions

    @property
    def exact(self) -> bool:
        """Whether the line has no error."""
        return self.character_errors == 0

    @property
    def cer(self) -> float:
        """The CER of this line alone; ZeroDivisionError for an empty transcription, which `prepare` refuses."""
        return self.character_errors / self.characters


def count_character_errors(truth: str, prediction: str) -> tuple[int, int]:
    """(Levenshtein distance, length of the transcription) in grapheme clusters, as in `score`, where these two suffice.

    An empty transcription gives n = 0.
    """
    reference = grapheme_clusters(comparable(truth))
    return Levenshtein.distance(reference, grapheme_clusters(comparable(prediction))), len(reference)


def count_code_point_errors(truth: str, prediction: str) -> tuple[int, int]:
    """The same in Unicode code points, as jiwer counts them."""
    return _count(jiwer.process_characters(comparable(truth), comparable(prediction)))


def count_lenient_errors(truth: str, prediction: str, rules: Sequence[Rule] = RULES) -> tuple[int, int]:
    """The same in grapheme clusters after `rules` were applied to both; n is 0 for a line of punctuation alone."""
    reference = grapheme_clusters(forgive(comparable(truth), rules))
    return Levenshtein.distance(reference, grapheme_clusters(forgive(comparable(prediction), rules))), len(reference)


def count_word_errors(truth: str, prediction: str) -> tuple[int, int]:
    """The same in words, as jiwer counts them: what whitespace separates; punctuation is part of its word."""
    return _count(jiwer.process_words(comparable(truth), comparable(prediction)))


def _count(output: jiwer.CharacterOutput | jiwer.WordOutput) -> tuple[int, int]:
    missed = output.substitutions + output.deletions
    return missed + output.insertions, missed + output.hits


def micro_average(counts: Iterable[tuple[int, int]]) -> float:
    """All errors over all n; a long line weighs more than a short one. ValueError when n is 0 in all."""
    pairs = list(counts)
    errors, n = sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
    if n == 0:
        raise ValueError("an error rate needs at least one character or word of transcription; there is none")
    return errors / n


def align(truth: str, prediction: str) -> list[Edit]:
    """The cheapest way from transcription to prediction, in order, neighbours of one kind joined.

    Where several ways cost the same, RapidFuzz's choice is taken; it is always the same one.
    """
    reference, hypothesis = grapheme_clusters(comparable(truth)), grapheme_clusters(comparable(prediction))
    return [
        Edit(
            KINDS[step.tag],
            tuple(reference[step.src_start : step.src_end]),
            tuple(hypothesis[step.dest_start : step.dest_end]),
        )
        for step in Levenshtein.opcodes(reference, hypothesis)
    ]


def mark_differences(truth: str, prediction: str) -> list[tuple[str, str]]:
    """The prediction as (kind, text) stretches; the text of a "deletion" is what is missing from the prediction."""
    return [
        (edit.kind, "".join(edit.truth if edit.kind == "deletion" else edit.prediction))
        for edit in align(truth, prediction)
    ]


def score(truth: str, prediction: str) -> Score:
    """Everything that is counted on one line."""
    edits = align(truth, prediction)
    code_point_errors, code_points = count_code_point_errors(truth, prediction)
    lenient_errors, lenient_characters = count_lenient_errors(truth, prediction)
    word_errors, words = count_word_errors(truth, prediction)
    return Score(
        characters=sum(len(edit.truth) for edit in edits),
        insertions=sum(len(edit.prediction) for edit in edits if edit.kind == "insertion"),
        deletions=sum(len(edit.truth) for edit in edits if edit.kind == "deletion"),
        substitutions=sum(len(edit.truth) for edit in edits if edit.kind == "substitution"),
        code_points=code_points,
        code_point_errors=code_point_errors,
        lenient_characters=lenient_characters,
        lenient_errors=lenient_errors,
        words=words,
        word_errors=word_errors,
        blank=not comparable(prediction),
    )


def count_confusions(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str, int]]:
    """(transcription, prediction, count) per confused character over (truth, prediction) texts, most frequent first.

    A character that was not read has prediction "", one that was added has transcription "". Equal counts stand in
    code-point order.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for truth, prediction in pairs:
        for edit in align(truth, prediction):
            if edit.kind == "substitution":
                counts.update(zip(edit.truth, edit.prediction, strict=True))
            elif edit.kind == "deletion":
                counts.update((character, "") for character in edit.truth)
            elif edit.kind == "insertion":
                counts.update(("", character) for character in edit.prediction)
    return sorted(
        ((truth, prediction, count) for (truth, prediction), count in counts.items()),
        key=lambda row: (-row[2], row[0], row[1]),
    )


def count_wrong_characters(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, int, int]]:
    """(character, times misread or missed, occurrences) per character of the transcriptions, most often wrong first."""
    occurrences: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for truth, prediction in pairs:
        for edit in align(truth, prediction):
            occurrences.update(edit.truth)
            if edit.kind != "equal":
                wrong.update(edit.truth)
    rows = [(character, wrong[character], count) for character, count in occurrences.items()]
    return sorted(rows, key=lambda row: (-row[1], row[2], row[0]))
