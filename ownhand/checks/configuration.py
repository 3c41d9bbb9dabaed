"""params.yaml against the samples, the model and the device: what the run will really do."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ownhand.checks.findings import Finding, blocker, ready, warning
from ownhand.checks.lengths import PUBLISHED, Lengths, TrainedLines
from ownhand.params import Params
from ownhand.training.schedule import Schedule

SQUASHING_MODES = ("tiny", "small")
LONG_LINE = 2.0  # width / height from which on a square distorts letters beyond what the model was trained on
FEW_STEPS = 20
# Lines shown at 0.7 of what the base model was trained on were learned (the demo's); at half, 2,100 lines were recited.
LEARNABLE = 2 / 3
ODD_LINES = 0.05  # share; so few say nothing of the parameters


@dataclass(frozen=True)
class ModelLimits:
    """What the model allows. modes: its view modes; max_tiles: of its own grid; max_positions: of a sequence;
    attention: implementations that its class has; matched: weights that each LoRA target matches; trained: the lines
    that it was trained on."""

    modes: tuple[str, ...]
    max_tiles: int
    max_positions: int
    attention: tuple[str, ...]
    matched: dict[str, int]
    trained: TrainedLines = PUBLISHED


@dataclass(frozen=True)
class ConfigurationFacts:
    """The parameters and what they meet; samples or model may be missing, then other findings say so.

    lines: training samples; rehearsal: tokens of each printed line that trains beside them; device: cpu, cuda or mps;
    bf16: whether it computes in bfloat16.
    """

    params: Params
    device: str
    bf16: bool
    lines: int = 0
    lengths: Lengths | None = None
    rehearsal: Sequence[int] = ()
    limits: ModelLimits | None = None

    @property
    def examples(self) -> int:
        """Training samples and rehearsal lines with their augmented copies."""
        return (self.lines + len(self.rehearsal)) * (1 + self.params.encode.copies)

    @property
    def schedule(self) -> Schedule:
        """Without a token budget the number of examples is enough, and every length as good as another."""
        lengths = [1] * self.examples
        if self.params.train.batch_tokens is not None and self.lengths:
            copies = self.params.encode.copies
            lengths = [*self.lengths.training(copies), *(1 + copies) * list(self.rehearsal)]
        return Schedule.of(lengths, self.params.train, self.params.runtime.checkpoint_steps)


def check_configuration(facts: ConfigurationFacts) -> list[Finding]:
    """Findings CONF-002 to CONF-018."""
    checks = [_dtype]
    if facts.lines:
        checks += [_batch]
    if facts.lines and (facts.lengths or facts.params.train.batch_tokens is None):
        checks += [_effective_batch, _warmup, _checkpoints, _evaluations, _steps]
    if facts.limits:
        checks += [_mode, _tiles, _targets, _attention]
    if facts.lengths and facts.limits:
        checks += [_positions, _size]
    if facts.lengths:
        checks += [_budget, _predictions, _shape]
    return [finding for check in checks for finding in check(facts)]


def _batch(facts: ConfigurationFacts) -> Iterator[Finding]:
    batch, examples = facts.params.train.batch_size, facts.examples
    seen = f"train.batch_size is {batch}, the training set has {examples} examples"
    processes = facts.params.runtime.processes
    if batch > examples and facts.params.train.batch_tokens is None:
        seen += f" ({facts.lines + len(facts.rehearsal)} lines x {1 + facts.params.encode.copies})"
        remedy = f"set train.batch_size to at most {examples}, raise encode.copies, or add samples"
        yield blocker("CONF-002", seen, remedy)
    elif batch % processes:
        seen = f"train.batch_size is {batch}, which {processes} processes cannot share evenly"
        yield blocker("CONF-002", seen, f"set train.batch_size to a multiple of {processes}")
    else:
        yield ready("CONF-002", seen)


def _effective_batch(facts: ConfigurationFacts) -> Iterator[Finding]:
    train, examples, batches = facts.params.train, facts.examples, facts.schedule.batches
    wanted = train.batch_size * train.accumulation
    seen = f"{train.batch_size} x {train.accumulation} = {wanted} sequences a step"
    if train.batch_tokens is not None:
        wanted = math.ceil(examples / batches * train.accumulation)
        seen = f"{examples / batches:.1f} x {train.accumulation} = {wanted} sequences a step"
    if wanted > examples:
        yield warning(
            "CONF-003",
            f"{seen}, but there are only {examples}: every step sees {examples}, all there are",
            "lower train.accumulation or train.batch_size, so that an epoch has several steps",
        )
    else:
        yield ready("CONF-003", f"{seen}, of {examples}")


def _warmup(facts: ConfigurationFacts) -> Iterator[Finding]:
    schedule, train = facts.schedule, facts.params.train
    if schedule.warmup_steps >= schedule.steps:
        yield blocker(
            "CONF-004",
            f"{schedule.warmup_steps} warm-up steps in a run of {schedule.steps} optimizer steps: the learning rate "
            f"rises to {schedule.highest_rate_share:.0%} of {train.learning_rate:g} at most",
            "set train.warmup_steps to null (train.warmup_share then counts), or train longer",
        )
    else:
        share = schedule.warmup_steps / schedule.steps
        yield ready("CONF-004", f"{schedule.warmup_steps} of {schedule.steps} optimizer steps ({share:.0%})")


def _checkpoints(facts: ConfigurationFacts) -> Iterator[Finding]:
    schedule = facts.schedule
    seen = f"every {schedule.checkpoint_interval} of {schedule.steps} optimizer steps"
    if schedule.checkpoints_before_end == 0 and schedule.steps >= FEW_STEPS:
        yield warning(
            "CONF-005", f"{seen}: none before the end", f"set runtime.checkpoint_steps to {schedule.steps // 4}"
        )
    else:
        yield ready("CONF-005", f"{seen}: {schedule.checkpoints_before_end} before the end")


def _evaluations(facts: ConfigurationFacts) -> Iterator[Finding]:
    schedule, asked = facts.schedule, facts.params.train.evaluations
    seen = f"every {schedule.evaluation_interval} of {schedule.steps} optimizer steps"
    if schedule.evaluations_before_end == 0:
        remedy = "set train.evaluations to 4 or so" if schedule.steps > 1 else "train longer"
        yield warning("CONF-006", f"{seen}: the loss on validation lines is seen at the end only", remedy)
    elif asked > schedule.steps:
        yield warning(
            "CONF-006",
            f"train.evaluations is {asked}, the run has only {schedule.steps} steps: it measures at every one",
            f"set train.evaluations to at most {schedule.steps}",
        )
    else:
        yield ready("CONF-006", f"{seen}: {schedule.evaluations} in all")


def _steps(facts: ConfigurationFacts) -> Iterator[Finding]:
    schedule, train = facts.schedule, facts.params.train
    seen = f"{schedule.steps_per_epoch} an epoch x {train.epochs:g} epochs = {schedule.steps}"
    if schedule.steps < FEW_STEPS:
        yield warning("CONF-014", seen, "raise train.epochs, lower train.accumulation, or add samples")
    else:
        yield ready("CONF-014", seen)


def _dtype(facts: ConfigurationFacts) -> Iterator[Finding]:
    dtype = facts.params.model.dtype
    if dtype == "float16":
        seen = f"model.dtype is float16 on {facts.device}: gradients are not scaled, small ones vanish"
        if facts.bf16:
            remedy = "set model.dtype to bfloat16: as small, with float32's range, and this device has it"
            yield blocker("CONF-007", seen, remedy)
        else:
            yield warning("CONF-007", seen, "set model.dtype to float32 if the memory allows it")
    elif dtype == "bfloat16" and not facts.bf16:
        yield blocker(
            "CONF-008",
            f"model.dtype is bfloat16, which this {facts.device} device only emulates",
            "set model.dtype to float32, or to float16 if the memory does not allow it",
        )
    else:
        yield ready("CONF-007", f"model.dtype is {dtype} on {facts.device}")


def _mode(facts: ConfigurationFacts) -> Iterator[Finding]:
    assert facts.limits
    mode, known = facts.params.encode.mode, ", ".join(facts.limits.modes)
    if mode not in facts.limits.modes:
        yield blocker("CONF-009", f"encode.mode is {mode}; this model knows {known}", f"set encode.mode to {known}")
    else:
        yield ready("CONF-009", mode)


def _tiles(facts: ConfigurationFacts) -> Iterator[Finding]:
    assert facts.limits
    encode = facts.params.encode
    if encode.mode != "gundam":
        return
    seen = f"encode.max_tiles is {encode.max_tiles}; the model's own processor cuts into {facts.limits.max_tiles}"
    if encode.max_tiles > facts.limits.max_tiles:
        yield warning("CONF-010", f"{seen} at most", f"set encode.max_tiles to at most {facts.limits.max_tiles}")
    else:
        yield ready("CONF-010", f"{seen} at most")


def _targets(facts: ConfigurationFacts) -> Iterator[Finding]:
    assert facts.limits
    idle = [name for name, count in facts.limits.matched.items() if count == 0]
    if idle:
        yield blocker(
            "CONF-012",
            f"train.lora_targets: {', '.join(idle)} match{'es' if len(idle) == 1 else ''} no weight of this model",
            "take out of train.lora_targets what the model does not have",
        )
    else:
        seen = ", ".join(f"{name} ({count} weights)" for name, count in facts.limits.matched.items())
        yield ready("CONF-012", seen)


def _attention(facts: ConfigurationFacts) -> Iterator[Finding]:
    assert facts.limits
    asked = facts.params.model.attn_implementation
    if asked not in facts.limits.attention:
        known = ", ".join(facts.limits.attention)
        yield blocker("CONF-013", f"{asked}: this model's class has {known}", f"set it to {known}")
    else:
        yield ready("CONF-013", asked)


def _positions(facts: ConfigurationFacts) -> Iterator[Finding]:
    assert facts.lengths and facts.limits
    limit, train = facts.limits.max_positions, facts.params.train
    reading = facts.lengths.prompt + facts.params.transcribe.max_new_tokens
    if facts.lengths.longest > limit:
        seen = f"the longest sequence has {facts.lengths.longest} tokens, the model's limit is {limit}"
        yield blocker("CONF-011", seen, f"set train.max_tokens to {limit}; shorten texts or use fewer tiles")
    elif train.max_tokens > limit:
        seen = f"train.max_tokens is {train.max_tokens}, the model's limit is {limit}"
        yield warning("CONF-011", seen, f"set train.max_tokens to {limit}")
    elif reading > limit:
        seen = f"a picture's {facts.lengths.prompt} tokens and transcribe.max_new_tokens exceed the limit of {limit}"
        yield warning("CONF-011", seen, f"set transcribe.max_new_tokens to at most {limit - facts.lengths.prompt}")
    else:
        yield ready("CONF-011", f"the model's limit is {limit} tokens; train.max_tokens {train.max_tokens}")


def _budget(facts: ConfigurationFacts) -> Iterator[Finding]:
    assert facts.lengths
    budget, longest = facts.params.train.batch_tokens, facts.lengths.longest
    if budget is None:
        return
    seen = f"train.batch_tokens is {budget}, the longest sequence has {longest} tokens"
    if longest > budget:
        yield blocker("CONF-017", seen, f"set train.batch_tokens to {longest} or more, or train.max_tokens to {budget}")
    else:
        yield ready("CONF-017", f"{seen}; {facts.schedule.batches} batches an epoch")


def _predictions(facts: ConfigurationFacts) -> Iterator[Finding]:
    assert facts.lengths
    limit = facts.params.transcribe.max_new_tokens
    seen = f"transcribe.max_new_tokens is {limit}; the longest text has {facts.lengths.answer} tokens"
    if facts.lengths.answer > limit:
        yield warning("CONF-015", seen, f"set transcribe.max_new_tokens to {facts.lengths.answer} or more")
    else:
        yield ready("CONF-015", seen)


def _shape(facts: ConfigurationFacts) -> Iterator[Finding]:
    assert facts.lengths
    mode = facts.params.encode.mode
    seen = f"half of the pictures are more than {facts.lengths.aspect:.1f} times as wide as high"
    if mode in SQUASHING_MODES and facts.lengths.aspect > LONG_LINE:
        remedy = "use encode.mode gundam or base, which keep the shape"
        yield warning("CONF-016", f"{seen}; mode {mode} squashes them into a square", remedy)
    else:
        yield ready("CONF-016", f"{seen}; mode {mode}")


def _size(facts: ConfigurationFacts) -> Iterator[Finding]:
    assert facts.lengths and facts.limits
    trained, each, encode = facts.limits.trained, facts.lengths.each, facts.params.encode
    if not each:
        return
    pixels = [one.shown / one.characters for one in each]
    vision = [one.vision / one.characters for one in each]
    small = sum(
        px < LEARNABLE * trained.pixels or tokens < LEARNABLE * trained.vision
        for px, tokens in zip(pixels, vision, strict=True)
    )
    long = sum(trained.longest is not None and one.characters > trained.longest for one in each)
    typical = f"{statistics.median(pixels):.1f} pixels and {statistics.median(vision):.2f} vision tokens a character"
    seen = (
        f"half of the lines have at most {typical}; "
        f"the base model was trained on {trained.pixels:.1f} and {trained.vision:.2f} at least"
    )
    if trained.longest:
        seen += f", in lines of up to {trained.longest} characters"
    if small <= ODD_LINES * len(each) and long <= ODD_LINES * len(each):
        yield ready("CONF-018", seen)
        return
    remedies = []
    if small > ODD_LINES * len(each) and encode.mode != "gundam" and "gundam" in facts.limits.modes:
        remedies = ["set encode.mode to gundam"]
    elif small > ODD_LINES * len(each) and encode.mode == "gundam" and encode.max_tiles < facts.limits.max_tiles:
        remedies = [f"set encode.max_tiles to {facts.limits.max_tiles}"]
    remedies.append("use a base model that was trained on such lines (`ownhand preset` lists them)")
    counts = f"{small:,} of {len(each):,} lines have less than two thirds of that, {long:,} are longer"
    yield warning("CONF-018", f"{seen}; {counts}", ", or ".join(remedies))
