from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from conftest import written

from ownhand.dataset.splits import (
    LENGTH_TOLERANCE,
    GroupFacts,
    Join,
    Split,
    SplitError,
    SplitRules,
    choose_groups,
    split_samples,
)
from ownhand.samples import Sample

PAGE = "Миновало почти десятилетие с тех пор, как произошел прорыв в разработке и применении нейронных сетей."


def pages(sizes: list[int], hand: str = "") -> list[Sample]:
    """Pages of so many lines each; every text is another one."""
    return [
        written(hand, f"p{page}", f"{hand}строка {line} со страницы {page}")
        for page, size in enumerate(sizes)
        for line in range(size)
    ]


def split(
    samples: list[Sample], share: float = 0.25, seed: int = 7, same: list[tuple[int, int]] | None = None
) -> Split:
    return split_samples(samples, same or [], SplitRules(share, seed))


def validation(samples: list[Sample], result: Split) -> set[Sample]:
    return {sample for sample, side in zip(samples, result.sides, strict=True) if side == "val"}


def test_no_page_stands_on_both_sides() -> None:
    samples = pages([4, 3, 5, 4, 2, 6, 4, 4])
    validated = {sample.page for sample in validation(samples, split(samples))}
    trained = {sample.page for sample in set(samples) - validation(samples, split(samples))}
    assert validated and trained and not validated & trained


def test_the_same_page_name_of_two_hands_is_two_pages() -> None:
    samples = [written("Аня", "1", "раз"), written("Боря", "1", "два")]
    assert sorted(split(samples).sides) == ["train", "val"]
    with pytest.raises(SplitError):
        split([written("Аня", "1", "раз"), written("Аня", "1", "два")])


@pytest.mark.parametrize("seed", range(20))
def test_long_texts_of_the_same_words_stand_on_one_side_whatever_their_form(seed: int) -> None:
    forms = ["Чай с вареньем,  дорого\u0438\u0306 мо\u0438\u0306!", "чай с вареньем\nдорогой мой"]
    samples = [*pages([1] * 6), *(written("", text, text) for text in forms)]
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
    samples = [*pages([1, 1]), written("", "p0", "строка 0 со страницы 0")]
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


def unrelated(pages: int) -> list[Sample]:
    """Pages of four lines that share no text with those of `pages`."""
    return [written("", f"новая {page}", f"лист {page}, ряд {row}") for page in range(pages) for row in range(4)]


def moved_pages(old: list[Sample], new: list[Sample], seed: int) -> int:
    before = split(old, seed=seed).sides
    after = split([*old, *new], seed=seed).sides[: len(old)]
    return len({sample.page for sample, was, now in zip(old, before, after, strict=True) if was != now})


@pytest.mark.parametrize("seed", range(20))
def test_an_unrelated_page_moves_at_most_one_of_a_hundred_old_pages(seed: int) -> None:
    assert moved_pages(pages([4] * 100), unrelated(1), seed) <= 1


@pytest.mark.parametrize("seed", range(20))
def test_a_tenth_of_unrelated_pages_moves_at_most_a_twentieth_of_the_old_ones(seed: int) -> None:
    assert moved_pages(pages([4] * 100), unrelated(10), seed) <= 5


def frozen(samples: list[Sample], sides: dict[str, str]) -> list[Sample]:
    return [replace(sample, split=sides.get(sample.page, "")) for sample in samples]


def test_frozen_pages_validate_whatever_else_is_there_and_all_others_train() -> None:
    rules = SplitRules(0.25, 7, frozen=frozenset({"val"}))
    for others in ([], unrelated(30)):
        samples = frozen([*pages([3] * 8), *others], {"p1": "val", "p4": "val"})
        result = split_samples(samples, [], rules)
        assert {sample.page for sample in validation(samples, result)} == {"p1", "p4"}
        assert result.sides.count("train") == len(samples) - 6


def test_what_shares_a_text_or_picture_with_a_frozen_page_neither_trains_nor_validates() -> None:
    samples = frozen([*pages([2, 2, 2]), written("", "p9", "строка 0 со страницы 1")], {"p1": "val"})
    result = split_samples(samples, [(0, 3)], SplitRules(0.25, 7, frozen=frozenset({"val"})))
    assert result.sides == ["", "", "val", "val", "train", "train", ""]
    assert result.left_out == [(0, 2), (1, 2), (6, 2)]


def test_a_test_share_takes_nothing_from_validation_and_shares_no_page_with_it() -> None:
    samples = pages([3] * 40)
    without = split(samples)
    result = split_samples(samples, [], SplitRules(0.25, 7, test_share=0.2))
    assert [side == "val" for side in result.sides] == [side == "val" for side in without.sides]
    assert result.sides.count("test") == 24
    assert len({(sample.page, side) for sample, side in zip(samples, result.sides, strict=True)}) == 40


def test_three_sides_need_three_groups() -> None:
    with pytest.raises(SplitError, match="training, validation and test need one each"):
        split_samples(pages([1, 1]), [], SplitRules(0.25, 7, test_share=0.2))


def test_lists_that_name_everything_leave_nothing_to_train_on() -> None:
    samples = frozen(pages([1, 1]), {"p0": "val", "p1": "val"})
    with pytest.raises(SplitError, match="no sample is left to train on"):
        split_samples(samples, [], SplitRules(0.25, 7, frozen=frozenset({"val"})))


def test_texts_shorter_than_the_parameter_join_no_pages() -> None:
    samples = [*pages([1] * 6), written("", "x", "да"), written("", "y", "да")]
    assert split_samples(samples, [], SplitRules(0.25, 7, same_text_characters=3)).joins == []
    assert len(split_samples(samples, [], SplitRules(0.25, 7, same_text_characters=2)).joins) == 1


def test_one_group_is_an_error_that_says_what_ties_it_together_and_which_parameter_does_it() -> None:
    text = "Буря мглою небо кроет"
    tied = (
        r"2 sample\(s\) on 2 page\(s\) make one group.*raise prepare\.same_text_characters \(20\).*\n  the same text: "
    )
    with pytest.raises(SplitError, match=tied + f'"{text}"'):
        split([written("", "a", text), written("", "b", f"{text} ")])
    with pytest.raises(SplitError, match="the same picture") as caught:
        split(pages([1, 1]), same=[(0, 1)])
    assert "same_text_characters" not in str(caught.value)  # it would not help
    with pytest.raises(SplitError, match=r"3 sample\(s\) on 1 page\(s\).*column page"):
        split(pages([3]))
    with pytest.raises(SplitError, match="no sample is left"):
        split([])


@pytest.mark.parametrize("seed", range(30))
def test_of_a_page_and_three_lines_no_line_that_stands_in_the_page_is_validated(seed: int) -> None:
    texts = [PAGE, "Отличная работа!", "Это лучшая команда.", "Миновало почти десятилетие"]
    result = split([written("", str(i), text) for i, text in enumerate(texts)], seed=seed)
    assert result.sides.count("val") == 1
    assert "val" in result.sides[1:3]
    assert result.contained == []


@pytest.mark.parametrize("seed", range(10))
def test_of_a_page_and_its_line_the_page_is_validated_and_the_rest_reported(seed: int) -> None:
    samples = [written("", "line", "миновало почти десятилетие"), written("", "page", PAGE)]
    result = split(samples, seed=seed)
    assert result.sides == ["train", "val"]
    assert result.contained == [(0, 1)]


# What a writer writes again and again, and what he copied.

GREETING = "Здравствуй, мама!"
POEM = [
    "Буря мглою небо кроет,",
    "Вихри снежные крутя;",
    "То, как зверь, она завоет,",
    "То заплачет, как дитя,",
]


def letters(count: int, greeting: str = GREETING) -> list[Sample]:
    """Letters of four lines that begin and end alike."""
    return [
        written("", f"letter {number}", text)
        for number in range(count)
        for text in (greeting, f"пишу тебе в {number} раз", f"у нас {number} градусов тепла", "Твой Алёша")
    ]


def notebook(pages: int = 75, lines: int = 32, seed: int = 1) -> list[Sample]:
    """A notebook as real ones are: page numbers, running titles, dates, signs, and words that stand on a few pages."""
    rng = random.Random(seed)
    made = []
    for page in range(pages):
        texts = [
            f"{page % 9 + 1}",
            "Лекции по истории древнего мира",
            "Курс второй, полугодие первое",
            f"{rng.randint(1, 28)} марта",
            "—",
            "I",
            "II",
        ]
        texts += [f"см. стр. {rng.randint(1, 40)}", rng.choice(["Итак,", "Вывод:", "и так далее"])]
        texts += [f"строка {line} на листе {page} о том же" for line in range(rng.randint(lines - 8, lines))]
        made += [written("", f"лист {page}", text) for text in texts]
    return made


@pytest.mark.parametrize("greeting", [GREETING, "Здравствуйте, мои дорогие мама и папа!"])
@pytest.mark.parametrize("seed", range(5))
def test_fifty_letters_with_one_greeting_are_fifty_groups(greeting: str, seed: int) -> None:
    samples = letters(50, greeting)
    result = split(samples, seed=seed)
    assert result.joins == [] and len(set(result.groups)) == 50
    assert abs(result.sides.count("val") / len(samples) - 0.25) <= 0.03


@pytest.mark.parametrize("share", [0.1, 0.2, 0.25, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_a_notebook_with_page_numbers_and_running_titles_is_split_by_its_pages(share: float, seed: int) -> None:
    samples = notebook()
    result = split(samples, share, seed)
    assert len(set(result.groups)) == 75
    assert abs(result.sides.count("val") / len(samples) - share) <= 0.03
    assert len({(sample.page, side) for sample, side in zip(samples, result.sides, strict=True)}) == 75


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("around", [letters(20), notebook(20)])
def test_a_poem_on_two_pages_stays_on_one_side(around: list[Sample], seed: int) -> None:
    copies = [written("", page, text) for page in ("draft", "fair copy") for text in POEM]
    result = split([*around, *copies], share=0.5, seed=seed)
    assert len(set(result.sides[len(around) :])) == 1
    assert [join.reason for join in result.joins] == ["the same text"]


@pytest.mark.parametrize("seed", range(20))
def test_a_page_that_was_photographed_many_times_stays_on_one_side(seed: int) -> None:
    page = [GREETING, *POEM, *(f"и ещё {line} строка листа" for line in range(6)), "Алёша"]
    again = [written("", f"photo {number}", text) for number in range(6) for text in page]
    result = split([*letters(20), *again], share=0.5, seed=seed)
    assert len(set(result.sides[80:])) == 1
    assert [join.reason for join in result.joins] == ["the same passage"] * 5


@pytest.mark.parametrize("seed", range(20))
def test_a_passage_with_other_line_breaks_stays_on_one_side(seed: int) -> None:
    words = " ".join(POEM * 3).split()
    other = [" ".join(words[at : at + 7]) for at in range(0, len(words), 7)]
    pages_of = {"lines": POEM * 3, "other lines": other, "prose": [" ".join(words)], "again": POEM * 3, "last": other}
    copies = [written("", page, text) for page, texts in pages_of.items() for text in texts]
    assert len(set(split([*letters(20), *copies], share=0.5, seed=seed).sides[80:])) == 1


def test_a_higher_parameter_lets_passages_cross_too() -> None:
    samples = [written("", f"p{number}", text) for number in range(5) for text in POEM * 3]
    with pytest.raises(SplitError, match="raise prepare.same_text_characters"):
        split(samples)
    assert set(split_samples(samples, [], SplitRules(0.25, 7, same_text_characters=1000)).sides) == {"train", "val"}


def facts(texts: list[list[str]]) -> dict[int, GroupFacts]:
    return {number: GroupFacts.of(group, 0) for number, group in enumerate(texts)}


def mean_log(groups: set[int], of: dict[int, GroupFacts]) -> float:
    return sum(of[group].log_length for group in groups) / sum(of[group].samples for group in groups)


def test_a_character_of_several_groups_is_never_held_out_completely() -> None:
    texts = [["аб"], ["аё"], ["аё"], ["аж"], ["ав"], ["аг"], ["ад"], ["ае"]]
    for seed in range(50):
        order = random.Random(seed).sample(range(8), 8)
        chosen = choose_groups(order, facts(texts), wanted=4)
        assert len(chosen) == 4
        assert not {1, 2} <= chosen


def test_a_character_of_one_group_only_does_not_keep_it_from_validation() -> None:
    assert choose_groups([0, 1, 2], facts([["аё"], ["а"], ["а"]]), wanted=1) == {0}


def test_without_need_groups_are_taken_in_order() -> None:
    texts = [["слово " * length] for length in (4, 5, 4, 5, 4, 5, 4, 5, 4, 5, 4, 5)]
    assert choose_groups(list(range(12)), facts(texts), wanted=6) == set(range(6))


@pytest.mark.parametrize("long_first", [False, True])
def test_a_choice_of_long_or_short_texts_is_exchanged_until_the_lengths_agree(long_first: bool) -> None:
    texts = [["и" * (60 if (number < 20) is long_first else 10)] for number in range(40)]
    of = facts(texts)
    chosen = choose_groups(list(range(40)), of, wanted=10)
    assert len(chosen) == 10
    assert abs(mean_log(chosen, of) - mean_log(set(of), of)) <= LENGTH_TOLERANCE
    plain = set(range(10))
    assert abs(mean_log(plain, of) - mean_log(set(of), of)) > 5 * LENGTH_TOLERANCE
    assert len(plain - chosen) <= 6  # no more than needed


def test_an_exchange_keeps_the_number_of_samples_and_the_last_of_each_character() -> None:
    texts = [["и" * 60, "и" * 60] if number < 10 else ["и" * 10, f"{'и' * 9}ё"] for number in range(20)]
    texts[10:] = [["и" * 10, "и" * 10] if number else ["и" * 10, "ё" * 10] for number in range(10)]
    texts[3] = ["ё" * 60, "и" * 60]
    of = facts(texts)
    chosen = choose_groups(list(range(20)), of, wanted=10)
    assert sum(of[group].samples for group in chosen) == 10
    assert not {3, 10} <= chosen


def test_with_few_groups_nothing_is_exchanged() -> None:
    texts = [["и" * 60], ["и" * 60], ["и"], ["и"], ["и"], ["и"]]
    assert choose_groups(list(range(6)), facts(texts), wanted=2) == {0, 1}


def test_the_smallest_group_is_taken_where_each_is_more_than_twice_the_share() -> None:
    assert choose_groups([0, 1], facts([["а"] * 9, ["б"] * 7]), wanted=1) == {1}


def test_the_length_of_a_group_is_the_sum_of_logarithms() -> None:
    assert GroupFacts.of(["abc", ""], 1) == GroupFacts(2, math.log(4), frozenset("abc"), 1)
