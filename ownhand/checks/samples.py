"""The samples and their split: what they can teach, and what their numbers can tell.

That nothing leaks is what `prepare` proves, in metrics/split.json.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ownhand.checks.findings import Finding, blocker, count, ready, warning
from ownhand.checks.lengths import Lengths
from ownhand.dataset.repeats import find_contained, text_key
from ownhand.errors import Refusal
from ownhand.files import read_table
from ownhand.samples import Sample
from ownhand.text import collapse_whitespace, grapheme_clusters, to_nfc
from ownhand.training.folds import assign_folds

SHOWN = 5
EXAMPLE_CHARACTERS = 60
TRAINED_SHARE = 0.1  # of the validation lines: from here on texts that were trained on move the rate notably
BYTES_SHARE = 0.01  # of all characters: from here on texts become notably longer


@dataclass(frozen=True)
class SampleFacts:
    """The samples and what was found out about them.

    rejected: number of samples by kind of rejection; unfit_files: what is no file in data/raw, by name, and what it is;
    missing: pictures that are not on the disk; in_bytes: how often characters stand in the texts that are several
    tokens; lost: characters that the tokenizer cannot express; min_pages, folds: of evaluate; max_tokens: of
    train.
    """

    samples: list[Sample]
    rejected: Counter[str]
    missing: list[Sample]
    in_bytes: Counter[str]
    lost: tuple[str, ...]
    lengths: Lengths | None
    min_pages: int
    folds: int
    max_tokens: int
    unfit_files: Mapping[str, str] = field(default_factory=dict)

    def side(self, split: str) -> list[Sample]:
        return [sample for sample in self.samples if sample.split == split]


def read_rejections(path: Path) -> Counter[str]:
    """Rejected samples by kind."""
    return Counter(row["reason"].partition(":")[0] for row in read_table(path))


def find_missing(samples: Sequence[Sample]) -> list[Sample]:
    return [sample for sample in samples if not Path(sample.image_path).is_file()]


def check_samples(facts: SampleFacts) -> list[Finding]:
    """Findings DATA-001 to DATA-014."""
    unfit = _unfit_files(facts)
    if not facts.side("train") or not facts.side("val"):
        seen = f"{len(facts.side('train'))} training and {len(facts.side('val'))} validation samples"
        return [blocker("DATA-001", seen, "run `dvc repro prepare` and mend what it says"), unfit]
    checks = (_counts, _validation, _texts, _contained, _unseen, _bytes, _lost, _rejected)
    return [*(finding for check in (*checks, _longest, _missing, _folds) for finding in check(facts)), unfit]


def _counts(facts: SampleFacts) -> Iterator[Finding]:
    parts = []
    for split, name in (("train", "training"), ("val", "validation")):
        side = facts.side(split)
        pages, characters = len(_page_names(side)), sum(len(grapheme_clusters(one.text)) for one in side)
        numbers = f"{count(len(side), 'line')} on {count(pages, 'page')}, {count(characters, 'character')}"
        parts.append(f"{name}: {numbers}")
    hands = len({sample.hand for sample in facts.samples})
    yield ready("DATA-001", "; ".join([*parts, count(hands, "hand")]))


def _validation(facts: SampleFacts) -> Iterator[Finding]:
    val, train = facts.side("val"), facts.side("train")
    pages = len(_page_names(val))
    more = "add pages" if facts.folds else "add pages, or let all of them validate in turn (evaluate.folds)"
    remedy = f"{more}; until then read the predictions yourself and trust no rate"
    if len(val) == 1:
        seen = f"1 validation line beside {count(len(train), 'training line')}: an interval is impossible"
        yield warning("DATA-002", seen, remedy)
    elif pages < facts.min_pages:
        seen = f"{count(pages, 'validation page')}, evaluate.min_pages is {facts.min_pages}: no interval will be given"
        yield warning("DATA-002", seen, remedy)
    else:
        yield ready("DATA-002", f"{len(val)} validation lines on {pages} pages: rates will have an interval")


def _texts(facts: SampleFacts) -> Iterator[Finding]:
    val = facts.side("val")
    trained = {text_key(one.text) for one in facts.side("train")}
    lines = [one for one in val if text_key(one.text) in trained]
    if not lines:
        yield ready("DATA-003", "none")
        return
    example = collapse_whitespace(lines[0].text)[:EXAMPLE_CHARACTERS]
    seen = (
        f"{len(lines)} of {count(len(val), 'validation line')} have a text that is trained on, too, such as "
        f'"{example}"; cer_unseen_texts leaves them out'
    )
    if len(lines) > TRAINED_SHARE * len(val):
        remedy = "trust cer_unseen_texts more than cer; where these are copies and no habits, give them the same page"
        yield warning("DATA-003", seen, remedy)
    else:
        yield ready("DATA-003", seen)


def _contained(facts: SampleFacts) -> Iterator[Finding]:
    samples = facts.samples
    found = find_contained([one.text for one in samples], [one.place for one in samples])
    pairs = [(samples[i], samples[j]) for i, j in found if samples[i].split != samples[j].split]
    if pairs:
        inner, outer = pairs[0]
        more = f" (and {len(pairs) - 1} more)" if len(pairs) > 1 else ""
        yield warning(
            "DATA-004",
            f"the text of {inner.original_filename} ({inner.split}) stands inside that of {outer.original_filename} "
            f"({outer.split}){more}: it can be recited",
            "give both the same page in annotations.csv, so that they stand on one side",
        )
    else:
        yield ready("DATA-004", "none from one side to the other")


def _unseen(facts: SampleFacts) -> Iterator[Finding]:
    known = {character for sample in facts.side("train") for character in to_nfc(sample.text)}
    validated = Counter(character for sample in facts.side("val") for character in to_nfc(sample.text))
    unseen = {character: times for character, times in validated.items() if character not in known}
    if unseen:
        share = sum(unseen.values()) / validated.total()
        yield warning(
            "DATA-007",
            f"{_name_characters(unseen)} in validation texts, in no training text ({share:.1%} of the characters)",
            "add training lines with them, or expect them to be read as before training",
        )
    else:
        yield ready("DATA-007", "every character of the validation texts occurs in training")


def _bytes(facts: SampleFacts) -> Iterator[Finding]:
    total = sum(len(sample.text) for sample in facts.samples)
    if not facts.in_bytes:
        yield ready("DATA-008", "every character is one token or part of a longer one")
        return
    share = facts.in_bytes.total() / total
    seen = f"{_name_characters(facts.in_bytes)}: {share:.1%} of all characters"
    if share > BYTES_SHARE:
        yield warning("DATA-008", seen, "nothing is wrong; expect these to need more training lines")
    else:
        yield ready("DATA-008", seen)


def _lost(facts: SampleFacts) -> Iterator[Finding]:
    if facts.lost:
        names = ", ".join(f"{character!r} ({unicodedata.name(character, 'unnamed')})" for character in facts.lost)
        remedy = "replace these characters in annotations.csv and run `dvc repro prepare`"
        yield blocker("DATA-009", names, remedy)
    else:
        yield ready("DATA-009", "none")


def _rejected(facts: SampleFacts) -> Iterator[Finding]:
    rejected = facts.rejected.total()
    share = rejected / (rejected + len(facts.samples))
    if rejected:
        reasons = ", ".join(f"{times} x {kind}" for kind, times in sorted(facts.rejected.items()))
        yield warning("DATA-010", f"{rejected} ({share:.0%}): {reasons}", "read metrics/rejected.csv and mend data/raw")
    else:
        yield ready("DATA-010", "none")


def _longest(facts: SampleFacts) -> Iterator[Finding]:
    if facts.lengths is None:
        return
    lengths, limit = facts.lengths, facts.max_tokens
    name = lengths.sample.original_filename
    seen = f"{lengths.longest} tokens ({name}, {lengths.vision} of them vision), the limit is {limit}"
    if lengths.longest > limit:
        remedy = "raise train.max_tokens, shorten the text, or use an encode.mode with fewer vision tokens"
        yield blocker("DATA-011", seen, remedy)
    else:
        yield ready("DATA-011", seen)


def _missing(facts: SampleFacts) -> Iterator[Finding]:
    if facts.missing:
        names = ", ".join(sample.image_path for sample in facts.missing[:SHOWN])
        seen = f"{len(facts.missing)} of {len(facts.samples)} are missing, such as {names}"
        yield blocker("DATA-012", seen, "run `dvc repro --force prepare`")
    else:
        yield ready("DATA-012", "all there")


def _folds(facts: SampleFacts) -> Iterator[Finding]:
    if not facts.folds:
        yield ready("DATA-013", "evaluate.folds is 0: there is no cross-validation")
        return
    try:
        folds = assign_folds(facts.samples, facts.folds)
    except Refusal as refusal:
        yield blocker("DATA-013", str(refusal), "lower evaluate.folds, or add pages")
        return
    least = count(len(folds) - max(Counter(folds).values()), "line")
    seen = f"each of {count(len(_page_names(facts.samples)), 'page')} is read once; at least {least} train each adapter"
    yield ready("DATA-013", f"{facts.folds} trainings more: {seen}")


def _unfit_files(facts: SampleFacts) -> Finding:
    if not facts.unfit_files:
        return ready("DATA-014", "every entry is a file or a folder")
    names = [f"{name} is {what}" for name, what in facts.unfit_files.items()]
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return blocker("DATA-014", ", ".join(names[:SHOWN]) + more, "remove them from data/raw, or put the files there")


def _page_names(samples: Sequence[Sample]) -> set[tuple[str, str]]:
    return {sample.place for sample in samples}


def _name_characters(counted: dict[str, int]) -> str:
    order = sorted(counted, key=lambda character: (-counted[character], character))
    more = f" and {len(order) - 2 * SHOWN} more" if len(order) > 2 * SHOWN else ""
    return " ".join(f"{character!r}"[1:-1] for character in order[: 2 * SHOWN]) + more
