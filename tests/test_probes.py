"""Probes: the same pictures for every data set, and swaps that are swaps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from conftest import ROOT

from ownhand.samples import Sample
from ownhand.vision.probes import LINES, open_printed, printed_lines, probe_pictures, probe_samples, swap


def validation(count: int, text: str = "line {}") -> list[Sample]:
    return [
        Sample(f"{n:05d}", f"{n}.jpg", text.format(n), f"{n}.jpg", f"p{n // 4}", "", 300 + n, 64, "val", str(n))
        for n in range(count)
    ]


def test_printed_lines_are_unlike_each_other_and_each_has_its_picture() -> None:
    lines = printed_lines()
    assert len({open_printed(line).tobytes() for line in lines}) == 48
    assert len({line.text for line in lines}) == len({line.key for line in lines}) == len(lines) == 48


def test_printed_texts_are_not_those_of_the_demo() -> None:
    seen = "\n".join(
        (ROOT / f"demo/texts/{name}").read_text(encoding="utf-8") for name in ("hand.tsv", "pretraining.txt")
    )
    assert not [line.text for line in printed_lines() if line.text in seen]


def test_probed_lines_are_few_and_spread_over_all_pages() -> None:
    assert probe_samples(validation(7)) == validation(7)
    chosen = probe_samples(validation(100))
    assert len(chosen) == LINES == len({sample.page for sample in chosen})
    assert probe_samples([replace(sample, split="train") for sample in validation(3)]) == []


def test_a_blank_picture_is_white_and_as_large_as_the_line() -> None:
    pictures = probe_pictures(validation(2))
    assert pictures["blank/00001"].size == (301, 64)
    assert np.asarray(pictures["blank/00001"]).min() == 255
    assert len(pictures) == 2 + 48


def test_every_line_gets_the_picture_of_another_text() -> None:
    samples = [*validation(3, "a"), *validation(3)]
    swapped = swap(samples)
    assert len(swapped) == 6
    assert all(sample.text != other.text for sample, other in zip(samples, swapped, strict=True))


def test_lines_of_one_text_cannot_be_swapped() -> None:
    assert swap(validation(4, "a")) == [] == swap(validation(1))
