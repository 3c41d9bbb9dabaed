"""Folds: each sample is held out once, never while something of its group is trained on, and as evenly as can be."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from conftest import written
from test_splits import POEM, letters, notebook

from ownhand.dataset.splits import SplitRules, split_samples
from ownhand.errors import Refusal
from ownhand.samples import Sample
from ownhand.training import folds as module
from ownhand.training.folds import assign_folds

LONG = "Миновало почти десятилетие с тех пор, как произошел прорыв в разработке сетей"


def sample(number: int, text: str, page: str, group: int) -> Sample:
    image_id = f"{number:05d}"
    return Sample(image_id, "", text, f"{number}.jpg", page, "", 300, 64, "train", image_id, f"{group:05d}")


def pages(lines: Sequence[int]) -> list[Sample]:
    """Pages of so many lines, each page its own group."""
    made: list[Sample] = []
    for page, count in enumerate(lines):
        first = len(made) + 1
        made += [sample(first + i, f"строка {i} на листе {page}", f"p{page}", first) for i in range(count)]
    return made


def given_away(samples: Sequence[Sample], folds: Sequence[int]) -> list[str]:
    """What of a held-out sample is trained on in its own fold, found without looking at how folds are made."""
    found = []
    for one, fold in zip(samples, folds, strict=True):
        trained = [other for other, of in zip(samples, folds, strict=True) if of != fold]
        for other in trained:
            if one.page == other.page or one.group == other.group:
                found.append(f"{one.image_id} by {other.image_id}")
    return found


@pytest.fixture
def entangled() -> list[Sample]:
    """Three plain pages, two pages that prepare joined, and a page of a text that stands in that of another."""
    return [
        *pages([3, 4, 2]),
        sample(20, "поздравляю", "x", 20),
        sample(21, "с праздником", "x", 20),
        sample(22, "поздравляю", "y", 20),
        sample(30, LONG, "photo", 30),
        sample(31, "Миновало почти десятилетие", "line", 31),
    ]


@pytest.mark.parametrize("folds", [2, 3, 4, 5])
def test_nothing_of_a_held_out_sample_is_trained_on(entangled: list[Sample], folds: int) -> None:
    assigned = assign_folds(entangled, folds)
    assert set(assigned) == set(range(1, folds + 1))
    assert given_away(entangled, assigned) == []


def test_the_check_above_finds_folds_that_ignore_groups(
    entangled: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "join_groups", lambda samples: list(range(len(samples))))
    found = given_away(entangled, assign_folds(entangled, 4))
    assert any(one.startswith("00022") for one in found)


def test_folds_are_even_and_the_same_in_every_order_of_pages(entangled: list[Sample]) -> None:
    many = pages([4] * 30)
    assigned = assign_folds(many, 4)
    sizes = sorted(assigned.count(fold) for fold in range(1, 5))
    assert sizes == [28, 28, 32, 32]
    shuffled = random.Random(1).sample(many, len(many))
    again = dict(zip((one.image_id for one in shuffled), assign_folds(shuffled, 4), strict=True))
    together = {frozenset(i for i, f in again.items() if f == fold) for fold in range(1, 5)}
    assert together == {
        frozenset(one.image_id for one, of in zip(many, assigned, strict=True) if of == fold) for fold in range(1, 5)
    }


def test_one_long_photograph_is_a_fold_of_its_own_when_the_rest_is_short() -> None:
    samples = [sample(1, LONG * 3, "photo", 1), *(sample(n, f"слово {n}", f"p{n}", n) for n in range(2, 9))]
    assigned = assign_folds(samples, 3)
    assert assigned.count(assigned[0]) == 1


def test_more_folds_than_groups_are_refused_with_the_number_that_is_possible(entangled: list[Sample]) -> None:
    with pytest.raises(Refusal, match=r"evaluate.folds is 7, but 14 sample\(s\) make only 6 group"):
        assign_folds(entangled, 7)
    with pytest.raises(Refusal, match=r"set it to at most 6.*prepare\.same_text_characters"):
        assign_folds(entangled, 7)
    with pytest.raises(Refusal, match="set it to 0, or add pages"):
        assign_folds(pages([4]), 2)


def test_samples_without_their_groups_are_refused() -> None:
    one, *rest = pages([1, 1, 1])
    unknown = Sample(**{**vars(one), "group": ""})
    with pytest.raises(Refusal, match="dvc repro --force prepare"):
        assign_folds([unknown, *rest], 2)


def grouped(samples: Sequence[Sample]) -> list[Sample]:
    """The samples with the groups that prepare gives them."""
    groups = split_samples(samples, [], SplitRules(0.25, 7)).groups
    return [
        replace(sample(number, one.text, one.page, groups[number]), hand=one.hand) for number, one in enumerate(samples)
    ]


@pytest.mark.parametrize("folds", [2, 4, 5])
@pytest.mark.parametrize("samples", [letters(50), notebook()], ids=["letters", "notebook"])
def test_folds_of_letters_and_of_a_notebook_are_equal_within_a_fifth(samples: list[Sample], folds: int) -> None:
    assigned = assign_folds(grouped(samples), folds)
    for size in (assigned.count(fold) for fold in range(1, folds + 1)):
        assert abs(size / (len(samples) / folds) - 1) <= 0.2
    characters = [
        sum(len(one.text) for one, of in zip(samples, assigned, strict=True) if of == fold)
        for fold in range(1, folds + 1)
    ]
    assert max(characters) <= 1.2 * sum(characters) / folds


@pytest.mark.parametrize("folds", [2, 4, 5])
def test_a_poem_on_two_pages_is_held_out_at_once(folds: int) -> None:
    copies = [written("", page, text) for page in ("draft", "fair copy") for text in POEM]
    assert len(set(assign_folds(grouped([*notebook(), *copies]), folds)[-2 * len(POEM) :])) == 1
