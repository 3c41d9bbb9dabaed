"""Experts in four bits beside experts as they are: what reading loses, and how much longer it takes.

    python -m benchmarks.four_bits [--adapter FOLDER ...] [--times 3] [--json FILE]
    python -m benchmarks.four_bits --layers 3 [--times 3]     (time alone, at DeepSeek-OCR's widths, random weights)

Reads   data/processed, data/features (`dvc repro encode`), the base model and adapters; refuses an adapter of the
        routed experts.
Prints  for the base model and each adapter the CER on the validation lines, with the experts as they are and in nf4,
        the difference with its paired interval over pages and its p-value, and the seconds of each (the best of several
        times, in turn). Absolute times belong to the machine and its load.

The last row sets the last adapter in nf4 beside the first one as it is: name an adapter that was trained as it is, then
one that was trained in nf4, and it is the whole cost of four bits. With --layers a checkpoint of some GB is drawn, for
the time alone: reading 16 tokens behind a picture in base mode, and a training step on 400 tokens with checkpointing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.random_checkpoint import imitate, official_config
from ownhand.evaluation.metrics import Score, score
from ownhand.evaluation.uncertainty import PairedRates, add_by_page, bootstrap, permutation_p_value
from ownhand.files import write_json
from ownhand.model.adapter import add_adapter, load_adapter, lora_config
from ownhand.model.base import BaseModel
from ownhand.model.decoding import transcribe_tokens
from ownhand.model.four_bit import ExpertWeights
from ownhand.model.loss import label_logits_loss
from ownhand.model.sequence import as_image_outputs
from ownhand.params import EvaluateParams, Params, read_params
from ownhand.runtime import set_up
from ownhand.samples import Sample, read_metadata
from ownhand.vision.features import FeatureCache

VISION_TOKENS, TEXT_TOKENS, NEW_TOKENS = 273, 126, 16
KINDS: tuple[ExpertWeights, ExpertWeights] = ("as_is", "nf4")


@dataclass(frozen=True)
class Read:
    """What one reader made of the validation lines, and the seconds of its best time."""

    scores: list[Score]
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.four_bits")
    parser.add_argument("--adapter", type=Path, action="append", default=[])
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--layers", type=int)
    arguments = parser.parse_args()
    params = read_params()
    if arguments.layers:
        for name, ratio in time_at_full_width(params, arguments.layers, arguments.times).items():
            print(f"{name}: nf4 takes {ratio:.2f} times the time")
        return
    device = set_up(params.runtime)
    samples, cache, base = read_metadata(sides=["val"]), FeatureCache(Path("data/features")), BaseModel.open(params)
    tokens = [cache.tokens(sample.image_id) for sample in samples]
    rows = []
    readers: list[Path | None] = [None, *arguments.adapter]
    read: dict[tuple[Path | None, ExpertWeights], Read] = {}
    for adapter in readers:
        models: dict[ExpertWeights, Any] = {}
        for kind in KINDS:
            loaded = base.load(device, vision=False, expert_weights=kind)
            models[kind] = load_adapter(loaded, adapter) if adapter else loaded
        seconds: dict[ExpertWeights, list[float]] = {kind: [] for kind in KINDS}
        for _ in range(arguments.times):
            for kind, model in models.items():
                start = time.perf_counter()
                readings = transcribe_tokens(model, tokens, base, params.transcribe, None)
                seconds[kind].append(time.perf_counter() - start)
                scores = [score(s.text, reading.text) for s, reading in zip(samples, readings, strict=True)]
                read[adapter, kind] = Read(scores, min(seconds[kind]))
        name = adapter.as_posix() if adapter else "base model"
        rows.append(compare(name, samples, read[adapter, "as_is"], read[adapter, "nf4"], params.evaluate))
    if len(arguments.adapter) > 1:
        first, last = arguments.adapter[0], arguments.adapter[-1]
        name = f"{first.as_posix()} as it is, {last.as_posix()} in nf4"
        rows.append(compare(name, samples, read[first, "as_is"], read[last, "nf4"], params.evaluate))
    if arguments.json:
        write_json(arguments.json, rows)
    for row in rows:
        print(
            f"{row['name']}: CER {row['as_is']:.2%} as is, {row['nf4']:.2%} in nf4, more by {row['more']:.2%} "
            f"({row['more_low']:.2%} to {row['more_high']:.2%}), p = {row['p']:.3f}; {row['lines_that_differ']} lines "
            f"read otherwise; {row['seconds_as_is']:.1f} s and {row['seconds_nf4']:.1f} s, x {row['ratio']:.2f}"
        )


def time_at_full_width(params: Params, layers: int, times: int) -> dict[str, float]:
    """How much longer experts in nf4 take than experts as they are, on a random model of the official shape."""
    train = params.train.model_copy(update={"lora_targets": ["attention", "mlp"], "lora_r": 8})
    settings = params.transcribe.model_copy(update={"max_new_tokens": NEW_TOKENS})
    with tempfile.TemporaryDirectory() as folder:
        imitate(Path(folder), official_config(layers), torch.float32)
        named = {"name_or_path": folder, "revision": None, "dtype": "float32"}
        base = BaseModel.open(params.model_copy(update={"model": params.model.model_copy(update=named)}))
        models: dict[ExpertWeights, Any] = {}
        for kind in KINDS:
            loaded = base.load("cpu", vision=False, expert_weights=kind)
            models[kind] = add_adapter(loaded, lora_config(train, folder, None))
            models[kind].activation_checkpointing_enable()
    tokens = torch.randn(VISION_TOKENS, models["nf4"].config.text_config.hidden_size)
    ids = [base.special.bos, *[base.special.image] * VISION_TOKENS, *[30] * TEXT_TOKENS]
    batch = {
        "input_ids": torch.tensor([ids]),
        "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
        "labels": torch.tensor([[-100] * (1 + VISION_TOKENS) + [30] * TEXT_TOKENS]),
        "mm_encoder_outputs": as_image_outputs([tokens]),
    }
    work: dict[str, Callable[[Any], object]] = {
        f"reading {NEW_TOKENS} tokens, one picture": lambda m: transcribe_tokens(
            m.eval(), [tokens], base, settings, None
        ),
        f"reading {NEW_TOKENS} tokens, 8 pictures": lambda m: transcribe_tokens(
            m.eval(), [tokens] * 8, base, settings, None
        ),
        "a training step": lambda m: label_logits_loss(m.train(), batch)[0].backward(),  # type: ignore[no-untyped-call]
    }
    ratios = {}
    for name, run in work.items():
        seconds: dict[ExpertWeights, list[float]] = {kind: [] for kind in KINDS}
        for _ in range(times):
            for kind, model in models.items():
                start = time.perf_counter()
                run(model)
                seconds[kind].append(time.perf_counter() - start)
        ratios[name] = min(seconds["nf4"]) / min(seconds["as_is"])
    return ratios


def compare(name: str, samples: Sequence[Sample], as_is: Read, nf4: Read, params: EvaluateParams) -> dict[str, Any]:
    """CER of two readers of the same lines, what the second has more, with interval and p-value; seconds and ratio."""
    pages = [f"{sample.hand}/{sample.page}" for sample in samples]
    rates = PairedRates(
        reader=add_by_page(pages, [one.character_errors for one in nf4.scores]),
        adapter=add_by_page(pages, [one.character_errors for one in as_is.scores]),
        n=add_by_page(pages, [one.characters for one in as_is.scores]),
    )
    more = bootstrap(rates, params.bootstrap_samples, params.confidence_level, params.seed).difference
    n = int(rates.n.sum())
    return {
        "name": name,
        "as_is": int(rates.adapter.sum()) / n,
        "nf4": int(rates.reader.sum()) / n,
        "more": int((rates.reader - rates.adapter).sum()) / n,
        "more_low": more.low,
        "more_high": more.high,
        "p": permutation_p_value(rates, params.bootstrap_samples, params.seed),
        "lines_that_differ": sum(a != b for a, b in zip(as_is.scores, nf4.scores, strict=True)),
        "seconds_as_is": as_is.seconds,
        "seconds_nf4": nf4.seconds,
        "ratio": nf4.seconds / as_is.seconds,
    }


if __name__ == "__main__":
    main()
