"""Make the fonts of this folder and the table of its README again, from npm packages that hold the original fonts.

    python demo/fonts/make_fonts.py NODE_MODULES [FOLDER/FILE.woff2 ...]

NODE_MODULES is where `npm install` has put @expo-google-fonts/<family> (whole fonts) or, where that has none with its
licence, @fontsource/<family> (a file for each script); the two instances of Shantell Sans come from
@fontsource-variable. Without names every font of the table but the demo hand is made; a new name is added to the table.
Needs fonttools and brotli, which the project itself does not.
"""

import io
import re
import sys
from pathlib import Path
from typing import Any

from fontTools.merge import Merger
from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont
from fontTools.ttLib.woff2 import WOFF2FlavorData
from fontTools.varLib.instancer import instantiateVariableFont
from PIL import ImageFont

FONTS = Path(__file__).parent
STYLE = re.compile(r"-(light|regular|medium|semibold|bold)?(?:-?(italic))?$|-(informal|bouncy)$")
WEIGHTS = {"light": 300, "regular": 400, "medium": 500, "semibold": 600, "bold": 700, None: 400}
INSTANCES = {
    "informal": {"wght": 380, "INFM": 100, "SPAC": 20, "BNCE": 0},
    "bouncy": {"wght": 480, "INFM": 60, "SPAC": 30, "BNCE": 70},
}
ALPHABETS = {
    "Russian": "абвгдеёжзийклмнопрстуфхцчшщъыьэюя",
    "Ukrainian": "іїєґ",
    "western": "àâäáãåæçéèêëíìîïñóòôöõøœúùûüÿß",
    "central": "ąćęłńóśźżáčďéěíňřšťúůýžőűľĺŕășțđ",
}
CHARACTERS = "".join(map(chr, [*range(0x20, 0x7F), *range(0xC0, 0x180), *range(0x410, 0x450)])) + (
    "ЁёІіЇїЄєҐґЎўȘșȚț«»„“”‘’‚‹›–—…№°§¡¿€£±²½·"
)
JOINING = ["kern", "mark", "mkmk", "liga", "calt", "clig", "rlig", "init", "medi", "fina"]
LARGEST = 80_000  # bytes; a font with a dozen shapes of each letter keeps one of each
SIDE_BEARING = 0.045  # em, of a letter that comes in a full-width box


def subset(font: Any, characters: str, features: list[str]) -> Any:
    """The font, changed in place, with those of the characters that it has."""
    options = Options(layout_features=features, hinting=False, name_IDs=[0, 1, 2, 3, 4, 5, 6, 13, 14, 16])
    options.drop_tables += ["STAT", "vhea", "vmtx", "MATH", "meta"]
    subsetter = Subsetter(options)
    subsetter.populate(text=characters)
    subsetter.subset(font)
    return font


def read_original(packages: Path, family: str, weight: int, italic: bool, instance: str | None) -> tuple[Any, Path]:
    """The original font, put together where it comes in parts, and its package's folder."""
    folder = packages / "@expo-google-fonts" / family
    wholes = [path for path in folder.glob(f"{weight}*/*.ttf") if path.stem.endswith("_Italic") == italic]
    if wholes and instance is None and (folder / "LICENSE_FONT").exists():
        return TTFont(wholes[0]), folder
    folder = packages / ("@fontsource-variable" if instance else "@fontsource") / family
    style = f"{'full' if instance else weight}-{'italic' if italic else 'normal'}"
    parts, left = [], CHARACTERS
    for script in ("latin", "latin-ext", "cyrillic", "cyrillic-ext"):
        path = folder / "files" / f"{family}-{script}-{style}.woff2"
        if path.exists():
            font: Any = TTFont(path)
            font.flavor, modified = None, font["head"].modified
            held = {chr(code) for code in font.getBestCmap()}
            subset(font, "".join(c for c in left if c in held), ["kern"] if instance else JOINING)
            if instance:
                font = instantiateVariableFont(font, INSTANCES[instance])
            parts.append(io.BytesIO())
            font.save(parts[-1])
            parts[-1].seek(0)
            left = "".join(c for c in left if c not in held)
    if not parts:
        raise SystemExit(
            f"{packages}: neither @expo-google-fonts/{family} nor {folder.parent.name}/{family} has {style}"
        )
    font = Merger().merge(parts) if len(parts) > 1 else TTFont(parts[0])
    font["head"].created = font["head"].modified = modified  # not today
    return font, folder


def narrow_full_width_letters(font: Any) -> None:
    """Give the Cyrillic letters of a Japanese font, all as wide as an em, advance widths of their own."""
    em, names = font["head"].unitsPerEm, font.getBestCmap()
    letters = [names[code] for code in names if 0x400 <= code < 0x500]
    if letters and all(font["hmtx"][letter][0] == em for letter in letters):
        side = round(SIDE_BEARING * em)
        for letter in letters:
            glyph = font["glyf"][letter]
            font["hmtx"][letter] = (glyph.xMax - glyph.xMin + 2 * side, side)


def drawn(name: str, font: Any) -> set[str] | None:
    """The characters that leave ink, and the space; None when FreeType fails on one."""
    picture, characters = ImageFont.truetype(FONTS / name, 48), map(chr, font.getBestCmap())
    try:
        return {c for c in characters if c == " " or picture.getmask(c).getbbox()}
    except OSError:
        return None


def make(packages: Path, name: str) -> str:
    """Write one font; its row of README's table comes back."""
    weight, italic, instance = match.groups() if (match := STYLE.search(Path(name).stem)) else (None, None, None)
    family = STYLE.sub("", Path(name).stem)
    font, folder = read_original(packages, family, WEIGHTS[weight], bool(italic), instance)
    licence = next(path for path in sorted(folder.glob("LICENSE*"), reverse=True)).read_text(encoding="utf-8")
    names = {i: " ".join((font["name"].getDebugName(i) or "").replace("|", "/").split()) for i in (0, 1, 5, 13, 16)}
    if re.search(r"\bwith\s+(the\s+)?reserved\s+font\s+name", f"{names[0]} {names[13]} {licence}", re.I):
        raise SystemExit(f"{name}: a Reserved Font Name is declared")
    subset(font, CHARACTERS, JOINING)
    narrow_full_width_letters(font)
    font.flavor, font.recalcTimestamp = "woff2", False  # the same bytes each time
    font.save(FONTS / name)
    if drawn(name, font) is None:  # FreeType fails on the last glyph of some fonts with transformed outlines
        font.flavorData = WOFF2FlavorData(transformedTables=[])
        font.save(FONTS / name)
    if (FONTS / name).stat().st_size > LARGEST:
        subset(font, CHARACTERS, ["kern"]).save(FONTS / name)
    held = drawn(name, font)
    if held is None:
        raise SystemExit(f"{name}: FreeType cannot draw it")
    lacking = " ".join(c for c in CHARACTERS if not c.isalpha() and c not in held)
    letters = [name for name, those in ALPHABETS.items() if {*those, *those.replace("ß", "").upper()} <= held]
    letters += [f"not {lacking}"] if lacking else []
    kind = "OFL-1.1" if "open font licen" in licence.lower() else "Apache-2.0"
    holder = names[0] or licence.splitlines()[0]
    return f"| {name} | {names[16] or names[1]} | {names[5]} | {', '.join(letters)} | {holder} | {kind} |"


if __name__ == "__main__":
    readme = FONTS / "README.md"
    lines = readme.read_text(encoding="utf-8").splitlines()
    rows = {line.split()[1]: line for line in lines if ".woff2 | " in line}
    head = lines[: len(lines) - len(rows)]
    for name in sys.argv[2:] or [name for name in rows if not name.startswith("demo_hand/")]:
        rows[name] = make(Path(sys.argv[1]), name)
    readme.write_text("\n".join([*head, *(rows[name] for name in sorted(rows)), ""]), encoding="utf-8", newline="\n")
