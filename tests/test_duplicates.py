from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from demo.drawing import Hand, draw_line
from ownhand.dataset.duplicates import DisjointSets, find_same_pictures, perceptual_hash
from ownhand.images import ConvertedPicture

FONTS = Path(__file__).parent.parent / "demo/fonts"
FONT = FONTS / "demo_hand/bad-script-regular.woff2"
HAND = Hand(slant=0.1, wobble=0.04, size_jitter=0.06, shade=0.3, grain=6, ruling="lines")
TEXTS = [
    "Утром шёл снег", "Вечером шёл дождь", "Мы ждали 12 минут", "Книга лежит на столе", "Я вернусь к пяти",
    "Утром был снег", "Вечером был гром", "Мы искали 15 минут", "Книга стоит на полке", "Я уеду в шесть",
]  # fmt: skip


@pytest.fixture(scope="module")
def lines() -> list[Image.Image]:
    """Lines of one hand on paper of one kind, all different."""
    return [draw_line(text, FONT, HAND, np.random.default_rng(i), 64) for i, text in enumerate(TEXTS)]


def store(folder: Path, images: list[Image.Image]) -> list[ConvertedPicture]:
    pictures = []
    for number, image in enumerate(images):
        path = folder / f"{number}.png"
        image.save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        pictures.append(ConvertedPicture(path, image.width, image.height, digest, perceptual_hash(image)))
    return pictures


def resaved(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def resized(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS)


def test_lines_of_one_hand_are_different_pictures(tmp_path: Path, lines: list[Image.Image]) -> None:
    assert find_same_pictures(store(tmp_path, lines)) == []


def test_the_same_text_written_again_is_another_picture(tmp_path: Path) -> None:
    again = [draw_line(TEXTS[0], FONT, HAND, np.random.default_rng(seed), 64) for seed in range(8)]
    assert find_same_pictures(store(tmp_path, again)) == []


@pytest.mark.parametrize("quality", [95, 60, 35])
def test_resaved_copies_are_found(tmp_path: Path, lines: list[Image.Image], quality: int) -> None:
    pictures = store(tmp_path, lines + [resaved(line, quality) for line in lines])
    assert sorted(find_same_pictures(pictures)) == [(i, i + len(lines)) for i in range(len(lines))]


@pytest.mark.parametrize("factor", [0.5, 0.75, 2])
def test_resized_copies_are_found(tmp_path: Path, lines: list[Image.Image], factor: float) -> None:
    pictures = store(tmp_path, lines + [resized(line, factor) for line in lines])
    assert sorted(find_same_pictures(pictures)) == [(i, i + len(lines)) for i in range(len(lines))]


def test_brighter_and_grey_copies_are_found(tmp_path: Path, lines: list[Image.Image]) -> None:
    brighter = [ImageEnhance.Brightness(line).enhance(1.1) for line in lines]
    grey = [line.convert("L").convert("RGB") for line in lines]
    pairs = find_same_pictures(store(tmp_path, lines + brighter + grey))
    count = len(lines)
    assert len(pairs) == 2 * count
    assert {(i % count, j % count) for i, j in pairs} == {(i, i) for i in range(count)}


def draw_page(seed: int) -> Image.Image:
    """A page of six lines photographed like all others: same desk, same light, same ruling, another text."""
    rng = np.random.default_rng(seed)
    across, down = np.meshgrid(np.arange(500), np.arange(360))
    page = 235 - 60 * across / 500 - 30 * down / 360
    page[:, :30] = page[:, 470:] = page[:20] = 40
    page[25::55] *= 0.85
    page += rng.normal(0, 3, page.shape)
    for number in range(6):
        text = " ".join(rng.permutation(" ".join(TEXTS).split())[:3])
        ink = draw_line(text, FONT, Hand(paper=(255, 255, 255), grain=0, shade=0), rng, 40).convert("L")
        ink = ink.crop((0, 0, 400, 40)) if ink.width > 400 else ink
        top, left = 22 + 55 * number, 40 + int(rng.integers(0, 12))
        page[top : top + 40, left : left + ink.width] *= np.asarray(ink) / 255
    return Image.fromarray(np.clip(page, 0, 255).astype(np.uint8)).convert("RGB")


def test_pages_under_one_fixed_camera_are_different_and_their_copies_are_found(tmp_path: Path) -> None:
    pages = [draw_page(seed) for seed in range(6)]
    pictures = store(tmp_path, [*pages, resized(resaved(pages[2], 70), 0.6)])
    assert find_same_pictures(pictures) == [(2, 6)]


def test_identical_files_are_one_picture_even_when_nothing_is_on_them(tmp_path: Path) -> None:
    pictures = store(tmp_path, [Image.new("RGB", (90, 40), colour) for colour in ("white", "gray", "white")])
    assert find_same_pictures(pictures) == [(0, 2)]


def test_three_copies_are_connected_by_two_pairs(tmp_path: Path, lines: list[Image.Image]) -> None:
    copies = [lines[0], resaved(lines[0], 80), resized(lines[0], 0.8)]
    pairs = find_same_pictures(store(tmp_path, [lines[1], *copies]))
    assert len(pairs) == 2
    assert {index for pair in pairs for index in pair} == {1, 2, 3}


def test_no_picture_and_one_picture_have_no_copies(tmp_path: Path, lines: list[Image.Image]) -> None:
    assert find_same_pictures([]) == []
    assert find_same_pictures(store(tmp_path, lines[:1])) == []


def test_disjoint_sets_say_whether_a_join_was_new() -> None:
    sets = DisjointSets(5)
    assert sets.join(3, 1)
    assert sets.join(1, 4)
    assert not sets.join(4, 3)
    assert [sets.find(i) for i in range(5)] == [0, 1, 2, 1, 1]


def test_alike_pictures_of_texts_that_recur_are_the_same_only_when_their_files_are(tmp_path: Path) -> None:
    heading = [
        draw_line("Здравствуй, мама!", FONT, Hand(grain=2), np.random.default_rng(seed), 44) for seed in range(8)
    ]
    pictures = store(tmp_path, [*heading, heading[0]])
    assert find_same_pictures(pictures) == [(0, 8), (3, 7)]  # a steady hand: alike without being copies
    assert find_same_pictures(pictures, [True] * 9) == [(0, 8)]
    assert find_same_pictures(pictures, [number != 7 for number in range(9)]) == [(0, 8), (3, 7)]
