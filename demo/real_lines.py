"""Real handwriting for the base model's training: lines of public pages in many hands, cut by `prepare`'s own code.

Writes  .checkpoints/real_lines/<source>/: line pictures as JPEG, at most 128 px high, and lines.json (last).
Refuses to go on when git cannot clone a source (0.9 GB of files in all).
Alone   python -m demo.real_lines [FOLDER ...]     FOLDER: a checkout of a source, called like its repository

`demo.pretrain` does this first where it was not done yet. All sources are CC BY 4.0; who made them stands in
models/base/README.md. A line is left out when its text has marks of an edition or characters that the training texts
lack, or when it is too wide or too narrow for its text.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from demo.lines import LATIN
from demo.shape import ACCENTED, CYRILLIC, EXTRA, MAX_LENGTH
from ownhand.dataset.conversion import convert_pictures
from ownhand.files import clear_folder, write_json
from ownhand.ground_truth.matching import read_ground_truth
from ownhand.images import ConvertedPicture, ImageLimits
from ownhand.params import PrepareParams

FOLDER = Path(".checkpoints/real_lines")
SHORTEST = 8  # characters; in tables, what is shorter is mostly numbers
HEIGHT_PX = 128  # as high as drawn lines at most
LETTERS = LATIN + LATIN.upper() + CYRILLIC + CYRILLIC.upper() + ACCENTED + ACCENTED.upper() + EXTRA
CHARACTERS = set(LETTERS + " 0123456789.,-!?:;\"'()%/+=&*°")
WIDTHS = (0.12, 1.2)  # of a character, in heights of the line


@dataclass(frozen=True)
class Source:
    """Transcribed pages on GitHub; of a source in few hands, only every so many-th line is taken."""

    repository: str
    commit: str
    every: int = 1


SOURCES = {
    "copiste": Source("banq-dcn/Copiste-d-un-jour", "a3636d2e151b4312973cfb88438a0c4ccd1eb523"),
    "testaments": Source("HTR-United/CREMMA-AN-TestamentsDePoilus", "8ffa4a8cd40f691d68f188e2ed1c6458bf2d6ec9"),
    "mss19": Source("HTR-United/CREMMA-MSS-19", "d8f466de72561cd989f957d75a6743c5d8f0a262"),
    "repertoires": Source("HTR-United/lectaurep-repertoires", "3d1c86cf5389265a1ce8b620301d36b4709eb435", every=5),
    "tables": Source("Lucie-Louis/Tables_decennales_HTR", "9da8b907f58cb638dadc8624e81e93f1ea70cc2e"),
    "mss20": Source("HTR-United/CREMMA-MSS-20", "f737d0cb53d28edf1573c5956460bfdd58be6267"),
}
UNSEEN = "mss20"  # measures, and never trains


def cut_lines(pages: Path, folder: Path, every: int = 1) -> int:
    """Cut every so many-th usable line of transcribed pages into `folder`, emptied first; returns how many.

    Raises Refusal where `prepare` would: ground truth that cannot be read as a whole.
    """
    truth = read_ground_truth(pages, "utf-8")
    records = [record for record in truth.records if record.region and is_usable(record.text)][::every]
    clear_folder(folder)
    results = convert_pictures(
        [(record.path, record.region) for record in records], folder / "images", ImageLimits.of(PrepareParams())
    )
    lines = []
    for record, result in zip(records, results, strict=True):
        if not isinstance(result, ConvertedPicture):
            continue
        width = result.width_px / result.height_px / len(record.text)
        if not WIDTHS[0] <= width <= WIDTHS[1]:
            result.path.unlink()
            continue
        with Image.open(result.path) as image:
            image.thumbnail((image.width, HEIGHT_PX), Image.Resampling.LANCZOS)
            image.save(result.path, quality=88)
        lines.append({"file": result.path.name, "text": record.text, "page": record.page})
    write_json(folder / "lines.json", lines)
    return len(lines)


def is_usable(text: str) -> bool:
    """Whether a transcription can train: known characters, no marks of an edition, one of two characters a letter."""
    letters = sum(character.isalpha() for character in text)
    return SHORTEST <= len(text) <= MAX_LENGTH and CHARACTERS.issuperset(text) and 2 * letters >= len(text)


def read_real_lines(source: str) -> list[tuple[Path, str]]:
    """The lines of a source that were cut: (picture, text). Raises SystemExit where that was not done yet."""
    folder = FOLDER / source
    if not (folder / "lines.json").exists():
        raise SystemExit(f"{folder / 'lines.json'} is missing; run: python -m demo.real_lines")
    lines = json.loads((folder / "lines.json").read_text(encoding="utf-8"))
    return [(folder / "images" / line["file"], line["text"]) for line in lines]


def cut_sources(there: dict[str, Path]) -> None:
    """Cut the lines of every source that was not cut yet; what `there` lacks by its repository's name is cloned."""
    for name, source in SOURCES.items():
        if (FOLDER / name / "lines.json").exists():
            continue
        checkout = there.get(source.repository.partition("/")[2], FOLDER / "checkouts" / name)
        if not checkout.exists():
            unfinished = checkout.with_name(f"{name}.tmp")
            clear_folder(unfinished)
            url = f"https://github.com/{source.repository}"
            subprocess.run(["git", "clone", "--quiet", url, str(unfinished)], check=True)
            subprocess.run(["git", "-C", str(unfinished), "checkout", "--quiet", source.commit], check=True)
            unfinished.rename(checkout)
        print(f"{name}: {cut_lines(checkout, FOLDER / name, source.every):,} lines", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", type=Path, nargs="*", help="checkouts of sources that are already there")
    cut_sources({folder.name: folder for folder in parser.parse_args().folders})


if __name__ == "__main__":
    main()
