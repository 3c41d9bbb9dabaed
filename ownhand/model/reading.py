"""Readers: the base model and the base model with its adapter, and what they write down of each picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from peft import PeftModel

from ownhand.model.decoding import Reading
from ownhand.samples import Sample


def disabled(model: PeftModel, reader: str) -> AbstractContextManager[None]:
    """The model as `reader` has it: "base" is without the adapter."""
    return model.disable_adapter() if reader == "base" else nullcontext()


def prediction(sample: Sample, reading: Reading) -> dict[str, Any]:
    """A row of a prediction file: image_id, prediction, new_tokens, runaway, confidence."""
    return {
        "image_id": sample.image_id,
        "prediction": reading.text,
        "new_tokens": reading.new_tokens,
        "runaway": reading.runaway,
        "confidence": reading.confidence,
    }


def json_lines(rows: Sequence[dict[str, Any]]) -> str:
    """One JSON object a line, letters readable."""
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
