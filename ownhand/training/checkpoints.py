"""Unfinished training that may be trusted: folders and files that are whole by a manifest, or not used at all.

A folder is *sealed* when everything in it lies on the disk and its marker, written last, lists each file with its size
and SHA-256. A checkpoint also names the folders beside it that it cannot do without (the best adapter so far). What a
kill left half is removed; what was sealed and no longer matches is said and set aside, and the one before it is used.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ownhand import processes
from ownhand.files import flush_folder, hash_file, hash_value, write_json

MARKER = "COMPLETE"  # written last
DAMAGED = ".damaged"  # what a folder that was set aside is called behind its name
KEPT = 2  # checkpoints: should one be damaged, there is one before it
NEEDED = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state*.pth", "trainer_state.json")


def seal(folder: Path, beside: Sequence[str] = ()) -> None:
    """Flush `folder` to the disk and mark it as whole; `beside` names sealed folders next to it that it needs."""
    flush_folder(folder)
    files = {
        path.relative_to(folder).as_posix(): [path.stat().st_size, hash_file(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MARKER
    }
    write_json(folder / MARKER, {"files": files, "beside": list(beside)})
    flush_folder(folder)


def find_damage(folder: Path) -> str | None:
    """What is wrong with a sealed folder, or with one that it needs; None when nothing is."""
    marker = folder / MARKER
    try:
        manifest = json.loads(marker.read_bytes())
        files, beside = dict(manifest["files"]), [folder.with_name(name) for name in manifest["beside"]]
        for name, (size, digest) in files.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size:,} bytes instead of {size:,}"
            if hash_file(path) != digest:
                return f"{name} has changed since it was written"
    except (OSError, ValueError, TypeError, KeyError) as error:
        return f"{MARKER} cannot be used ({error})"
    for other in beside:
        if damage := find_damage(other):
            return f"it needs {other.name}, where {damage}"
    return None


def is_whole(folder: Path) -> bool:
    """Whether a sealed folder is there and as it was; a damaged one is set aside."""
    if not (folder / MARKER).exists():
        return False
    damage = find_damage(folder)
    if damage:
        set_aside(folder, damage)
    return damage is None


def set_aside(path: Path, damage: str) -> None:
    """Say what is wrong with a folder or file and rename it, so that it is not used."""
    target = path.with_name(path.name + DAMAGED)
    if target.is_dir():
        shutil.rmtree(target)
    path.replace(target)
    print(f"unfinished work is damaged and set aside as {target.as_posix()}: {damage}", flush=True)


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the highest step that is whole, the same for every process; None when there is none."""
    found: Path | None = processes.gather(_find_checkpoint(folder) if processes.number() == 0 else None)[0]
    return found


def _find_checkpoint(folder: Path) -> Path | None:
    for path in reversed(_checkpoints(folder)):
        if not (path / MARKER).exists():
            shutil.rmtree(path)
            continue
        damage = find_damage(path) or _find_missing(path)
        if damage is None:
            return path
        set_aside(path, damage)
    return None


def _find_missing(checkpoint: Path) -> str | None:
    """Without any of these the Trainer would go on all the same, with another result."""
    missing = [name for name in NEEDED if not any(checkpoint.glob(name))]
    return f"{', '.join(missing)} missing" if missing else None


def _checkpoints(folder: Path) -> list[Path]:
    """In order of their steps: a clock may jump."""
    steps = {path: re.fullmatch(r"checkpoint-(\d+)", path.name) for path in folder.glob("checkpoint-*")}
    return sorted((path for path, step in steps.items() if step), key=lambda path: int(path.name.partition("-")[2]))


class SealCheckpoints(TrainerCallback):
    """Seals every checkpoint that the Trainer has written, and removes what no kept one needs.

    name_best: (the Trainer's log) -> name of the folder with the best adapter so far; None where none is kept.
    """

    def __init__(self, name_best: Callable[[Sequence[dict[str, Any]]], str | None] = lambda _: None) -> None:
        self.name_best = name_best

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        processes.wait_for_all()  # each writes its own random state
        if processes.number():
            return
        folder = Path(args.output_dir)
        best = self.name_best(state.log_history)
        seal(folder / f"checkpoint-{state.global_step}", [best] if best else [])
        remove_old(folder)


def remove_old(folder: Path) -> None:
    """Keep the last checkpoints and the folders beside them that they need."""
    checkpoints = _checkpoints(folder)
    for path in checkpoints[:-KEPT]:
        shutil.rmtree(path)
    needed = {
        name
        for path in checkpoints[-KEPT:]
        if (path / MARKER).exists()
        for name in json.loads((path / MARKER).read_bytes())["beside"]
    }
    for path in folder.glob("best-*"):
        if path.name not in needed:
            shutil.rmtree(path)


def keep(path: Path, make: Callable[[], Any]) -> Any:
    """What `make` gives (JSON), from `path` where an interrupted run has left it whole; the same for every process."""
    done = _read_kept(path) if processes.number() == 0 else None
    found = processes.gather(done)[0]  # the first process decides: another may look a moment later
    if found is None:
        found = make()
        if processes.number() == 0:
            write_json(path, {"sha256": hash_value(found), "kept": found})
    return found


def _read_kept(path: Path) -> Any:
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_bytes())
        whole = content["sha256"] == hash_value(content["kept"])
    except (ValueError, TypeError, KeyError):
        whole = False
    if not whole:
        set_aside(path, "its content does not match its hash")
        return None
    return content["kept"]
