"""Proof: does the adapter read its pictures or recite, and what has the base model unlearned?

A model that reads must make far more errors with another line's picture, or a white one, than with the right one; a
model that recites makes about as many. Retention is the CER on a fixed set of printed lines before and after training.
`transcribe` reads all of these (ownhand/vision/probes.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel as Schema
from pydantic import ConfigDict, ValidationError

from ownhand.errors import Refusal
from ownhand.evaluation.metrics import count_character_errors, micro_average
from ownhand.evaluation.readings import ScoredLine

MIN_GAIN = 0.2  # the right picture must take away at least this share of the errors made with a wrong one
MAX_LOSS = 0.1  # more than this added to the CER on printed lines is worth a warning


class ProbeReading(Schema):
    """What was read in one probe picture; `truth` is the text of the line, which may have had another picture."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    probe: Literal["swapped", "blank", "printed"]
    reader: Literal["base", "adapter"]
    image_id: str
    picture: str
    truth: str
    prediction: str


def read_probes(path: Path) -> list[ProbeReading]:
    """The lines of data/predictions/probes.jsonl; Refusal when it is missing or cannot be read."""
    remedy = "run `dvc repro --force transcribe`"
    if not path.exists():
        raise Refusal(f"{path.as_posix()} is missing; {remedy}")
    rows = [row for row in path.read_text(encoding="utf-8").split("\n") if row.strip()]
    try:
        return [ProbeReading.model_validate_json(row) for row in rows]
    except ValidationError as error:
        raise Refusal(f"{path.as_posix()} cannot be read: {error.errors()[0]['msg']}; {remedy}") from None


def summarise_probes(
    probes: Sequence[ProbeReading], lines: Sequence[ScoredLine]
) -> dict[str, dict[str, float | int | None]]:
    """For summary.json: `reads` and `retention`.

    reads: the adapter's CER on n_lines validation lines with their own, with swapped and with blank pictures;
    retention: the CER of base and adapter on the printed lines, and what was lost (adapter - base). None where there
    is nothing to compare, such as swapped pictures of a single line.
    """

    def cer(probe: str, reader: str = "adapter") -> float | None:
        found = [row for row in probes if (row.probe, row.reader) == (probe, reader)]
        return micro_average(count_character_errors(r.truth, r.prediction) for r in found) if found else None

    probed = {probe.image_id for probe in probes if probe.probe == "blank"}
    own = [line.scores["adapter"] for line in lines if line.sample.image_id in probed]
    base, adapter = cer("printed", "base"), cer("printed")
    return {
        "reads": {
            "n_lines": len(own),
            "cer": micro_average((score.character_errors, score.characters) for score in own) if own else None,
            "cer_swapped_pictures": cer("swapped"),
            "cer_blank_pictures": cer("blank"),
        },
        "retention": {
            "n_lines": sum((probe.probe, probe.reader) == ("printed", "base") for probe in probes),
            "base_cer": base,
            "adapter_cer": adapter,
            "lost": None if base is None or adapter is None else adapter - base,
        },
    }


def find_problems(summary: dict[str, Any]) -> dict[str, str]:
    """Warnings by code, from `reads` and `retention` of summary.json; empty when all is well."""
    reads, retention = summary["reads"], summary["retention"]
    found = {}
    for code, kind in (("EVAL-001", "swapped"), ("EVAL-002", "blank")):
        wrong = reads[f"cer_{kind}_pictures"]
        if wrong is not None and reads["cer"] >= (1 - MIN_GAIN) * wrong:
            found[code] = (
                f"with {kind} pictures the CER is {wrong:.1%}, with the right ones {reads['cer']:.1%}: the pictures "
                f"take away less than {MIN_GAIN:.0%} of the errors, so the adapter recites rather than reads; train "
                "on more lines, or with fewer epochs"
            )
    if retention["lost"] is not None and retention["lost"] > MAX_LOSS:
        found["EVAL-003"] = (
            f"on printed lines the CER rose from {retention['base_cer']:.1%} to {retention['adapter_cer']:.1%}: the "
            "adapter has unlearned print; raise train.rehearsal_share where it brings fewer than 24 lines, lower "
            "transcribe.adapter_strength (0.7, say), train it more gently (fewer epochs, a smaller learning rate), or "
            "use it for this handwriting only"
        )
    return found
