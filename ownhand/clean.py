"""Clean: unfinished work and the stores of what was computed before, all in .checkpoints, are given up.

What `ownhand correct` has noted there (what was checked, how to undo) is no such thing and stays.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout

from ownhand.errors import Refusal

CHECKPOINTS = Path(".checkpoints")
STAYS = "correct"


def clean() -> None:
    """Empty .checkpoints and say what that frees, folder by folder. Refusal while a run works there."""
    folders = [path for path in sorted(CHECKPOINTS.glob("*")) if path.is_dir() and path.name != STAYS]
    here = Path.cwd()
    for folder in folders:  # one may be a link to another disk, but not to what is no unfinished work
        target = folder.resolve()
        if folder.is_symlink() and (target.is_relative_to(here) or here.is_relative_to(target)):
            raise Refusal(
                f"{folder.as_posix()} is a link to {target.as_posix()}, which is no unfinished work; remove it"
            )
    with ExitStack() as locks:
        for lock in sorted(CHECKPOINTS.rglob("*.lock")):
            try:
                locks.enter_context(FileLock(lock, timeout=0))
            except Timeout:
                work = lock.with_suffix("").as_posix()
                raise Refusal(f"a run works in {work}; wait for its end, or stop it") from None
        freed = {}
        for folder in folders:
            before = _own_bytes(folder)
            for path in folder.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
            freed[folder] = before - _own_bytes(folder)
            if not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)
    for folder, size in freed.items():
        print(f"clean: {folder.as_posix()}: {size / 1e6:,.1f} MB")
    print(f"clean: {sum(freed.values()) / 1e6:,.1f} MB freed; the next `dvc repro` makes anew what it needs of it")


def _own_bytes(folder: Path) -> int:
    """Bytes of the files that stand nowhere else: a kept picture may be a link of one in data/processed."""
    stats = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(stat.st_size for stat in stats if stat.st_nlink == 1)
