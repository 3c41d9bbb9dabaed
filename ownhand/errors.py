"""How a stage or a command begins and ends: output that takes any text; exit code 0, or a message and exit code 1."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

# No room, none left to this user, none for a file so large; 112 is what Windows calls the first.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, 112)
MEMORY_REMEDY = """What lowers the need, in params.yaml, the cheapest first:
  train.gradient_checkpointing: true   (slower by about a third)
  train.batch_size: half, and train.accumulation: double   (the same result); train.batch_tokens, where set: half
  transcribe.batch_size: half, when it was transcribing
  model.dtype: bfloat16   (half of float32's weights)
  train.expert_weights and transcribe.expert_weights: nf4   (the routed experts in 4 bits; slower)
  encode.max_tiles or encode.mode   (fewer vision tokens)
What was done before stays: run the same command again."""


class Refusal(Exception):
    """Something a person can mend; the message says what was seen, where, and the remedy."""


def run_stage(main: Callable[[], object], resumes: bool = True) -> None:
    """Run a stage or a command; what a person can mend becomes a message, what is our fault keeps its traceback.

    Exit codes: 0 done, 1 failed, 130 interrupted. DVC judges a stage by its exit code alone. `resumes`: whether the
    same command goes on where it was interrupted.
    """
    set_up_output()
    warnings.simplefilter("ignore", FutureWarning)  # what libraries tell each other
    try:
        if sys.stdout is None:  # closed by `>&-`: the next file that is opened would take its number
            raise Refusal("standard output is closed, so that nothing can be said: send it to a file, or to /dev/null")
        main()
        sys.stdout.flush()  # what cannot be written is an error here, and not behind the end
    except KeyboardInterrupt:
        again = "; run the same command again to go on from the last checkpoint" if resumes else ""
        print(f"interrupted{again}", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:  # nobody reads any more, as behind `| head`: that is no fault, but not all was done
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except (OSError, Refusal) as error:
        print(f"error: {error}{_advise(error)}", file=sys.stderr)
        raise SystemExit(1) from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        seen = str(error).partition("\n")[0] or "no more memory"
        print(f"error: out of memory: {seen}\n{MEMORY_REMEDY}", file=sys.stderr)
        raise SystemExit(1) from None


def set_up_output() -> None:
    """Make standard output and error UTF-8, on every system and into every file.

    Otherwise a redirected output on Windows stops at the first Cyrillic name. What is no text, such as a file name in
    another encoding, is shown with backslashes. A standard error that is closed, as by `2>&-`, leads nowhere from here
    on: the next file that is opened would get its place, and with it what a library prints.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - it stays open to the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _advise(error: OSError | Refusal) -> str:
    """What to do about a disk that filled up where nothing else has said so."""
    if isinstance(error, Refusal):
        return ""
    place = Path(error.filename or ".")
    return f"; {describe_disk(place)}" if is_disk_full(error, place) else ""


def is_out_of_memory(error: Exception) -> bool:
    """Whether the machine or the GPU has no more memory; torch says so in different words for each."""
    words = ("out of memory", "can't allocate memory", "not enough memory", "std::bad_alloc")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def is_disk_full(error: BaseException, path: Path) -> bool:
    """Whether it was for want of room on the disk of `path`; torch does not say, so that its disk is looked at."""
    if isinstance(error, OSError):
        return error.errno in FULL
    named = re.search(r"os error (\d+)", str(error))
    return int(named[1]) in FULL if named else "inline_container" in str(error) or _free_bytes(path) < 1e6


def describe_disk(path: Path) -> str:
    """What to do when the disk of `path` is full; it is named by where it is mounted."""
    place = _existing(path)
    while not os.path.ismount(place) and place != place.parent:
        place = place.parent
    return (
        f"the disk at {place} has {_free_bytes(path) / 1e6:,.1f} MB free: make room there, or work on another disk, "
        "and run the same command again"
    )


def _free_bytes(path: Path) -> int:
    return shutil.disk_usage(_existing(path)).free


def _existing(path: Path) -> Path:
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place
