"""Folders as a person left them: every file below one, and what is none, by names that any list can hold."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from ownhand.text import to_nfc

SYSTEM_NAMES = frozenset(("thumbs.db", "desktop.ini", "__macosx", "@eadir"))


@dataclass(frozen=True)
class FoundFiles:
    """The files below a folder, by their NFC POSIX name relative to it.

    files: (name, path) sorted by name, two entries where names differ only in Unicode form;
    links: names of links that are not followed (they leave the folder or lead to a folder), with their targets;
    root: the folder's real path; unreadable: sub-folders that cannot be listed, with the reason.
    """

    root: Path
    files: list[tuple[str, Path]]
    links: dict[str, str]
    unreadable: dict[str, str] = field(default_factory=dict)


def is_system_file(name: str) -> bool:
    """Whether a file or folder name is hidden or an operating system's own: .DS_Store, ._x.jpg, Thumbs.db."""
    return name.startswith(".") or name.casefold() in SYSTEM_NAMES


def find_files(folder: Path) -> FoundFiles:
    """Every file below `folder`, sub-folders included, system files left out; no link is followed out of it."""
    root = os.path.realpath(folder)
    files: list[tuple[str, Path]] = []
    links: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    pending = [(Path(folder), root, "")]
    while pending:
        here, real, prefix = pending.pop()
        try:
            entries = list(os.scandir(here))
        except OSError as error:
            unreadable[prefix.rstrip("/")] = error.strerror or str(error)
            continue
        for entry in entries:
            if is_system_file(entry.name):
                continue
            name = prefix + _printable(entry.name)
            path = here / entry.name
            own = os.path.join(real, entry.name)
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError:  # a link that leads to itself
                is_folder = is_file = False
            # Resolving costs too much for every file. A Windows junction is a folder, but no symbolic link.
            target = os.path.realpath(path) if entry.is_symlink() or is_folder else own
            if is_folder and os.path.normcase(target) == os.path.normcase(own):
                pending.append((path, own, name + "/"))
            elif is_file and Path(target).is_relative_to(root):
                files.append((name, path))
            else:
                links[name] = target
    return FoundFiles(Path(root), sorted(files), links, unreadable)


def find_unfit_files(folder: Path) -> dict[str, str]:
    """What lies below `folder` and is neither file nor folder, hidden entries included: name to what it is.

    FIFOs, sockets, devices, links to these, to nothing or in a circle, and folders that cannot be opened. Nothing is
    opened, no link to a folder is followed. Empty where there is no folder.
    """
    unfit: dict[str, str] = {}
    pending = [(Path(folder), os.path.realpath(folder), "")] if Path(folder).is_dir() else []
    while pending:
        here, real, prefix = pending.pop()
        try:
            with os.scandir(here) as entries:
                found = list(entries)
        except OSError as error:
            unfit[prefix.rstrip("/") or "."] = f"a folder that cannot be opened ({error.strerror})"
            continue
        for entry in found:
            name = prefix + _printable(entry.name)
            if entry.is_dir(follow_symlinks=False):
                own = os.path.join(real, entry.name)
                if os.path.normcase(os.path.realpath(entry.path)) == os.path.normcase(own):  # no Windows junction
                    pending.append((here / entry.name, own, name + "/"))
            elif not entry.is_file(follow_symlinks=False) and (what := _what_it_is(entry)):
                unfit[name] = what
    return dict(sorted(unfit.items()))


def _what_it_is(entry: os.DirEntry[str]) -> str:
    """The kind of an entry that is neither file nor folder; "" for a link that leads to one of these."""
    try:
        mode = entry.stat().st_mode
    except FileNotFoundError:
        return f"a link to nothing (it leads to {_printable(os.readlink(entry.path))})"
    except OSError as error:
        return "a link that leads to itself" if error.errno == errno.ELOOP else f"unreadable ({error.strerror})"
    kinds = {stat.S_ISFIFO: "a FIFO", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device", stat.S_ISBLK: "a device"}
    kind = next((name for is_kind, name in kinds.items() if is_kind(mode)), "")
    return f"a link to {kind} ({_printable(os.readlink(entry.path))})" if kind and entry.is_symlink() else kind


def _printable(name: str) -> str:
    """A name as NFC text; one that is not valid UTF-8 gets a printable form, so that every list can be written."""
    return to_nfc(os.fsencode(name).decode("utf-8", "backslashreplace"))
