"""Transcribe: the base model, and the base model with the adapter, read the validation pictures.

Reads   data/processed/val/metadata.json, data/features/, the base model, models/adapter/; parameters `model`,
        `transcribe`. An adapter of the vision tower sees the pictures of data/processed/ anew (parameters `encode`).
Writes  data/predictions/base.jsonl and adapter.jsonl, one object a picture, in order of image id; probes.jsonl, what
        was read in wrong, blank and printed pictures (ownhand/vision/probes.py).
Refuses to run without an adapter or without cached vision tokens.
Alone   python -m stages.transcribe

One batch is in memory at a time. Interrupted, it goes on behind the last batch that was read.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from peft import PeftModel

from ownhand import processes
from ownhand.errors import run_stage
from ownhand.files import write_text
from ownhand.inputs import Inputs
from ownhand.model.adapter import changes_vision, load_adapter
from ownhand.model.base import BaseModel
from ownhand.model.decoding import as_reader, json_lines, transcribe_samples, transcribe_tokens
from ownhand.model.views import compute_vision_tokens
from ownhand.params import Params, TranscribeParams, read_params
from ownhand.processes import start_processes
from ownhand.runtime import alone_in, checkpoint_folder, fingerprint, set_up
from ownhand.samples import Sample, metadata_file, read_metadata
from ownhand.vision.features import FeatureCache
from ownhand.vision.pictures import Pictures
from ownhand.vision.probes import blank_key, printed_lines, probe_pictures, probe_samples, swap

FEATURES = Path("data/features")
ADAPTER = Path("models/adapter")
PREDICTIONS = Path("data/predictions")


def main() -> None:
    inputs = Inputs.of("transcribe")
    params = read_params()
    if start_processes("stages.transcribe", params.runtime.processes):
        return
    device = set_up(params.runtime)
    samples = read_metadata(sides=["val"])
    cache = FeatureCache(FEATURES)
    sees_anew = changes_vision(ADAPTER)
    base = BaseModel.open(params)
    loaded = base.load(device, vision=sees_anew, expert_weights=params.transcribe.expert_weights)
    model = load_adapter(loaded, ADAPTER, params.transcribe.adapter_strength)
    pictures = Pictures(samples, params.encode, probe_pictures(samples))

    def see_anew(key: str) -> torch.Tensor:
        return compute_vision_tokens(model, base.view_rules.views(pictures.image(key)))

    tokens_of = {"base": cache.tokens, "adapter": see_anew if sees_anew else cache.tokens}  # by reader, of a key
    counts = [cache.count(sample.image_id) for sample in samples]
    unfinished = unfinished_folder(params, base)
    inputs.refuse_edits()  # or what is read now would be kept as that of another adapter
    with alone_in(unfinished):
        rows = {}
        for reader in tokens_of:
            with as_reader(model, reader):
                rows[reader] = transcribe_samples(
                    model,
                    samples,
                    counts,
                    tokens_of[reader],
                    base,
                    params.transcribe,
                    unfinished / reader,
                    f"{reader} reads",
                )
        probes_read = transcribe_probes(model, samples, tokens_of, base, params.transcribe)
        if processes.number():
            return
        inputs.refuse_edits()
        for reader, read in rows.items():
            write_text(PREDICTIONS / f"{reader}.jsonl", json_lines(read))
        write_text(PREDICTIONS / "probes.jsonl", probes_read)
        shutil.rmtree(unfinished, ignore_errors=True)
    runaway = {reader: sum(row["runaway"] for row in read) for reader, read in rows.items()}
    print(
        f"transcribe: read {len(samples)} validation pictures twice; wrote {PREDICTIONS.as_posix()}/base.jsonl and "
        f"adapter.jsonl; runaway outputs: {runaway['base']} base, {runaway['adapter']} adapter"
    )


def unfinished_folder(params: Params, base: BaseModel) -> Path:
    """Where what was read in exactly this task lies until the end."""
    files = [metadata_file("val"), FEATURES / "index.json", *sorted(ADAPTER.glob("adapter_*")), *base.files()]
    decides = fingerprint(params.model, params.encode, params.transcribe, files=files)
    return checkpoint_folder("transcribe", decides)


def transcribe_probes(
    model: PeftModel,
    samples: Sequence[Sample],
    tokens_of: Mapping[str, Callable[[str], torch.Tensor]],
    base: BaseModel,
    params: TranscribeParams,
) -> str:
    """JSON Lines: probe ("swapped", "blank", "printed"), reader, image_id, picture, truth, prediction.

    `tokens_of` gives, for each reader, the vision tokens of a picture's key. The truth is that of the line `image_id`,
    whatever picture was shown; `picture` is that one's key. Printed lines are read by base and adapter. Without two
    different texts there is no "swapped".
    """
    own, printed = probe_samples(samples), printed_lines()
    others = swap(own)
    as_printed = [(line.key, line.key, line.text) for line in printed]
    shown: list[tuple[str, str, list[tuple[str, str, str]]]] = [  # probe, reader, (image id, picture, truth)
        ("swapped", "adapter", [(s.image_id, o.image_id, s.text) for s, o in zip(own, others, strict=False)]),
        ("blank", "adapter", [(s.image_id, blank_key(s), s.text) for s in own]),
        ("printed", "adapter", as_printed),
        ("printed", "base", as_printed),
    ]
    rows = []
    for probe, reader, pictures in shown:
        if not pictures:
            continue
        with as_reader(model, reader):
            tokens = [tokens_of[reader](picture) for _, picture, _ in pictures]
            readings = transcribe_tokens(model, tokens, base, params, f"{probe} pictures, {reader}")
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


if __name__ == "__main__":
    run_stage(main)
