"""The demo's fonts: each opens, draws what README claims for it, and the demo hand stays out of training."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from demo.drawing import lacks, load_font

FONTS = Path(__file__).parent.parent / "demo/fonts"
ALPHABETS = {
    "Russian": "абвгдеёжзийклмнопрстуфхцчшщъыьэюя",
    "Ukrainian": "іїєґ",
    "western": "àâäáãåæçéèêëíìîïñóòôöõøœúùûüÿ",
    "central": "ąćęłńóśźżáčďéěíňřšťúůýžőűľĺŕășțđ",
}
ROW = re.compile(r"^\| (\S+\.woff2) \| ([^|]+) \| ([^|]+) \| ([^|]*) \| ([^|]+) \| (OFL-1\.1|Apache-2\.0) \|$", re.M)
ROWS = {row[0]: row for row in ROW.findall((FONTS / "README.md").read_text(encoding="utf-8"))}
FILES = sorted(path.relative_to(FONTS).as_posix() for path in FONTS.glob("*/*"))


def families(folder: str) -> set[str]:
    return {row[1] for name, row in ROWS.items() if name.startswith(f"{folder}/")}


def test_readme_lists_every_file_and_nothing_else() -> None:
    assert sorted(ROWS) == FILES


@pytest.mark.parametrize("name", FILES)
def test_a_font_draws_what_readme_claims(name: str) -> None:
    path, claim = FONTS / name, ROWS[name][3]
    words, _, lacking = claim.partition("not ")
    claimed = set("".join(map(chr, range(0x21, 0x7F))) + "“”‘’–") - set(lacking)
    for alphabet in re.findall(r"\w+", words):
        claimed |= {*ALPHABETS[alphabet], *ALPHABETS[alphabet].upper()}
    assert len(claimed) > 90
    assert not {character for character in claimed if lacks(path, character)}
    assert 10 < load_font(path).getlength("n") < 60  # of an em of 48 px


def test_a_character_that_a_font_lacks_is_seen() -> None:
    latin_only = next(FONTS / name for name, row in ROWS.items() if row[3].startswith("western"))
    assert lacks(latin_only, "я") and not lacks(latin_only, "é")


def test_the_demo_hand_and_the_held_out_families_are_not_trained_on() -> None:
    trained = families("printed") | families("handwritten")
    assert families("demo_hand") == {"Bad Script"}
    assert trained and not trained & (families("demo_hand") | families("held_out"))
    assert not [name for name in FILES if "bad" in name and not name.startswith("demo_hand/")]


def test_the_fonts_stay_small() -> None:
    assert sum((FONTS / name).stat().st_size for name in FILES) < 4_000_000
