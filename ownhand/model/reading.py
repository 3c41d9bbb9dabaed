"""Rows of prediction files: what the base model, and the base model with its adapter, read in each picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from ownhand import processes
from ownhand.files import AppendedLines
from ownhand.model.base import BaseModel
from ownhand.model.decoding import Reading, read_batches
from ownhand.params import TranscribeParams
from ownhand.samples import Sample

Row = dict[str, Any]


def as_reader(model: PeftModel, reader: str) -> AbstractContextManager[None]:
    """The model as `reader` has it: "base" is without the adapter."""
    return model.disable_adapter() if reader == "base" else nullcontext()


def read_samples(
    model: Any,
    samples: Sequence[Sample],
    counts: Sequence[int],
    see: Callable[[str], torch.Tensor],
    base: BaseModel,
    params: TranscribeParams,
    unfinished: Path,
    description: str,
) -> list[Row]:
    """A row of a prediction file for each sample, in order of image id; all processes together, and each gets all.

    `counts` are the samples' numbers of vision tokens, `see` gives those of an image id. What has been read lies in
    `unfinished`, a name for files that belong to exactly this task: a run that was killed goes on behind it.
    """
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    parts = [unfinished.with_name(f"{unfinished.name}-{number}.jsonl") for number in range(processes.count())]
    with AppendedLines(parts[processes.number()], hashed=True) as lines:
        known = {row["image_id"] for row in lines.kept}
        done = {i for i, sample in enumerate(samples) if sample.image_id in known}
        batches = read_batches(model, counts, lambda i: see(samples[i].image_id), base, params, description, done)
        for batch in batches:
            for i, reading in batch.items():
                if i not in done:
                    lines.append(prediction(samples[i], reading))
    processes.wait_for_all()
    rows = {row["image_id"]: row for part in parts for row in AppendedLines.read(part, hashed=True)}
    return [rows[sample.image_id] for sample in sorted(samples, key=lambda sample: sample.image_id)]


def prediction(sample: Sample, reading: Reading) -> Row:
    """A row of a prediction file: image_id, prediction, new_tokens, runaway, confidence."""
    return {
        "image_id": sample.image_id,
        "prediction": reading.text,
        "new_tokens": reading.new_tokens,
        "runaway": reading.runaway,
        "confidence": reading.confidence,
    }


def json_lines(rows: Sequence[Row]) -> str:
    """One JSON object a line, letters readable."""
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
