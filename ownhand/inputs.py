"""What a stage reads must stand still while it runs: DVC looks at it only when the stage is over.

An edit under way, such as a value in params.yaml for the next run or a corrected transcription, would be recorded as
what this result was made of, and `dvc repro` would never make it anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ownhand.errors import Refusal
from ownhand.params import PARAMS_FILE, read_yaml

PIPELINE = Path("dvc.yaml")
IGNORED = Path(".dvcignore")  # names that DVC does not see, such as what a file manager leaves
SHOWN = 3


@dataclass(frozen=True)
class Inputs:
    """The dependencies and parameters that dvc.yaml lists for a stage, as they stood when it began."""

    stage: str
    seen: dict[str, Any]

    @classmethod
    def of(cls, stage: str) -> Inputs:
        """Look at them: files by size and time, parameters by value. Without a dvc.yaml nobody records anything."""
        return cls(stage, dict(_look(stage)) if PIPELINE.exists() else {})

    def refuse_edits(self) -> None:
        """Refusal that names what is not as it was; to be called before unfinished work is removed."""
        now = Inputs.of(self.stage).seen
        edited = sorted(name for name in self.seen.keys() | now.keys() if self.seen.get(name) != now.get(name))
        if not edited:
            return
        names = ", ".join(edited[:SHOWN]) + (f" and {len(edited) - SHOWN:,} more" if len(edited) > SHOWN else "")
        raise Refusal(
            f"{names} changed while {self.stage} ran: its result belongs to what stood there before, and is not "
            "recorded. Run `dvc repro` again; or put back what was there first, and it goes on where it was"
        )


def _look(stage: str) -> Iterator[tuple[str, Any]]:
    listed = read_yaml(PIPELINE)["stages"][stage]
    ignored = IGNORED.read_text(encoding="utf-8").splitlines() if IGNORED.exists() else []
    for name in listed.get("deps", ()):
        yield name, _state(Path(name))
        for folder, folders, files in os.walk(name):
            folders[:] = [below for below in folders if not _is_ignored(below, ignored)]
            for file in files:
                path = Path(folder, file)
                if not _is_ignored(file, ignored):
                    yield path.as_posix(), _state(path)
    if "params" in listed:
        content = read_yaml(PARAMS_FILE)
        for key in listed["params"]:
            value = content
            for part in key.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            yield f"{key} in {PARAMS_FILE}", value


def _is_ignored(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern.rstrip("/")) for pattern in patterns)


def _state(path: Path) -> tuple[int, int] | None:
    """(bytes, time of the last change) of a file, None for anything else."""
    try:
        found = path.stat()
    except OSError:
        return None
    return None if path.is_dir() else (found.st_size, found.st_mtime_ns)
