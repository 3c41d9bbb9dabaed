"""Lines: photographed pages get a PAGE XML file each that says where their lines are.

    ownhand lines PHOTO... | FOLDER  [--preview FOLDER] [--force]

Reads   the given photographs; parameter `prepare.max_pixels`.
Writes  beside each photograph a PAGE XML file with polygons and baselines in reading order, named like it (ALTO where
        the folder has ALTO files and no PAGE: `prepare` takes one format); with --preview into that folder a picture of
        each page with its lines drawn and numbered.
Refuses photographs that cannot be read or lie on their side: each is named, the others are done, the exit code is 1.
        A PAGE or ALTO file that is there stays as it is; with --force it is replaced, and one that holds
        transcriptions is kept beside as FILE.bak.

All points refer to the upright picture, as `prepare` opens it (EXIF).
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from ownhand.errors import Refusal
from ownhand.files import write_atomically
from ownhand.folders import find_files
from ownhand.ground_truth.page_files import PageFileError
from ownhand.images import ImageLimits, UnreadableImage, has_image_suffix, open_image
from ownhand.pages.alto_xml import write_alto_xml
from ownhand.pages.detector import Detector, load_detector
from ownhand.pages.geometry import FoundLine, TurnedPage, trace_lines
from ownhand.pages.known_lines import PageFile, PageFiles
from ownhand.pages.page_xml import Block, Page, PageLine, write_page_xml
from ownhand.pages.preview import draw_preview

RAW = Path("data/raw")
Blocks = Sequence[Sequence[FoundLine]]


def find_lines(
    pictures: Sequence[str],
    limits: ImageLimits,
    preview: Path | None = None,
    force: bool = False,
    load: Callable[[], Detector] = load_detector,
) -> int:
    """Find the lines of files and of folders' pictures and write them; returns the exit code: 1 when any was refused.

    Of `limits` only that of pixels counts, for sides are those of lines. Refusal when there is nothing to do, when
    previews would be taken for photographs, or when the detector that `load` gives is not installed.
    """
    photos, refused = expand(pictures)
    if not photos and not refused:
        raise Refusal("no photograph given, and none in the given folder")
    if photos and not any(photo.exists() for _, photo in photos):  # said before a detector is loaded
        raise Refusal(f"there is no such file: {', '.join(photo.as_posix() for _, photo in photos)}")
    if preview is not None:
        _refuse_among_photographs(preview, pictures)
    detect = load()
    known: dict[Path, PageFiles] = {}
    written = kept = empty = 0
    for root, photo in photos:
        try:
            if root not in known:
                known[root] = PageFiles(root)
            there = _known(known[root], photo, force)
            if there is not None and not force:
                kept += 1
                print(f"{name_of(photo)}: {_count(len(there.page.lines))} in {there.path.name} already; kept")
                continue
            image = open_page(photo, limits)
            blocks = trace_lines(image, detect(image))
            if not blocks:
                empty += 1
                print(f"{name_of(photo)}: no line of writing found; nothing is written for it")
                continue
            target = there.path if there is not None else free_name(photo, known[root])
            _keep_transcriptions(there)
            kind = there.kind if there is not None else known[root].kind
            write = write_alto_xml if kind == "alto" else write_page_xml
            write(target, as_page(relative_name(photo, target.parent), image.size, blocks))
            if preview is not None:
                with write_atomically(preview / f"{photo.parent.name}-{photo.name}.png") as temporary:
                    draw_preview(image, blocks).save(temporary, "PNG")
            written += 1
            print(f"{name_of(photo)}: {_count(sum(map(len, blocks)))} -> {target.name}", flush=True)
        except (UnreadableImage, PageFileError, TurnedPage, OSError) as error:
            refused.append((photo, _reason(error)))
        except (ArithmeticError, LookupError, ValueError) as error:  # one bad photograph never stops the others
            refused.append((photo, f"its lines could not be worked out ({type(error).__name__}: {error})"))
    for photo, reason in refused:
        print(f"{name_of(photo)}: {reason}", file=sys.stderr)
    parts = [f"{written} pages written", f"{kept} kept", f"{empty} without a line", f"{len(refused)} refused"]
    print(f"lines: {', '.join(parts)}", file=sys.stderr)
    return 1 if refused else 0


def expand(pictures: Iterable[str]) -> tuple[list[tuple[Path, Path]], list[tuple[Path, str]]]:
    """(folder, photograph) for the given files and for the pictures below given folders, in order of name; and
    (folder, reason) for each folder that cannot be listed. What is given twice counts once."""
    photos: list[tuple[Path, Path]] = []
    unreadable: list[tuple[Path, str]] = []
    for picture in pictures:
        path = Path(picture)
        if path.is_dir():
            found = find_files(path)
            photos += [(path, file) for name, file in found.files if has_image_suffix(name)]
            unreadable += [(path / name, reason) for name, reason in found.unreadable.items()]
        else:
            photos.append((path.parent, path))
    once = {os.path.realpath(photo): (folder, photo) for folder, photo in reversed(photos)}
    return list(reversed(once.values())), unreadable


def open_page(photo: Path, limits: ImageLimits) -> Image.Image:
    """The photograph as `prepare` opens a page that lines are cut from: upright and whole, whatever its sides."""
    return open_image(photo, replace(limits, max_side_px=sys.maxsize, min_side_px=1, max_aspect=math.inf))


def as_page(image: str, size: tuple[int, int], blocks: Blocks) -> Page:
    """What PAGE XML says of the lines found on the picture `image` of that size."""
    regions = []
    number = 0
    for block_number, block in enumerate(blocks, 1):
        lines = []
        for line in block:
            number += 1
            lines.append(PageLine(f"l{number}", line.polygon, line.baseline))
        regions.append(Block(f"r{block_number}", lines))
    return Page(image, size, regions)


def free_name(photo: Path, known: PageFiles) -> Path:
    """Where a photograph's new XML file goes: a.xml beside a.jpg, or a.jpg.xml where a.xml is something else's."""
    target = photo.with_suffix(".xml")
    if target.exists() or known.has_like(photo):
        target = photo.with_name(photo.name + ".xml")
    if target.exists():
        raise PageFileError(f"{target.as_posix()} is there and does not name this photograph; move it away")
    return target


def relative_name(photo: Path, folder: Path) -> str:
    """The photograph's path from a folder on, in POSIX form; its name alone where there is none (another drive)."""
    try:
        return name_of(Path(os.path.relpath(photo, folder)))
    except ValueError:
        return name_of(Path(photo.name))


def _refuse_among_photographs(preview: Path, pictures: Iterable[str]) -> None:
    """Refusal for a folder in which the next run, or `prepare`, would find the previews as further photographs."""
    for folder in (RAW, *(Path(picture) for picture in pictures)):
        if folder.is_dir() and preview.resolve().is_relative_to(folder.resolve()):
            raise Refusal(
                f"{preview.as_posix()} lies in {folder.as_posix()}, where previews would be taken for photographs; "
                "name another folder"
            )


def _known(known: PageFiles, photo: Path, force: bool) -> PageFile | None:
    try:
        return known.of(photo)
    except PageFileError as error:
        raise PageFileError(f"{error}; mend it or move it away, lines are not found anew over it") from None


def _keep_transcriptions(there: PageFile | None) -> None:
    if there is not None and there.transcribed:
        with write_atomically(there.path.with_name(there.path.name + ".bak")) as temporary:
            temporary.write_bytes(there.path.read_bytes())
        print(f"{there.path.as_posix()}: {_count(there.transcribed)} with texts; kept as {there.path.name}.bak")


def _reason(error: Exception) -> str:
    if isinstance(error, UnreadableImage):
        return error.reason
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _count(lines: int) -> str:
    return f"{lines} line" + "s" * (lines != 1)


def name_of(path: Path) -> str:
    """A path for people and files: POSIX form, bytes that are no UTF-8 escaped as `find_files` does."""
    return path.as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
