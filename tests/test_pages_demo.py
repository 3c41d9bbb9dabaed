"""Drawn pages: what is known of their lines is true of the photograph."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from demo import pages
from demo.pages import Conditions, DrawnPage, as_page, draw_page, read_texts
from ownhand.errors import Refusal
from ownhand.folders import find_files
from ownhand.ground_truth.page_xml import FORMAT

ROOT = Path(__file__).parent.parent
FONT = ROOT / "demo/fonts/demo_hand/bad-script-regular.woff2"
TEXTS = ["Утро серое, но доброе.", "Гуляла с Альмой в парке,", "встретила Риту у пруда.", "К 6 часам пекла шарлотку."]
HARD = Conditions("grid", degrees=4, perspective=0.03, bend=0.5, shadow=0.4, columns=2, note=True)


@cache
def page(conditions: Conditions, seed: int = 2) -> DrawnPage:
    return draw_page(TEXTS, FONT, conditions, np.random.default_rng(seed))


@pytest.mark.parametrize("conditions", [Conditions("lines", degrees=-2), HARD])
def test_ink_is_dark_and_outlines_hold_it(conditions: Conditions) -> None:
    drawn = page(conditions)
    grey = np.asarray(drawn.picture.convert("L"), float)
    for line in drawn.lines:
        x, y = np.rint(line.ink).astype(int).T
        mask = Image.new("1", drawn.picture.size)
        ImageDraw.Draw(mask).polygon([tuple(point) for point in line.outline], fill=1)
        inside = np.asarray(mask)
        assert inside[y, x].mean() > 0.97
        assert grey[y, x].mean() < 0.7 * np.median(grey[inside])


def test_baselines_run_under_the_letters() -> None:
    for line in page(HARD).lines:
        x, y = line.baseline.T
        assert all(np.diff(x) > 0)
        above = line.ink[:, 1] < np.interp(line.ink[:, 0], x, y) + 2
        assert 0.7 < above.mean() < 1  # descenders and commas are below
        height = np.ptp(line.ink[:, 1])
        assert np.abs(line.ink[:, 1] - np.interp(line.ink[:, 0], x, y)).max() < height


def test_columns_are_filled_one_after_the_other_and_the_note_comes_last() -> None:
    lines = page(HARD).lines
    assert [line.text for line in lines] == [*TEXTS, "Утро"]
    assert [(line.column, line.note) for line in lines] == [(0, False)] * 2 + [(1, False)] * 2 + [(0, True)]
    lefts = [line.ink[:, 0].min() for line in lines]
    assert max(lefts[:2]) < min(lefts[2:4]) and lefts[4] < min(lefts[:2])


def test_the_same_seed_draws_the_same_page_and_another_seed_another() -> None:
    again = draw_page(TEXTS, FONT, HARD, np.random.default_rng(2))
    assert again.picture.tobytes() == page(HARD).picture.tobytes()
    assert page(HARD, 3).picture.tobytes() != again.picture.tobytes()


def test_no_texts_give_a_blank_sheet() -> None:
    drawn = draw_page([], FONT, Conditions("lines", note=True), np.random.default_rng(1))
    assert drawn.lines == []
    assert min(drawn.picture.size) > 500


def test_a_shadow_darkens_a_part_of_the_sheet() -> None:
    light, dark = (np.asarray(page(Conditions(shadow=shadow)).picture.convert("L"), float) for shadow in (0.0, 0.5))
    ratio = dark.mean() / light.mean()
    assert 0.5 < ratio < 0.95


def test_regions_of_the_xml_are_columns_and_notes() -> None:
    known = as_page(page(HARD), "a.jpg")
    assert [[line.text for line in block.lines] for block in known.blocks] == [TEXTS[:2], TEXTS[2:], ["Утро"]]
    assert known.size == page(HARD).picture.size


def test_the_command_writes_pages_and_overwrites_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    folder, table = tmp_path / "raw", tmp_path / "texts.tsv"
    call = ["pages", str(folder), "--pages", "2", "--lines", "3", "--xml", "--texts", str(table)]
    monkeypatch.setattr(sys, "argv", call)
    pages.main()
    assert sorted(path.name for path in folder.iterdir()) == [
        "page-01.jpg", "page-01.xml", "page-02.jpg", "page-02.xml"
    ]  # fmt: skip
    files = find_files(folder).files
    records = FORMAT.read(FORMAT.find(files), files, "utf-8").records
    texts = read_texts(ROOT / "demo/texts/hand.tsv")[:6]
    assert [record.text for record in records] == texts
    rows = table.read_text(encoding="utf-8").splitlines()
    assert rows[0] == "page\tline\ttext"
    assert rows[4] == f"page-02.jpg\t1\t{texts[3]}"
    with pytest.raises(Refusal, match="nothing is overwritten"):
        pages.main()
