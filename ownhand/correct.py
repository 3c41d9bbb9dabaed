"""Correct: lines that wait for their transcription get it in the browser; those that have one are checked.

    ownhand correct  [--review] [--order uncertain|page] [--port N] [--no-browser]

Reads   data/raw/: pictures and their transcriptions; the base model and models/adapter/ for proposals, where they are
        there; parameters `prepare`, and those that decide how a line is read; with --review also metrics/lines.csv.
Writes  into the ground truth, at once: a row of annotations.csv or .tsv, a text file beside the picture, the TextEquiv
        of a TextLine in PAGE XML or its String in ALTO XML; what is no ground truth into data/raw/set_aside.csv;
        .checkpoints/correct/ (the journal for undo, and proposals).
Refuses ground truth that cannot be read as a whole, and formats that are only read.

Waiting lines come least certain first, as soon as the model has read some; with --review those come first that the
model reads most differently from their transcription.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from ownhand.correction.proposals import ProposalReader, Proposals, open_model, read_validation
from ownhand.correction.queue import Line, OpenLines, Queue
from ownhand.correction.store import Store
from ownhand.errors import Refusal
from ownhand.images import ImageLimits
from ownhand.params import Params

RAW = Path("data/raw")
ADAPTER = Path("models/adapter")
FOLDER = Path(".checkpoints/correct")
Order = Literal["uncertain", "page"]


def correct(
    params: Params,
    *,
    review: bool = False,
    order: Order = "uncertain",
    port: int = 0,
    browser: bool = True,
    open_reader: Callable[[], ProposalReader] | None = None,
) -> None:
    """Serve the page in the current folder until it is stopped; then say what was gained.

    open_reader: opens what proposes readings, in the background; None takes the project's own model. Refusal when the
    packages are missing, when the page is open already, and for ground truth that cannot be edited.
    """
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise Refusal(f"{' and '.join(missing)} is missing; run `pip install 'ownhand[correct]'`")
    from ownhand.correction.server import cer, serve

    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(FOLDER / "lock", timeout=0):
            not_truth = [name for name in (params.prepare.val, params.prepare.test) if name]
            lines = OpenLines(RAW, params.prepare.encoding, not_truth)
            store = Store(lines, FOLDER)
            proposals = Proposals(FOLDER, params.prepare)

            def doubt(line: Line) -> float:
                """How little the model agrees with the transcription or, where there is none, with itself."""
                if review:
                    rate = cer(line, proposals)
                    return -math.inf if rate is None else rate
                proposal = proposals.of(line)
                return -math.inf if proposal is None else -proposal.confidence

            queue = Queue(lines, review, doubt if order == "uncertain" else None)
            queue.checked = store.checked()
            if review:
                proposals.seeds = read_validation(lines, Path())
            to_do, _ = queue.count_open()
            print(f"correct: {to_do} line(s) {'to check' if review else 'wait for their transcription'}")
            if lines.bare_pages:
                print(f"correct: {lines.bare_pages} page(s) have no lines yet: `ownhand lines {RAW.as_posix()}`")
            proposals.start(
                open_reader or (lambda: open_model(params, ADAPTER)),
                lambda: [line for line in list(lines.in_order) if queue.is_open(line)],
            )
            try:
                serve(queue, store, proposals, ImageLimits.of(params.prepare), port, _announce, browser=browser)
                gains, (left, _) = store.gains(), queue.count_open()
                print(f"correct: {gains}; {left} line(s) left", flush=True)
                if gains.transcribed or gains.corrected or gains.set_aside:
                    print("correct: everything is in data/raw; `dvc repro` trains with it", flush=True)
            finally:
                proposals.stop()
    except Timeout:
        raise Refusal("`ownhand correct` is open in this folder already; stop it there with Ctrl+C") from None


def _announce(address: str) -> None:
    print(f"correct: {address}\ncorrect: stop with Ctrl+C", flush=True)
