"""One run looked at as a whole: samples, model, configuration and machine bring each other the facts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ownhand.checks.base_model import FoundModel, ModelFacts, check_base_model, gather_model
from ownhand.checks.configuration import ConfigurationFacts, check_configuration
from ownhand.checks.device_memory import inspect_memory
from ownhand.checks.environment import check_environment
from ownhand.checks.findings import Finding, is_ready
from ownhand.checks.lengths import Lengths, look_at_characters, measure_lengths
from ownhand.checks.machine import gather_environment
from ownhand.checks.overfit import check_overfit, choose_lines, overfit
from ownhand.checks.samples import SampleFacts, check_samples, find_missing, read_rejections
from ownhand.folders import find_unfit_files
from ownhand.model.fit import SequenceLimit
from ownhand.params import Params
from ownhand.runtime import DTYPES, set_up
from ownhand.samples import SIDES, Sample, metadata_file, read_metadata
from ownhand.vision.rehearsal import possible_samples, rehearsal_samples
from ownhand.vision.token_store import cached_copies

RAW = Path("data/raw")
REJECTED = Path("metrics/rejected.csv")
# Of an adapter weight: two checkpoints and one in the making; weight and AdamW's moments.
CHECKPOINT_BYTES = 3 * (4 + 8)


def inspect_run(params: Params) -> list[Finding]:
    """Findings on everything but the parameters' form; each part goes as far as the others let it."""
    samples = read_metadata() if all(metadata_file(side).exists() for side in SIDES) else []
    model_facts, model = gather_model(params)
    limit = SequenceLimit.of(params) if model else None
    lengths = measure_lengths(samples, limit) if samples and limit else None
    training = [sample for sample in samples if sample.split == "train"]
    rehearsal = rehearsal_samples(params.train.rehearsal_share, training)
    possible = possible_samples(params.train.rehearsal_share, len(samples))
    to_write = _bytes_to_write([*samples, *possible], params, model_facts, model, limit)
    machine = gather_environment(params.runtime, to_write)
    configuration = ConfigurationFacts(
        params=params,
        device=machine.device,
        bf16=machine.gpu.bf16 if machine.gpu else True,
        lines=len(training),
        lengths=lengths,
        rehearsal=[one.tokens for one in measure_lengths(rehearsal, limit).each] if rehearsal and limit else [],
        limits=model.limits if model else None,
    )
    findings = [
        *check_environment(machine),
        *check_configuration(configuration),
        *check_samples(_look_at_samples(samples, params, limit, lengths)),
        *check_base_model(model_facts, machine.device),
    ]
    if model and lengths and is_ready(check_base_model(model_facts, machine.device)) and model_facts.adapter_weights:
        batch_size = max(1, min(params.train.batch_size, configuration.examples))
        findings += inspect_memory(params, model, lengths, batch_size, machine)
    return findings


def _look_at_samples(
    samples: list[Sample], params: Params, limit: SequenceLimit | None, lengths: Lengths | None
) -> SampleFacts:
    in_bytes, lost = look_at_characters(samples, limit) if limit else (Counter(), ())
    return SampleFacts(
        samples=samples,
        rejected=read_rejections(REJECTED),
        missing=find_missing(samples),
        in_bytes=in_bytes,
        lost=lost,
        lengths=lengths,
        min_pages=params.evaluate.min_pages,
        folds=params.evaluate.folds,
        max_tokens=params.train.max_tokens,
        unfit_files=find_unfit_files(RAW),
    )


def _bytes_to_write(
    samples: list[Sample], params: Params, facts: ModelFacts, model: FoundModel | None, limit: SequenceLimit | None
) -> int:
    """The model's download, vision tokens of all pictures and copies, checkpoints."""
    if model is None or limit is None:
        return 0
    copies = {"train": 1 + cached_copies(params), "val": 1}
    tokens = sum(limit.count_vision_tokens(one.width, one.height) * copies[one.split] for one in samples)
    width: int = model.config.text_config.hidden_size * DTYPES[params.model.dtype].itemsize
    return facts.to_download + tokens * width + facts.adapter_weights * CHECKPOINT_BYTES


def prove_learning(params: Params) -> list[Finding]:
    """The overfit gate on the shortest training lines."""
    device = set_up(params.runtime)
    return check_overfit(overfit(choose_lines(read_metadata()), params, device))
