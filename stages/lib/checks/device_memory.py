"""The peaks of training and reading against the memory of the device."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

from stages.lib.checks.base_model import FoundModel
from stages.lib.checks.findings import Finding, blocker, gigabytes, ready, warning
from stages.lib.checks.lengths import Lengths
from stages.lib.checks.machine import EnvironmentFacts
from stages.lib.model.adapter import needs_pictures
from stages.lib.model.memory import Load, Memory, estimate_training, estimate_transcription
from stages.lib.params import Params
from stages.lib.runtime import DTYPES
from stages.lib.vision.views import make_views

CUDA_BYTES = 600_000_000  # of a card, for CUDA's own libraries
TIGHT = 0.9  # of the device's memory


def inspect_memory(
    params: Params,
    model: FoundModel,
    lengths: Lengths,
    adapter_weights: int,
    batch_size: int,
    machine: EnvironmentFacts,
) -> list[Finding]:
    """Findings MODEL-005 of the largest training batch and of reading; adapter_weights: their number."""
    dtype = DTYPES[params.model.dtype]
    training = estimate_step(params, model, lengths, batch_size)
    reading = estimate_transcription(
        model.config,
        dtype,
        params.transcribe.batch_size,
        lengths.prompt,
        params.transcribe.max_new_tokens,
        adapter_weights,
    )
    total, free = machine.memory_bytes, machine.free_memory_bytes
    if machine.card:
        total, free = machine.card.total_bytes, machine.card.free_bytes
    return check_memory(training, reading, machine.device, total, free, params)


def estimate_step(params: Params, model: FoundModel, lengths: Lengths, batch_size: int) -> Memory:
    """Peak of the worst training step: a batch of nothing but the longest sequence."""
    views = None
    if needs_pictures(params.train.lora_targets):
        blank = Image.new("RGB", (lengths.sample.width, lengths.sample.height))
        views = make_views(blank, params.encode.mode, model.sizes, params.encode.max_tiles)
    load = Load(batch_size, lengths.longest, lengths.vision, lengths.labels, views)
    dtype = DTYPES[params.model.dtype]
    return estimate_training(model.config, params.train, dtype, params.model.attn_implementation, load)


def check_memory(
    training: Memory, reading: Memory, device: str, total_bytes: int, free_bytes: int, params: Params
) -> list[Finding]:
    """Findings MODEL-005: the peaks of a training step and of reading against the device's memory.

    total_bytes, free_bytes: of the card, or of the machine's memory for a CPU. The texts hold nothing that changes by
    itself.
    """
    smaller = "halve transcribe.batch_size" if params.transcribe.batch_size > 1 else ""
    remedies = {"a training step": "; ".join(_what_lowers_memory(params)), "reading a batch": smaller}
    findings = []
    for (what, remedy), memory in zip(remedies.items(), (training, reading), strict=True):
        need = memory.total + (CUDA_BYTES if device == "cuda" else 0)
        seen = f"{what} takes {gigabytes(need)} at its peak, {device} has {gigabytes(total_bytes)}; {memory}"
        remedy = remedy or "use a device with more memory"
        if need > total_bytes:
            findings.append(blocker("MODEL-005", seen, remedy))
        elif need > free_bytes:
            findings.append(warning("MODEL-005", f"{seen}; other programs hold too much", "close them, or: " + remedy))
        elif need > TIGHT * total_bytes:
            findings.append(warning("MODEL-005", f"{seen}; that is tight", remedy))
        else:
            findings.append(ready("MODEL-005", seen))
    return findings


def _what_lowers_memory(params: Params) -> Iterator[str]:
    """The cheapest first."""
    if not params.train.gradient_checkpointing:
        yield "set train.gradient_checkpointing to true"
    if params.train.batch_size > 1:
        yield "halve train.batch_size and double train.accumulation"
    if params.model.dtype == "float32":
        yield "set model.dtype to bfloat16"
    if "experts" in params.train.lora_targets:
        yield "take experts out of train.lora_targets"
    if params.encode.mode == "gundam" and params.encode.max_tiles > 2:
        yield "lower encode.max_tiles"
