"""What of a text is somewhere else, too: identical, recurring, in a passage, inside another text."""

from __future__ import annotations

import re

from ownhand.dataset.repeats import count_pages, find_contained, find_passages, find_recurring, find_trained, text_key

LONG = (
    "Миновало почти десятилетие с тех пор, как мы не виделись, а кажется, что всё было вчера: тот же дождь за окном, "
    "те же книги на столе, и ты читаешь вслух, пока не стемнеет. Приезжай, когда сможешь, мы будем ждать."
)
PAGE = "Миновало почти десятилетие с тех пор, как произошел прорыв в разработке и применении нейронных сетей."


def inside(*texts: str) -> list[tuple[int, int]]:
    """The contained texts, each text on a page of its own."""
    return find_contained(texts, range(len(texts)))


def passages(pages: list[list[str]], least: int = 0) -> list[set[int]]:
    texts = [text for page in pages for text in page]
    places = [number for number, page in enumerate(pages) for _ in page]
    found: list[set[int]] = [set() for _ in pages]
    for i, passage in find_passages(texts, places, least):
        found[places[i]].add(passage)
    return found


def test_a_text_is_the_same_in_any_case_and_punctuation_and_without_words_it_is_itself() -> None:
    assert text_key("Буря  мглою,\nнебо кроет!") == text_key("буря мглою небо кроет")
    assert text_key("мо\u0438\u0306") == text_key("мой")
    assert text_key("—") != text_key("!") != ""
    assert text_key("3.") == text_key("3") != text_key("8")


def test_pages_are_counted_not_lines() -> None:
    texts, pages = ["да", "да", "Да!", "нет", "да"], ["a", "a", "b", "b", "c"]
    assert count_pages(texts, pages) == [3, 3, 3, 1, 3]
    assert find_recurring(texts, pages) == [False] * 5
    assert find_recurring([*texts, "да"], [*pages, "d"]) == [True, True, True, False, True, True]


def test_a_passage_is_found_over_the_ends_of_lines_and_only_where_it_is_long_enough() -> None:
    at = LONG.index(" что всё")
    one, same, other = passages([[LONG], [LONG[:at].upper(), LONG[at:]], [LONG.replace("дождь", "снег")]])
    assert one and one == same
    assert not one & other
    assert passages([[LONG[:180]], [LONG[:180]]]) == [set(), set()]
    assert passages([[LONG]], least=300) == [set()]


def test_a_passage_ends_with_its_page() -> None:
    at = LONG.index(" что всё")
    assert passages([[LONG[:at]], [LONG[at:]]]) == [set(), set()]


def test_contained_texts_are_whole_words_in_a_row_in_any_case_and_punctuation() -> None:
    assert inside("ПРОРЫВ в разработке!", PAGE) == [(0, 1)]
    assert inside("применении, нейронных\nсетей", PAGE) == [(0, 1)]
    assert inside(PAGE, "прорыв в разработке") == [(1, 0)]
    for text in ("рорыв в разработке", "прорыв и применении", "разработке прорыв в"):
        assert inside(text, PAGE) == []


def test_short_phrases_are_not_reported_as_contained() -> None:
    assert inside("нейронных сетей", PAGE) == []  # two words
    assert inside("и в ту", "да и в ту ночь шёл снег") == []


def test_identical_texts_do_not_contain_each_other() -> None:
    assert inside(PAGE, re.sub(" ", "\n", PAGE)) == []
    assert inside("Прорыв в разработке", "прорыв, в разработке!") == []


def test_a_phrase_that_stands_on_many_pages_is_contained_in_none() -> None:
    letters = [f"Здравствуй, дорогая мама! Пишу тебе в {number} раз" for number in range(5)]
    phrase = "здравствуй дорогая мама"
    assert inside(phrase, *letters[:2]) == [(0, 1), (0, 2)]
    assert inside(phrase, *letters[:3]) == []
    assert inside(*[phrase] * 3, letters[0]) == []


def test_contained_texts_grow_with_the_samples_and_not_with_their_square() -> None:
    texts = [*["и так далее и тому подобное"] * 3000, *["вода, земля и так далее и тому подобное"] * 3000]
    assert find_contained(texts, ["a"] * 3000 + ["b"] * 3000) == [(0, 3000)]
    assert find_contained(texts, range(6000)) == []


def test_a_text_was_trained_on_as_a_text_of_its_own_or_inside_one() -> None:
    held_out = ["Здравствуй, мама!", "прорыв в разработке", "нейронных сетей", "что-то новое", "—"]
    assert find_trained(held_out, ["здравствуй мама", PAGE, "—"]) == [True, True, False, False, True]
    assert find_trained([PAGE], ["прорыв в разработке"]) == [False]  # most of it was not
    assert find_trained(["да"], []) == [False]
