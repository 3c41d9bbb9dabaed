"""Conversion: photographs in, JPEG files for the pipeline out, on all cores.

Each process holds one picture at a time, and no more work is handed out than the processes are about to do, so that
memory does not grow with the number of pictures.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from ownhand.dataset.conversion_cache import ConversionCache
from ownhand.dataset.duplicates import perceptual_hash
from ownhand.errors import Refusal
from ownhand.files import writing
from ownhand.ground_truth.regions import Region, RegionError, cut_region
from ownhand.images import ConvertedPicture, ImageLimits, UnreadableImage, limit_image, open_image
from ownhand.progress import track

JPEG_QUALITY = 95
IN_PROCESS = 64  # fewer pictures are done before the first process would have started
PICTURES_PER_TASK = 8
FILES_PER_THREAD = 64  # looked up in the cache in one go
TASKS_PER_WORKER = 4  # handed out at a time
MOST_WORKERS = 60  # Windows waits for at most 61 processes


Original = tuple[Path, Region | None]  # a picture as it came: a file, or the part of it that holds one line
Numbered = tuple[int, Original]
Done = tuple[int, ConvertedPicture | str]


@dataclass(frozen=True)
class _Task:
    originals: tuple[Numbered, ...]  # with their numbers, which name the files written
    folder: Path
    limits: ImageLimits


def convert_pictures(
    originals: Sequence[Original],
    folder: Path,
    limits: ImageLimits,
    workers: int | None = None,
    cache: ConversionCache | None = None,
) -> list[ConvertedPicture | str]:
    """Write every picture as upright RGB JPEG into `folder`; for each, in order, what was written or why not.

    The folder must be empty or missing. Lines of one page that follow each other are cut from it in one go. What
    `cache` holds is taken over, what it does not hold is added. workers: number of processes, None for one per core
    (and none at all for a few pictures); results are the same for any number, with or without a cache. Raises OSError
    when a file cannot be written, and Refusal when a process was killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[int, ConvertedPicture | str] = {}
    keys: dict[int, str] = {}
    with track(originals, what="prepare", unit="picture", delay=2) as progress:
        for number, key, taken in _look_up(originals, folder, cache) if cache else ():
            keys[number] = key
            if taken:
                results[number] = taken
                progress.update()
        if results:
            tqdm.write(f"prepare: {len(results):,} of {len(originals):,} pictures were converted by an earlier run")
        left = [(number, original) for number, original in enumerate(originals) if number not in results]
        if workers is None:
            workers = 1 if len(left) < IN_PROCESS else min(_cores(), MOST_WORKERS)
        tasks = _make_tasks(left, _Task((), folder, limits))
        for batch in map(_convert, tasks) if workers == 1 else _in_processes(tasks, workers):
            for number, result in batch:
                results[number] = result
                if cache and number in keys and isinstance(result, ConvertedPicture):
                    cache.add(keys[number], result)
            progress.update(len(batch))
    return [results[number] for number in range(len(originals))]


def _look_up(
    originals: Sequence[Original], folder: Path, cache: ConversionCache
) -> Iterator[tuple[int, str, ConvertedPicture | None]]:
    """(number, key, picture) of every file that can be read; what the cache holds of it is put into `folder`."""

    def look(first: int) -> list[tuple[int, str, ConvertedPicture | None]]:
        found = []
        for number, original in enumerate(originals[first : first + FILES_PER_THREAD], first):
            if key := cache.key(*original):
                found.append((number, key, cache.take(key, folder / _file_name(number))))
        return found

    with ThreadPoolExecutor(_cores()) as threads:  # reading and hashing wait for no lock
        for found in threads.map(look, range(0, len(originals), FILES_PER_THREAD)):
            yield from found


def _file_name(number: int) -> str:
    return f"{number:07d}.jpg"


def _make_tasks(originals: Sequence[Numbered], empty: _Task) -> Iterator[_Task]:
    waiting: list[Numbered] = []
    for _, lines in groupby(originals, key=lambda numbered: numbered[1][0]):  # a page is opened once
        waiting += lines
        if len(waiting) >= PICTURES_PER_TASK:
            yield replace(empty, originals=tuple(waiting))
            waiting = []
    if waiting:
        yield replace(empty, originals=tuple(waiting))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # in a container often fewer than the machine has
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _in_processes(tasks: Iterator[_Task], workers: int) -> Iterator[list[Done]]:
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_leave_interrupts_to_the_parent)
    waiting: deque[Future[list[Done]]] = deque()
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


def _convert(task: _Task) -> list[Done]:
    batch: list[Done] = []
    page: OpenPage | None = None
    for number, (path, region) in task.originals:
        try:
            if region is None:
                image = open_image(path, task.limits)
            else:
                page = page if page and page.path == path else OpenPage(path, task.limits)
                image = page.cut(region)
        except UnreadableImage as error:
            batch.append((number, error.reason))
            continue
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)  # 4:4:4: thin coloured ink keeps its edges
        content = buffer.getvalue()
        target = task.folder / _file_name(number)
        with writing(target):
            target.write_bytes(content)  # not flushed to the disk: only metadata.json makes the folder whole
        digest = hashlib.sha256(content).hexdigest()
        batch.append((number, ConvertedPicture(target, *image.size, digest, perceptual_hash(image))))
    return batch


class OpenPage:
    """A page that lines are cut from; it is opened once, and what is wrong with it is wrong with each of its lines."""

    def __init__(self, path: Path, limits: ImageLimits) -> None:
        self.path = path
        self.limits = limits
        self.image: Image.Image | str
        try:  # sides and aspect are those of the lines
            self.image = open_image(path, replace(limits, max_side_px=sys.maxsize, min_side_px=1, max_aspect=math.inf))
        except UnreadableImage as error:
            self.image = error.reason

    def cut(self, region: Region) -> Image.Image:
        """The line of that region within the limits; UnreadableImage says what is wrong with it or its page."""
        if isinstance(self.image, str):
            raise UnreadableImage(self.path, self.image)
        try:
            return limit_image(self.path, cut_region(self.image, region), self.limits)
        except RegionError as error:
            raise UnreadableImage(self.path, str(error)) from None
