"""The checks find every kind of leak in a split that somebody made badly, and none in a good one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from conftest import written
from PIL import Image

from demo.drawing import Hand, draw_line
from ownhand.dataset.duplicates import perceptual_hash
from ownhand.dataset.leaks import Checks, check_split, describe_allowed, describe_split, list_names
from ownhand.dataset.splits import Join, Split
from ownhand.images import ConvertedPicture

FONT = Path(__file__).parent.parent / "demo/fonts/demo_hand/bad-script-regular.woff2"
TEXTS = ["Утром шёл снег", "Вечером шёл дождь", "Мы ждали 12 минут", "Книга на столе"]
SAMPLES = [written("", f"p{number}", text) for number, text in enumerate(TEXTS)]
SIDES = ["train", "train", "val", "test"]


def store(folder: Path, image: Image.Image, name: str, **options: int) -> ConvertedPicture:
    path = folder / name
    image.save(path, **options)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return ConvertedPicture(path, image.width, image.height, digest, perceptual_hash(image))


@pytest.fixture
def pictures(tmp_path: Path) -> list[ConvertedPicture]:
    lines = [draw_line(text, FONT, Hand(grain=4), np.random.default_rng(i), 48) for i, text in enumerate(TEXTS)]
    return [store(tmp_path, line, f"{number}.png") for number, line in enumerate(lines)]


def test_a_good_split_has_no_leak(pictures: list[ConvertedPicture]) -> None:
    checks = check_split(SAMPLES, pictures, SIDES, 1)
    assert checks.leaks == 0
    assert checks.shorter_identical_texts == 0


def test_a_page_on_both_sides_is_found(pictures: list[ConvertedPicture]) -> None:
    samples = [*SAMPLES[:3], written("", "p1", "другой текст")]
    assert check_split(samples, pictures, SIDES, 1).pages_on_both_sides == 1
    other_hand = [*SAMPLES[:3], written("Аня", "p1", "другой текст")]
    assert check_split(other_hand, pictures, SIDES, 1).leaks == 0


def test_an_identical_text_is_found_and_short_ones_are_counted_apart(pictures: list[ConvertedPicture]) -> None:
    samples = [*SAMPLES[:3], written("", "p3", "Утром  шёл\nснег")]
    assert check_split(samples, pictures, SIDES, 14).identical_texts == 1
    checks = check_split(samples, pictures, SIDES, 15)
    assert (checks.leaks, checks.shorter_identical_texts) == (0, 1)
    assert checks.held_out_samples_with_a_trained_text == 1


def test_a_text_that_recurs_is_no_leak_and_counted_apart_but_a_passage_is_one(pictures: list[ConvertedPicture]) -> None:
    sides = ["train", "val", "train", "val"]
    greeting = [written("", f"p{number}", "Здравствуй, дорогая мама!") for number in range(4)]
    checks = check_split(greeting, pictures, sides, 20)
    assert (checks.leaks, checks.recurring_texts, checks.held_out_samples_with_a_trained_text) == (0, 1, 2)
    assert check_split(greeting, pictures, ["train", "val", "", ""], 20).leaks == 0  # it recurs all the same
    passage = [written("", f"p{number}", " ".join(TEXTS * 5)) for number in range(4)]
    assert check_split(passage, pictures, sides, 20).passages > 0
    assert check_split(passage, pictures, sides, 20).identical_texts == 0


def test_alike_pictures_of_a_text_that_recurs_are_no_leak_and_equal_files_are(tmp_path: Path) -> None:
    hands = [
        draw_line("Здравствуй, мама!", FONT, Hand(grain=2), np.random.default_rng(seed), 44) for seed in (3, 7, 1, 2)
    ]
    alike = [store(tmp_path, line, f"{number}.png") for number, line in enumerate(hands)]
    sides = ["train", "val", "train", "val"]
    same = [written("", f"p{number}", "Здравствуй, мама!") for number in range(4)]
    checks = check_split(same, alike, sides, 20)
    assert checks.leaks == 0 and checks.close_pictures_of_recurring_texts > 0
    assert check_split(same, [alike[0], alike[0], *alike[2:]], sides, 20).identical_pictures == 1
    different = [written("", f"p{number}", f"Здравствуй, мама! {number}") for number in range(4)]
    assert check_split(different, alike, sides, 20).near_identical_pictures == 1


def test_the_proof_names_every_text_that_it_allows_on_both_sides() -> None:
    texts = ["Здравствуй, дорогая мама!"] * 5 + ["3", "3.", "что-то ещё"]
    samples = [written("", f"p{number}", text) for number, text in enumerate(texts)]
    allowed = describe_allowed(samples, ["train", "val", "train", "test", "", "train", "val", "val"], 20)
    assert "fewer than 20 characters" in allowed["rule"] and "more than 3 pages" in allowed["rule"]
    assert allowed["texts"] == [
        {"text": "Здравствуй, дорогая мама!", "pages": 5, "train": 2, "val": 1, "test": 1},
        {"text": "3", "pages": 2, "train": 1, "val": 1, "test": 0},
    ]


def test_the_same_picture_is_found_and_so_is_a_resaved_one(tmp_path: Path, pictures: list[ConvertedPicture]) -> None:
    with Image.open(pictures[0].path) as image:
        resaved = store(tmp_path, image.resize((image.width // 2, image.height // 2)), "small.jpg", quality=60)
    assert check_split(SAMPLES, [*pictures[:3], pictures[0]], SIDES, 1).identical_pictures == 1
    checks = check_split(SAMPLES, [*pictures[:3], resaved], SIDES, 1)
    assert (checks.identical_pictures, checks.near_identical_pictures) == (0, 1)
    assert checks.close_pictures_compared >= 1


def test_samples_that_are_left_out_leak_nothing(pictures: list[ConvertedPicture]) -> None:
    samples = [*SAMPLES[:3], written("", "p1", "другой текст")]
    assert check_split(samples, pictures, ["train", "train", "val", ""], 1).leaks == 0


def test_the_description_can_be_compared_and_checked() -> None:
    samples = [written("Аня", "b", "ёж"), written("", "c", "дом"), written("", "a", "вал")]
    split = Split(["train", "train", "val"], [0, 0, 2], [Join(0, 1, "the same text")], [(2, 0)], [])
    checks = Checks(**{name: 0 for name in Checks.__dataclass_fields__} | {"close_pictures_compared": 3})
    described = describe_split(samples, split, checks, {"val": "the list val.txt"}, 20)
    assert list(described["sides"]) == ["train", "val"]
    train = described["sides"]["train"]
    assert (train["samples"], train["pages"], train["groups"], train["hands"]) == (2, 2, 1, ["Аня"])
    assert train["sha256_of_names"] == hashlib.sha256(b"b.jpg\nc.jpg\n").hexdigest()
    assert described["sides"]["val"]["characters_not_in_training"] == "авл"
    assert described["joined_pages"] == [{"first": "b.jpg", "second": "c.jpg", "by": "the same text"}]
    assert described["contained_texts"] == [{"text_of": "a.jpg", "side": "val", "stands_in": "b.jpg"}]
    assert described["checks"]["close_pictures_compared"] == 3


def test_lists_do_not_depend_on_the_order_of_samples() -> None:
    assert list_names(["b", "a"]) == list_names(["a", "b"]) == "a\nb\n"
