"""Transcribe: the base model, and the base model with the adapter, read the validation pictures.

Reads   data/processed/metadata.json, data/features/, the base model, models/adapter/; parameters `model`,
        `transcribe`.
Writes  data/predictions/base.jsonl and adapter.jsonl, one object a picture, in order of image id; probes.jsonl, what
        was read in wrong, blank and printed pictures (lib/probes.py).
Refuses to run without an adapter or without cached vision tokens.
Alone   python -m stages.transcribe
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from peft import PeftModel
from tokenizers import Tokenizer

from stages.lib.adapter import load_adapter
from stages.lib.decoding import Reading, transcribe
from stages.lib.failures import run_stage
from stages.lib.features import FeatureCache
from stages.lib.files import write_text
from stages.lib.metadata import Sample, read_metadata
from stages.lib.model import find_model, load_base_model, read_tokenizer, special_tokens
from stages.lib.params import TranscribeParams, read_params
from stages.lib.probes import blank_key, exchange, printed_lines, probe_samples
from stages.lib.runtime import DTYPES, set_up
from stages.lib.sequence import SpecialTokens

FEATURES = Path("data/features")
ADAPTER = Path("models/adapter")
PREDICTIONS = Path("data/predictions")


def main() -> None:
    params = read_params()
    device = set_up(params.runtime)
    samples = [sample for sample in read_metadata() if sample.split == "val"]
    cache = FeatureCache(FEATURES)
    vision_tokens = [cache.tokens(sample.image_id) for sample in samples]
    base = load_base_model(
        params.model.name_or_path,
        params.model.revision,
        dtype=DTYPES[params.model.dtype],
        device=device,
        vision=False,
    )
    folder = find_model(params.model.name_or_path, params.model.revision)
    tokenizer = read_tokenizer(folder)
    special = special_tokens(tokenizer)
    model = load_adapter(base, ADAPTER)
    with model.disable_adapter():
        base_readings = transcribe(model, vision_tokens, tokenizer, special, params.transcribe, "base reads")
    adapter_readings = transcribe(model, vision_tokens, tokenizer, special, params.transcribe, "adapter reads")
    write_predictions(PREDICTIONS / "base.jsonl", samples, base_readings)
    write_predictions(PREDICTIONS / "adapter.jsonl", samples, adapter_readings)
    write_text(PREDICTIONS / "probes.jsonl", read_probes(model, samples, cache, tokenizer, special, params.transcribe))
    runaway = sum(reading.runaway for reading in adapter_readings)
    print(
        f"transcribe: read {len(samples)} validation pictures twice; wrote {PREDICTIONS.as_posix()}/base.jsonl and "
        f"adapter.jsonl; runaway outputs: {sum(r.runaway for r in base_readings)} base, {runaway} adapter"
    )


def write_predictions(path: Path, samples: list[Sample], readings: list[Reading]) -> None:
    """JSON Lines: image_id, prediction, new_tokens, runaway, confidence."""
    lines = [
        {
            "image_id": sample.image_id,
            "prediction": reading.text,
            "new_tokens": reading.new_tokens,
            "runaway": reading.runaway,
            "confidence": reading.confidence,
        }
        for sample, reading in zip(samples, readings, strict=True)
    ]
    write_text(path, json_lines(lines))


def read_probes(
    model: PeftModel,
    samples: Sequence[Sample],
    cache: FeatureCache,
    tokenizer: Tokenizer,
    special: SpecialTokens,
    params: TranscribeParams,
) -> str:
    """JSON Lines: probe ("shuffled", "blank", "printed"), reader, image_id, picture, truth, prediction.

    The truth is that of the line `image_id`, whatever picture was shown; `picture` is that one's key in the feature
    cache. Printed lines are read by base and adapter. Without two different texts there is no "shuffled".
    """
    own, printed = probe_samples(samples), printed_lines()
    others = exchange(own)
    as_printed = [(line.key, line.key, line.text) for line in printed]
    shown: list[tuple[str, str, list[tuple[str, str, str]]]] = [  # probe, reader, (image id, picture, truth)
        ("shuffled", "adapter", [(s.image_id, o.image_id, s.text) for s, o in zip(own, others, strict=False)]),
        ("blank", "adapter", [(s.image_id, blank_key(s), s.text) for s in own]),
        ("printed", "adapter", as_printed),
        ("printed", "base", as_printed),
    ]
    rows = []
    for probe, reader, pictures in shown:
        tokens = [cache.tokens(picture) for _, picture, _ in pictures]
        with model.disable_adapter() if reader == "base" else nullcontext():
            readings = transcribe(model, tokens, tokenizer, special, params, f"{probe} pictures, {reader}")
        rows += [
            {
                "probe": probe,
                "reader": reader,
                "image_id": image_id,
                "picture": picture,
                "truth": truth,
                "prediction": reading.text,
            }
            for (image_id, picture, truth), reading in zip(pictures, readings, strict=True)
        ]
    return json_lines(rows)


def json_lines(rows: Sequence[dict[str, Any]]) -> str:
    """One JSON object a line, letters readable."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    run_stage(main)
