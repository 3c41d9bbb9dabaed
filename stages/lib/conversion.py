"""Conversion: photographs in, JPEG files for the pipeline out, on all cores.

Each process holds one picture at a time, and no more work is handed out than the processes are about to do, so that
memory does not grow with the number of pictures.
"""

from __future__ import annotations

import hashlib
import io
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from stages.lib.duplicates import Picture, fingerprint
from stages.lib.failures import Refusal
from stages.lib.images import ImageLimits, UnreadableImage, open_image

JPEG_QUALITY = 95
IN_PROCESS = 64  # fewer pictures are done before the first process would have started
PICTURES_PER_TASK = 8
TASKS_PER_WORKER = 4  # handed out at a time
MOST_WORKERS = 60  # Windows waits for at most 61 processes


@dataclass(frozen=True)
class _Task:
    first: int
    paths: tuple[Path, ...]
    folder: Path
    limits: ImageLimits


def convert_pictures(
    paths: Sequence[Path], folder: Path, limits: ImageLimits, workers: int | None = None
) -> list[Picture | str]:
    """Write every picture as upright RGB JPEG into `folder`; for each, in order, what was written or why it was not.

    workers: number of processes, None for one per core (and none at all for a few pictures); results are the same for
    any number. Raises OSError when a file cannot be written, and Refusal when a process was killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if workers is None:
        workers = 1 if len(paths) < IN_PROCESS else min(_cores(), MOST_WORKERS)
    tasks = (
        _Task(first, tuple(paths[first : first + PICTURES_PER_TASK]), folder, limits)
        for first in range(0, len(paths), PICTURES_PER_TASK)
    )
    results: list[Picture | str] = []
    with tqdm(total=len(paths), desc="prepare", unit="picture", delay=2) as progress:
        for done in map(_convert, tasks) if workers == 1 else _in_processes(tasks, workers):
            results += done
            progress.update(len(done))
    return results


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # in a container often fewer than the machine has
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _in_processes(tasks: Iterator[_Task], workers: int) -> Iterator[list[Picture | str]]:
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_leave_interrupts_to_the_parent)
    waiting: deque[Future[list[Picture | str]]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(_convert, task))
            if len(waiting) >= workers * TASKS_PER_WORKER:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise Refusal(
            f"one of {workers} processes that convert pictures was killed, probably because memory ran out; "
            "lower prepare.max_pixels, or close other programs"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _convert(task: _Task) -> list[Picture | str]:
    results: list[Picture | str] = []
    for number, path in enumerate(task.paths, task.first):
        try:
            image = open_image(path, task.limits)
        except UnreadableImage as error:
            results.append(error.reason)
            continue
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)  # 4:4:4: thin coloured ink keeps its edges
        content = buffer.getvalue()
        target = task.folder / f"{number:07d}.jpg"
        target.write_bytes(content)  # not flushed to the disk: only metadata.json makes the folder whole
        digest = hashlib.sha256(content).hexdigest()
        results.append(Picture(target, image.width, image.height, digest, fingerprint(image)))
    return results
