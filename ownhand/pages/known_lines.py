"""Known lines: the PAGE or ALTO file that names a photograph, whoever wrote it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

from ownhand.folders import find_files
from ownhand.ground_truth import alto_xml, page_xml
from ownhand.ground_truth.page_files import (
    PageFileError,
    Pictures,
    TranscribedPage,
    find_page_files,
    parse_page_file,
)
from ownhand.text import is_blank, to_nfc

READERS = {"PcGts": page_xml.read_page, "alto": alto_xml.read_page}  # by the name of the root element


@dataclass(frozen=True)
class PageFile:
    """A PAGE or ALTO file. kind: "PcGts" or "alto"; root: all of it; page: what the ground truth takes from it."""

    path: Path
    kind: str
    root: Element
    page: TranscribedPage

    @property
    def transcribed(self) -> int:
        """How many of its lines have a text."""
        return sum(not is_blank(line.text) for line in self.page.lines)


class PageFiles:
    """The PAGE and ALTO files below a folder, found by the photograph they name; each is read once, when it is asked
    for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        files = find_files(folder).files
        self.pictures = Pictures(files)
        self.names = {_key(name) for name, _ in files}
        self.own = [(source, path, kind) for kind in READERS for source, path in find_page_files(files, kind)]
        self._read: dict[str, PageFile | PageFileError] = {}

    @property
    def kind(self) -> str:
        """What a new file is to be, for a folder should hold one format: "alto" where all that is there is ALTO."""
        return "alto" if {kind for _, _, kind in self.own} == {"alto"} else "PcGts"

    def of(self, photo: Path) -> PageFile | None:
        """The file that names a photograph below the folder; PAGE before ALTO, one called like it before others.

        Raises PageFileError, naming the file, when one that is called like the photograph cannot be read.
        """
        name = to_nfc(photo.relative_to(self.folder).as_posix())
        called = (PurePosixPath(_key(name)).stem, PurePosixPath(_key(name)).name)  # a.xml and a.jpg.xml
        alike = [file for file in self.own if PurePosixPath(_key(file[0])).stem in called]
        broken: PageFileError | None = None
        for files in (alike, [file for file in self.own if file not in alike]):
            for source, path, kind in files:
                found = self._open(source, path, kind)
                if isinstance(found, PageFileError):
                    broken = broken or (found if files is alike else None)
                elif self._names(source, found.page.image) == _key(name):
                    return found
            if broken is not None:
                raise broken
        return None

    def has_like(self, photo: Path) -> bool:
        """Whether another picture differs from a photograph below the folder in its suffix alone."""
        called = PurePosixPath(to_nfc(photo.relative_to(self.folder).as_posix())).with_suffix(".xml")
        return len(self.pictures.called_like(str(called))) > 1

    def _open(self, source: str, path: Path, kind: str) -> PageFile | PageFileError:
        if source not in self._read:
            try:
                root = parse_page_file(path)
                self._read[source] = PageFile(path, kind, root, READERS[kind](root))
            except PageFileError as error:
                self._read[source] = PageFileError(f"{path.as_posix()} cannot be read ({error})")
        return self._read[source]

    def _names(self, source: str, written: str) -> str | None:
        return next((_key(place) for place in self.pictures.places(source, written) if _key(place) in self.names), None)


def _key(name: str) -> str:
    return to_nfc(str(PurePosixPath(name)).casefold())
