"""The peaks of training and reading against the memory of the device."""

from __future__ import annotations

import math
from collections.abc import Iterator

from PIL import Image

from ownhand.checks.base_model import FoundModel
from ownhand.checks.findings import Finding, blocker, gigabytes, ready, warning
from ownhand.checks.lengths import Lengths, SampleLength
from ownhand.checks.machine import EnvironmentFacts
from ownhand.model.adapter import needs_pictures
from ownhand.model.memory import Load, Memory, estimate_training, estimate_transcription
from ownhand.model.views import Views, make_views
from ownhand.params import Params
from ownhand.runtime import DTYPES
from ownhand.training.batches import sequences_within

CUDA_BYTES = 600_000_000  # of a GPU, for CUDA's own libraries
TIGHT = 0.9  # of the device's memory


def inspect_memory(
    params: Params,
    model: FoundModel,
    lengths: Lengths,
    batch_size: int,
    machine: EnvironmentFacts,
) -> list[Finding]:
    """Findings MODEL-005 of the largest training batch and of reading.

    batch_size: the most sequences of a batch, all processes together.
    """
    training = estimate_step(params, model, lengths, batch_size)
    reading = estimate_transcription(model.config, params, lengths.prompt)
    total, free = machine.memory_bytes, machine.free_memory_bytes
    if machine.gpu:
        total, free = machine.gpu.total_bytes, machine.gpu.free_bytes
    return check_memory(training, reading, machine.device, total, free, params)


def estimate_step(params: Params, model: FoundModel, lengths: Lengths, batch_size: int) -> Memory:
    """Peak of the worst training step of one process: a batch of nothing but the longest sequence.

    Within `batch_tokens` also one of nothing but the sequence of which a batch has the most labels.
    """
    dtype = DTYPES[params.model.dtype]
    loads = [
        Load(size, length.tokens, length.vision, length.labels, _views(params, model, length))
        for length, size in worst_batches(params, lengths, batch_size)
    ]
    estimates = (
        estimate_training(model.config, params.train, dtype, params.model.attn_implementation, load) for load in loads
    )
    return max(estimates, key=lambda memory: memory.total)


def worst_batches(params: Params, lengths: Lengths, batch_size: int) -> list[tuple[SampleLength, int]]:
    """(sequence, how many of it one process has at once) of the batches that may take the most memory."""

    def sequences(length: SampleLength) -> int:
        return math.ceil(
            sequences_within(length.tokens, batch_size, params.train.batch_tokens) / params.runtime.processes
        )

    worst = [SampleLength(lengths.sample, lengths.longest, lengths.vision, lengths.labels)]
    if params.train.batch_tokens is not None:
        worst.append(max(lengths.each, key=lambda length: sequences(length) * length.tokens))
        worst.append(max(lengths.each, key=lambda length: sequences(length) * length.labels))
    return list({(w.tokens, w.vision, w.labels): (w, sequences(w)) for w in worst}.values())


def _views(params: Params, model: FoundModel, length: SampleLength) -> Views | None:
    if not needs_pictures(params.train.lora_targets):
        return None
    blank = Image.new("RGB", (length.sample.width, length.sample.height))
    return make_views(blank, params.encode.mode, model.sizes, params.encode.max_tiles)


def check_memory(
    training: Memory, reading: Memory, device: str, total_bytes: int, free_bytes: int, params: Params
) -> list[Finding]:
    """Findings MODEL-005: the peaks of a training step and of reading against the device's memory.

    total_bytes, free_bytes: of the GPU, or of the machine's memory for a CPU. The texts hold nothing that changes by
    itself.
    """
    remedies = {
        "a training step": "; ".join(_what_lowers_memory(params)),
        "reading a batch": "; ".join(_what_lowers_reading(params)),
    }
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
    if params.train.batch_tokens is not None:
        yield "halve train.batch_tokens and double train.accumulation"
    elif params.train.batch_size > 1:
        yield "halve train.batch_size and double train.accumulation"
    if params.model.dtype == "float32":
        yield "set model.dtype to bfloat16"
    if "experts" in params.train.lora_targets:
        yield "take experts out of train.lora_targets"
    if params.train.expert_weights == "as_is":
        yield "set train.expert_weights to nf4"
    if params.encode.mode == "gundam" and params.encode.max_tiles > 2:
        yield "lower encode.max_tiles"


def _what_lowers_reading(params: Params) -> Iterator[str]:
    if params.transcribe.beams > 1:
        yield "lower transcribe.beams"
    if params.transcribe.batch_size > 1:
        yield "halve transcribe.batch_size"
    if params.transcribe.expert_weights == "as_is" and "experts" not in params.train.lora_targets:
        yield "set transcribe.expert_weights to nf4"
