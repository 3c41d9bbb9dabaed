from __future__ import annotations

import random
import re

import pytest

from stages.lib.splits import Join, Split, SplitError, SplitRules, SplitSample, find_contained, split_samples

PAGE = "Миновало почти десятилетие с тех пор, как произошел прорыв в разработке и применении нейронных сетей."


def pages(sizes: list[int], hand: str = "") -> list[SplitSample]:
    """Pages of so many lines each; every text is another one."""
    return [
        SplitSample(hand, f"p{page}", f"{hand}строка {line} со страницы {page}")
        for page, size in enumerate(sizes)
        for line in range(size)
    ]


def split(
    samples: list[SplitSample], share: float = 0.25, seed: int = 7, same: list[tuple[int, int]] | None = None
) -> Split:
    return split_samples(samples, same or [], SplitRules(share, seed))


def validation(samples: list[SplitSample], result: Split) -> set[SplitSample]:
    return {sample for sample, side in zip(samples, result.sides, strict=True) if side == "val"}


def test_no_page_stands_on_both_sides() -> None:
    samples = pages([4, 3, 5, 4, 2, 6, 4, 4])
    validated = {sample.page for sample in validation(samples, split(samples))}
    trained = {sample.page for sample in set(samples) - validation(samples, split(samples))}
    assert validated and trained and not validated & trained


def test_the_same_page_name_of_two_hands_is_two_pages() -> None:
    samples = [SplitSample("Аня", "1", "раз"), SplitSample("Боря", "1", "два")]
    assert sorted(split(samples).sides) == ["train", "val"]
    with pytest.raises(SplitError):
        split([SplitSample("Аня", "1", "раз"), SplitSample("Аня", "1", "два")])


@pytest.mark.parametrize("seed", range(20))
def test_identical_texts_stand_on_one_side_whatever_their_white_space_and_unicode_form(seed: int) -> None:
    samples = [*pages([1] * 6), SplitSample("", "x", "Чай,  мо\u0438\u0306!"), SplitSample("", "y", "Чай,\nмой!")]
    result = split(samples, share=0.5, seed=seed)
    assert result.sides[6] == result.sides[7]
    assert result.joins == [Join(6, 7, "the same text")]


@pytest.mark.parametrize("seed", range(20))
def test_the_same_picture_stands_on_one_side_with_all_lines_of_its_pages(seed: int) -> None:
    samples = pages([2, 2, 2, 2])
    result = split(samples, share=0.5, seed=seed, same=[(0, 5)])
    assert len({result.sides[i] for i in (0, 1, 4, 5)}) == 1
    assert result.joins == [Join(0, 5, "the same picture")]


def test_copies_on_one_page_join_nothing() -> None:
    samples = [*pages([1, 1]), SplitSample("", "p0", "строка 0 со страницы 0")]
    assert split(samples, same=[(0, 2)]).joins == []


@pytest.mark.parametrize("sizes", [[1, 1], [9, 1], [1, 9], [50, 50], [1, 1, 1, 1]])
@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.99])
def test_both_sides_have_a_sample_whenever_there_are_two_groups(sizes: list[int], share: float) -> None:
    assert set(split(pages(sizes), share).sides) == {"train", "val"}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.8])
def test_the_share_is_met_to_within_half_a_page(seed: int, share: float) -> None:
    rng = random.Random(seed)
    samples = pages([rng.randint(1, 8) for _ in range(40)])
    assert abs(split(samples, share, seed).sides.count("val") - share * len(samples)) <= 4


def test_a_page_much_larger_than_the_share_is_left_to_training() -> None:
    samples = pages([30, 2, 2])
    assert {sample.page for sample in validation(samples, split(samples, 0.1))} <= {"p1", "p2"}


def test_the_split_depends_on_the_seed_and_on_nothing_else() -> None:
    samples = pages([3] * 20)
    chosen = validation(samples, split(samples))
    shuffled = random.Random(1).sample(samples, len(samples))
    assert validation(shuffled, split(shuffled)) == chosen
    assert any(validation(samples, split(samples, seed=seed)) != chosen for seed in range(5))


def test_new_pages_move_few_of_the_old_samples() -> None:
    old = pages([3] * 100)
    before = validation(old, split(old))
    new = [*old, *pages([3] * 10, "новая")]
    after = validation(new, split(new)) & set(old)
    assert len(before ^ after) <= 0.15 * len(old)


def test_one_group_is_an_error_that_says_what_ties_it_together() -> None:
    with pytest.raises(SplitError, match=r"2 sample\(s\) on 2 page\(s\).*\n  the same text: \"да\""):
        split([SplitSample("", "a", "да"), SplitSample("", "b", "да ")])
    with pytest.raises(SplitError, match="the same picture"):
        split(pages([1, 1]), same=[(0, 1)])
    with pytest.raises(SplitError, match=r"3 sample\(s\) on 1 page\(s\).*column page"):
        split(pages([3]))
    with pytest.raises(SplitError, match="no sample is left"):
        split([])


@pytest.mark.parametrize("seed", range(30))
def test_of_a_page_and_three_lines_no_line_that_stands_in_the_page_is_validated(seed: int) -> None:
    texts = [PAGE, "Отличная работа!", "Это лучшая команда.", "Миновало почти десятилетие"]
    result = split([SplitSample("", str(i), text) for i, text in enumerate(texts)], seed=seed)
    assert result.sides.count("val") == 1
    assert "val" in result.sides[1:3]
    assert result.contained == []


@pytest.mark.parametrize("seed", range(10))
def test_of_a_page_and_its_line_the_page_is_validated_and_the_rest_reported(seed: int) -> None:
    samples = [SplitSample("", "line", "миновало почти десятилетие"), SplitSample("", "page", PAGE)]
    result = split(samples, seed=seed)
    assert result.sides == ["train", "val"]
    assert result.contained == [(0, 1)]


def test_contained_texts_are_whole_words_in_a_row_in_any_case_and_punctuation() -> None:
    def inside(inner: str, outer: str) -> bool:
        return (0, 1) in find_contained([SplitSample("", "a", inner), SplitSample("", "b", outer)])

    assert inside("ПРОРЫВ в разработке!", PAGE)
    assert inside("применении, нейронных\nсетей", PAGE)
    assert not inside("рорыв в разработке", PAGE)
    assert not inside("прорыв и применении", PAGE)
    assert not inside("разработке прорыв в", PAGE)


def test_short_phrases_are_not_reported_as_contained() -> None:
    assert find_contained([SplitSample("", "a", "нейронных сетей"), SplitSample("", "b", PAGE)]) == []  # two words
    assert find_contained([SplitSample("", "a", "и в ту"), SplitSample("", "b", "да и в ту ночь шёл снег")]) == []


def test_identical_texts_do_not_contain_each_other() -> None:
    assert find_contained([SplitSample("", "a", PAGE), SplitSample("", "b", re.sub(" ", "\n", PAGE))]) == []
