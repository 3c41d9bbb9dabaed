"""How a stage ends: with exit code 0, or with a message for a person and exit code 1."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

MEMORY_REMEDY = """What lowers the need, in params.yaml, the cheapest first:
  train.gradient_checkpointing: true   (slower by about a third)
  train.batch_size: half, and train.accumulation: double   (the same result); train.batch_tokens, where set: half
  transcribe.batch_size: half, when it was transcribing
  model.dtype: bfloat16   (half of float32's weights)
  encode.max_tiles or encode.mode   (fewer vision tokens)
What was done before stays: run the same command again."""


class Refusal(Exception):
    """Something a person can mend; the message says what was seen, where, and the remedy."""


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage; what a person can mend becomes a message, what is our fault keeps its traceback.

    Exit codes: 0 done, 1 failed, 130 interrupted. DVC judges a stage by its exit code alone.
    """
    warnings.simplefilter("ignore", FutureWarning)  # what libraries tell each other
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on from the last checkpoint", file=sys.stderr)
        raise SystemExit(130) from None
    except (OSError, Refusal) as error:
        print(f"error: {error}{_advise(error)}", file=sys.stderr)
        raise SystemExit(1) from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        seen = str(error).partition("\n")[0] or "no more memory"
        print(f"error: out of memory: {seen}\n{MEMORY_REMEDY}", file=sys.stderr)
        raise SystemExit(1) from None


def _advise(error: OSError | Refusal) -> str:
    """What to do about a disk that filled up where nothing else has said so."""
    if isinstance(error, Refusal):
        return ""
    from ownhand.files import describe_disk, is_disk_full

    place = Path(error.filename or ".")
    return f"; {describe_disk(place)}" if is_disk_full(error, place) else ""


def is_out_of_memory(error: Exception) -> bool:
    """Whether the machine or the card has no more memory; torch says so in different words for each."""
    words = ("out of memory", "can't allocate memory", "not enough memory", "std::bad_alloc")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)
