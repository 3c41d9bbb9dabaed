"""Transcribe: the base model, and the base model with the adapter, read the validation pictures.

Reads   data/processed/metadata.json, data/features/, the base model, models/adapter/; parameters `model`,
        `transcribe`. An adapter of the vision tower sees the pictures of data/processed/ anew (parameters `encode`).
Writes  data/predictions/base.jsonl and adapter.jsonl, one object a picture, in order of image id.
Refuses to run without an adapter or without cached vision tokens.
Alone   python -m stages.transcribe
"""

from __future__ import annotations

import json
from pathlib import Path

from stages.lib.adapter import changes_vision, load_adapter
from stages.lib.decoding import Reading, transcribe
from stages.lib.failures import run_stage
from stages.lib.families import read_family
from stages.lib.features import FeatureCache, VisionInput, compute_vision_tokens
from stages.lib.files import write_text
from stages.lib.metadata import Sample, read_metadata
from stages.lib.model import find_model, load_base_model, read_tokenizer, special_tokens
from stages.lib.params import read_params
from stages.lib.pictures import Pictures
from stages.lib.runtime import DTYPES, set_up
from stages.lib.views import read_view_sizes

FEATURES = Path("data/features")
ADAPTER = Path("models/adapter")
PREDICTIONS = Path("data/predictions")


def main() -> None:
    params = read_params()
    device = set_up(params.runtime)
    samples = [sample for sample in read_metadata() if sample.split == "val"]
    cache = FeatureCache(FEATURES)
    vision_tokens = [cache.tokens(sample.image_id) for sample in samples]
    sees_anew = changes_vision(ADAPTER)
    base = load_base_model(
        params.model.name_or_path,
        params.model.revision,
        dtype=DTYPES[params.model.dtype],
        device=device,
        attn_implementation=params.model.attn_implementation,
        vision=sees_anew,
    )
    folder = find_model(params.model.name_or_path, params.model.revision)
    tokenizer = read_tokenizer(folder)
    special = special_tokens(tokenizer, read_family(folder).prompt)
    model = load_adapter(base, ADAPTER)
    with model.disable_adapter():
        base_readings = transcribe(model, vision_tokens, tokenizer, special, params.transcribe, "base reads")
    if sees_anew:
        vision = VisionInput(params.encode.mode, read_view_sizes(folder), params.encode.max_tiles)
        pictures = Pictures(samples, vision, params.encode.seed)
        vision_tokens = [compute_vision_tokens(model, pictures.views(sample.image_id)) for sample in samples]
    adapter_readings = transcribe(model, vision_tokens, tokenizer, special, params.transcribe, "adapter reads")
    write_predictions(PREDICTIONS / "base.jsonl", samples, base_readings)
    write_predictions(PREDICTIONS / "adapter.jsonl", samples, adapter_readings)
    runaway = sum(reading.runaway for reading in adapter_readings)
    print(
        f"transcribe: read {len(samples)} validation pictures twice; wrote {PREDICTIONS.as_posix()}/base.jsonl and "
        f"adapter.jsonl; runaway outputs: {sum(r.runaway for r in base_readings)} base, {runaway} adapter"
    )


def write_predictions(path: Path, samples: list[Sample], readings: list[Reading]) -> None:
    """JSON Lines: image_id, prediction, new_tokens, runaway, confidence."""
    lines = [
        json.dumps(
            {
                "image_id": sample.image_id,
                "prediction": reading.text,
                "new_tokens": reading.new_tokens,
                "runaway": reading.runaway,
                "confidence": reading.confidence,
            },
            ensure_ascii=False,
        )
        for sample, reading in zip(samples, readings, strict=True)
    ]
    write_text(path, "".join(line + "\n" for line in lines))


if __name__ == "__main__":
    run_stage(main)
