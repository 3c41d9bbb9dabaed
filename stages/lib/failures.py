"""How a stage ends: with exit code 0, or with a message for a person and exit code 1."""

from __future__ import annotations

import sys
from collections.abc import Callable


class Refusal(Exception):
    """Something a person can mend; the message says what was seen, where, and the remedy."""


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage; what a person can mend becomes a message, what is our fault keeps its traceback.

    Exit codes: 0 done, 1 failed, 130 interrupted. DVC judges a stage by its exit code alone.
    """
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on from the last checkpoint", file=sys.stderr)
        raise SystemExit(130) from None
    except (OSError, Refusal) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
