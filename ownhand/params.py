"""Parameters: `params.yaml`, read and checked in one place.

Each group is a model whose fields carry their default, range, unit and meaning; the defaults are the demo's values. The
file always holds every value, because DVC compares what stands in it: a default fills no gap, it is what
`ownhand preset` goes back to. `read_params` reports every problem of the whole file in one message.

The file is read as YAML 1.2 by the library with which DVC reads it, so that both see the same numbers.
"""

from __future__ import annotations

import codecs
import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel as Schema
from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from ownhand.errors import Refusal

PARAMS_FILE = Path("params.yaml")
LARGEST_SEED = 2**32 - 1  # numpy takes no more
LARGEST_BYTES = 50_000  # ten times what the file has; more takes minutes to read
DEEPEST = 8  # groups within groups
SHOWN = 80  # characters of a wrong value in a message

Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]


class ParameterError(Refusal):
    """params.yaml holds something that cannot work; the message lists everything found."""


class Group(Schema):
    """A group of parameters: strict types, no unknown keys, no number that is not finite."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, validate_default=True)


class ModelParams(Group):
    """The base model, the same for every stage."""

    name_or_path: str = Field(
        default="models/base",
        min_length=1,
        description="a folder in the official layout, or a hub id such as deepseek-ai/DeepSeek-OCR",
    )
    revision: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{40}$",
        description="for a hub id: its 40-digit commit, so that a run can be repeated",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="float32, bfloat16 or float16"
    )
    attn_implementation: Literal["sdpa", "eager"] = Field(
        default="sdpa", description="or eager, should sdpa fail on a GPU: the same numbers, more memory"
    )


class PrepareParams(Group):
    """Pictures and transcriptions in, training and validation samples out."""

    encoding: str = Field(
        default="utf-8", min_length=1, description="of tables and text files; utf-8 also accepts a byte order mark"
    )
    max_side_px: int = Field(
        default=2600, ge=16, le=20_000, description="longer pictures are reduced to this (Lanczos)"
    )
    min_side_px: int = Field(default=8, ge=2, le=10_000, description="smaller pictures are rejected")
    max_pixels: int = Field(
        default=200_000_000, ge=1000, le=2_000_000_000, description="larger pictures are rejected undecoded"
    )
    max_aspect: float = Field(
        default=60.0, ge=1, le=10_000, description="longer : shorter side; beyond it a picture is rejected"
    )
    val_share: float = Field(
        default=0.25, gt=0, lt=1, description="of the samples, as near as whole pages allow; at least one sample"
    )
    test_share: float = Field(
        default=0.0, ge=0, lt=1, description="held out of everything, in data/processed/test; no stage opens it"
    )
    val: str | None = Field(
        default=None,
        min_length=1,
        description="a list in data/raw, such as val.txt: exactly these file names or pages validate",
    )
    test: str | None = Field(
        default=None, min_length=1, description="the same for test; what a list names is never trained on"
    )
    same_text_characters: int = Field(
        default=20,
        ge=1,
        le=1_000_000,
        description="pages that share a text of so many characters stay on one side, unless it recurs",
    )
    max_rejected_share: float = Field(
        default=0.2, ge=0, le=1, description="more rejected samples than this stop the run"
    )
    seed: Seed = Field(default=7, description="of the split")

    @field_validator("encoding")
    @classmethod
    def _a_text_encoding(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
        except (LookupError, ValueError):
            raise ValueError("Python knows no text encoding of this name; usual: utf-8, cp1251") from None
        return encoding

    @model_validator(mode="after")
    def _pictures_between_the_limits(self) -> PrepareParams:
        if self.min_side_px >= self.max_side_px:
            raise ValueError("min_side_px must be below max_side_px: every picture would be rejected")
        return self

    @model_validator(mode="after")
    def _something_to_train_on(self) -> PrepareParams:
        if self.val_share + self.test_share >= 1:
            raise ValueError("val_share and test_share together leave nothing to train on; lower one of them")
        return self


class CheckParams(Group):
    """The readiness report."""

    overfit: bool = Field(
        default=False, description="true: train four lines first, for proof that the model learns from these pictures"
    )


class AugmentParams(Group):
    """How far a copy may be from its picture, either way and drawn evenly; 0: not at all."""

    rotation_degrees: float = Field(default=1.4, ge=0, le=45, description="about the middle of the picture")
    shear_degrees: float = Field(default=12.0, ge=0, le=45, description="slant of the letters")
    stretch: float = Field(default=0.12, ge=0, le=0.5, description="of width and height, each for itself, as a share")
    margin: float = Field(
        default=0.03, ge=0, le=1, description="paper added at each side, as a share of the height (of 128 px on a page)"
    )
    elastic: float = Field(
        default=0.0, ge=0, le=0.3, description="wavy strokes: standard deviation of the local stretching"
    )
    brightness: float = Field(default=0.15, ge=0, le=0.9, description="as a share")
    contrast: float = Field(default=0.25, ge=0, le=0.9, description="as a share")
    colour: float = Field(default=0.6, ge=0, le=1, description="saturation, as a share")
    shadow: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="one side darker by so much of white; this and the next two in every second copy",
    )
    blur: float = Field(
        default=0.012, ge=0, le=0.1, description="standard deviation of the blur, as a share of that height"
    )
    jpeg_quality: int = Field(default=35, ge=0, le=90, description="the lowest; up to 90; 0 compresses no copy")


class EncodeParams(Group):
    """Pictures to vision tokens."""

    mode: Literal["tiny", "small", "base", "large", "gundam"] = Field(
        default="gundam", description="tiny, small, base, large or gundam; lines need gundam or base"
    )
    max_tiles: int = Field(default=8, ge=2, le=40, description="of the gundam grid: 9 in the original code, 6 in vLLM")
    copies: int = Field(
        default=8,
        ge=0,
        le=100,
        description="augmented copies of each training picture, made by train where LoRA changes the tower",
    )
    seed: Seed = Field(default=5, description="of the augmentation")
    augment: AugmentParams = AugmentParams()


class TrainParams(Group):
    """The adapter: LoRA on the base model."""

    max_tokens: int = Field(
        default=2048,
        ge=16,
        le=1_000_000,
        description="vision, prompt and text together; a longer sample is rejected by name",
    )
    lora_r: int = Field(default=16, ge=1, le=1024, description="rank of the adapter's matrices")
    lora_alpha: int = Field(default=32, ge=1, le=65_536, description="the adapter is scaled by lora_alpha / lora_r")
    lora_dropout: float = Field(default=0.0, ge=0, lt=1, description="must be 0 with experts among the targets")
    lora_targets: list[Literal["attention", "mlp", "experts", "vision", "projector"]] = Field(
        default=["attention", "mlp", "experts", "vision", "projector"],
        min_length=1,
        description="the last two need pictures, not the cache",
    )
    rehearsal_share: float = Field(
        default=0.14,
        ge=0,
        le=0.5,
        description="of printed lines, 24 at most, which ownhand brings so that print stays readable",
    )
    epochs: float = Field(default=2.0, gt=0, le=10_000, description="how often each picture or copy is trained on")
    batch_size: int = Field(default=16, ge=1, le=100_000, description="sequences of a batch, all processes together")
    batch_tokens: int | None = Field(
        default=None,
        ge=16,
        le=1_000_000_000,
        description="a number: as many sequences as fit into so many tokens, batch_size being the most",
    )
    accumulation: int = Field(default=1, ge=1, le=100_000, description="batches per optimizer step")
    learning_rate: float = Field(default=2.0e-3, gt=0, lt=1, description="at its highest; it falls along a cosine")
    warmup_share: float = Field(default=0.1, ge=0, lt=1, description="of all optimizer steps")
    warmup_steps: int | None = Field(
        default=None, ge=0, le=1_000_000_000, description="a number of optimizer steps instead of the share"
    )
    weight_decay: float = Field(default=0.0, ge=0, le=10, description="of AdamW")
    max_grad_norm: float = Field(default=1.0, gt=0, le=1_000_000, description="longer gradients are shortened to this")
    gradient_checkpointing: bool = Field(default=False, description="true: less memory, a third slower")
    expert_weights: Literal["as_is", "nf4"] = Field(
        default="as_is", description="nf4: the routed experts in 4 bits, 3.5 GB less for DeepSeek-OCR; slower"
    )
    evaluations: int = Field(
        default=4, ge=1, le=1_000_000, description="of the validation loss and CER, evenly spread over the run"
    )
    cer_lines: int = Field(
        default=24,
        ge=0,
        le=1_000_000,
        description="validation lines read at each evaluation, for the curve; 0 reads none",
    )
    select: Literal["last", "loss", "cer"] = Field(
        default="last",
        description="last, or the best of the evaluations by loss or by cer (its figure is a bit too good)",
    )
    patience: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="evaluations without a better value before the run stops; 0 never stops it",
    )
    seed: Seed = Field(default=11, description="of the adapter's first weights and the order of the batches")

    @model_validator(mode="after")
    def _selection_has_its_values(self) -> TrainParams:
        if self.select == "cer" and not self.cer_lines:
            raise ValueError("select: cer needs cer_lines above 0")
        if self.patience and self.select == "last":
            raise ValueError("patience needs select: loss or cer; with select: last the run goes to its end")
        return self

    @model_validator(mode="after")
    def _four_bits_save_memory(self) -> TrainParams:
        if self.expert_weights == "nf4" and not self.gradient_checkpointing:
            raise ValueError(
                "expert_weights: nf4 needs gradient_checkpointing: true; without it every layer's experts are kept for "
                "backward as they were, and no memory is saved"
            )
        if self.expert_weights == "nf4" and "experts" in self.lora_targets:
            raise ValueError(
                "expert_weights: nf4 trains no adapter of the experts themselves; take experts out of lora_targets"
            )
        return self

    @model_validator(mode="after")
    def _no_dropout_on_experts(self) -> TrainParams:
        if self.lora_dropout and "experts" in self.lora_targets:
            raise ValueError("lora_dropout must be 0 with the target `experts`: PEFT has no dropout for fused experts")
        return self


class TranscribeParams(Group):
    """Vision tokens to text, the same for base model and adapter."""

    max_new_tokens: int = Field(
        default=256, ge=1, le=1_000_000, description="a longer output is cut and counts as runaway"
    )
    no_repeat_ngram_size: int = Field(
        default=35, ge=0, le=1_000_000, description="the one repetition guard; 0 switches it off"
    )
    beams: int = Field(
        default=4, ge=1, le=100, description="texts followed at a time by beam search; 1: only the likeliest next token"
    )
    adapter_strength: float = Field(
        default=0.8, gt=0, le=1, description="share of what the adapter adds; below 1 more of print stays readable"
    )
    batch_size: int = Field(default=16, ge=1, le=100_000, description="pictures read at once")
    expert_weights: Literal["as_is", "nf4"] = Field(
        default="as_is", description="nf4: the routed experts in 4 bits, where memory is short; reads more slowly"
    )


class EvaluateParams(Group):
    """Predictions to numbers."""

    bootstrap_samples: int = Field(default=2000, ge=100, le=100_000, description="draws of pages behind each interval")
    confidence_level: float = Field(default=0.95, gt=0.5, lt=1, description="of the intervals")
    min_pages: int = Field(
        default=5,
        ge=2,
        le=1_000_000,
        description="with fewer validation pages an interval would be fiction: none is given",
    )
    worst_lines: int = Field(default=20, ge=0, le=1_000_000, description="shown first in the report")
    folds: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="for few pages: each is read by an adapter trained without it (cross-validation); 0: none",
    )
    seed: Seed = Field(default=13, description="of the draws")

    @model_validator(mode="after")
    def _a_fold_has_another(self) -> EvaluateParams:
        if self.folds == 1:
            raise ValueError("folds: 1 would leave nothing to train on; set 0 for none, or at least 2")
        return self


class RuntimeParams(Group):
    """What does not change results; edits re-run nothing."""

    device: str = Field(
        default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d{1,3})?)$", description="auto, cpu, cuda, cuda:0, mps"
    )
    threads: int = Field(default=0, ge=0, le=1024, description="CPU threads, 0 = all")
    processes: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="of each stage that runs the model: one per GPU; train.batch_size is shared out",
    )
    shard_mb: int = Field(
        default=256,
        ge=1,
        le=100_000,
        description="size of one file of vision tokens: what an interrupted encode loses at most",
    )
    store_mb: int = Field(
        default=100_000,
        ge=0,
        le=100_000_000,
        description="vision tokens kept beside data/features, so that new lines cost only themselves; 0: none",
    )
    checkpoint_steps: int = Field(
        default=25, ge=1, le=1_000_000_000, description="optimizer steps between two checkpoints"
    )


class Params(Group):
    """The whole of params.yaml."""

    model: ModelParams = ModelParams()
    prepare: PrepareParams = PrepareParams()
    check: CheckParams = CheckParams()
    encode: EncodeParams = EncodeParams()
    train: TrainParams = TrainParams()
    transcribe: TranscribeParams = TranscribeParams()
    evaluate: EvaluateParams = EvaluateParams()
    runtime: RuntimeParams = RuntimeParams()

    @model_validator(mode="after")
    def _no_adapter_on_four_bits(self) -> Params:
        if self.transcribe.expert_weights == "nf4" and "experts" in self.train.lora_targets:
            raise ValueError(
                "transcribe.expert_weights: nf4 reads with no adapter of the experts themselves; take experts out of "
                "train.lora_targets"
            )
        return self


def read_params(path: Path = PARAMS_FILE) -> Params:
    """The checked parameters; ParameterError lists every unknown key, wrong type, missing and out-of-range value."""
    return check_params(read_yaml(path), path)


def check_params(content: Any, path: Path) -> Params:
    """`content` as parameters; ParameterError lists what is wrong with it and names `path` as the place."""
    if not isinstance(content, dict):
        raise ParameterError(f"{path} must hold groups such as `train:`, it holds {type(content).__name__}")
    problems = []
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        problems = [_describe(problem) for problem in error.errors()]
    problems += _find_missing(Params, content)
    if problems:
        raise ParameterError(f"{path}: {len(problems)} problem(s)\n  " + "\n  ".join(problems))
    return params


def read_yaml(path: Path) -> Any:
    """The content of a YAML file whose values stand where they are used; ParameterError says why there is none."""
    text = read_yaml_text(path)
    try:
        _refuse_bombs(path, text)
        return YAML(typ="safe", pure=True).load(text)
    except (MarkedYAMLError, yaml.MarkedYAMLError) as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ParameterError(f"{path}{where} is not valid YAML: {error.problem or error.context}") from None
    except (
        YAMLError,
        yaml.YAMLError,
        ValueError,
        RecursionError,
    ) as error:
        # no text, a number of 5,000 digits, a thousand brackets
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ParameterError(f"{path} is not valid YAML: {reason}") from None


def read_yaml_text(path: Path) -> str:
    """A YAML file as text; ParameterError names the encoding that it has instead of UTF-8."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ParameterError(f"{path} is missing here; run the command in the folder that holds dvc.yaml") from None
    if len(content) > LARGEST_BYTES:
        raise ParameterError(f"{path} has {len(content):,} bytes, more than parameters take ({LARGEST_BYTES:,})")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
        raise ParameterError(f"{path} is not UTF-8 but UTF-16; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ParameterError(
            f"{path}, line {line} is not UTF-8 (cp1251, if its letters are Cyrillic from Windows); save it as UTF-8"
        ) from None


def _refuse_bombs(path: Path, text: str) -> None:
    """A few lines of aliases (`*name`) can stand for billions of values, and a thousand brackets take minutes."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            raise ParameterError(f"{path}, line {line}: *{event.anchor} is a YAML alias; write the value itself")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ParameterError(f"{path}, line {line}: lists or groups within groups, {depth} deep; none is so deep")


def groups(model: type[Group] = Params, name: str = "") -> Iterator[tuple[str, type[Group]]]:
    """(name with dots, schema) of every group, groups within groups behind the one that they are in."""
    for field, info in model.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, Group):
            path = f"{name}.{field}" if name else field
            yield path, inner
            yield from groups(inner, path)


def flatten(params: Group, name: str = "") -> dict[str, Any]:
    """Every value by its name with dots, such as train.lora_r, in the order of the schema."""
    values: dict[str, Any] = {}
    for field in type(params).model_fields:
        value, path = getattr(params, field), f"{name}.{field}" if name else field
        values |= flatten(value, path) if isinstance(value, Group) else {path: value}
    return values


def _find_missing(model: type[Group], content: dict[Any, Any], name: str = "") -> list[str]:
    inner = {field: info.annotation for field, info in model.model_fields.items()}
    problems = []
    for field, info in model.model_fields.items():
        path, kind = f"{name}.{field}" if name else field, inner[field]
        is_group = isinstance(kind, type) and issubclass(kind, Group)
        if field not in content:
            problems.append(f"{path}: missing" + ("" if is_group else f"; its default is {json.dumps(info.default)}"))
        elif is_group and isinstance(content[field], dict):
            problems += _find_missing(kind, content[field], path)  # type: ignore[arg-type]
    return problems


def _describe(problem: Any) -> str:
    path = [str(part) for part in problem["loc"]]
    name, seen = ".".join(path), problem["input"]
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(path[-1], _known_keys(path[:-1]), n=1)
        return f"{name}: unknown key" + (f"; did you mean {'.'.join([*path[:-1], close[0]])}?" if close else "")
    message = problem["msg"].removeprefix("Value error, ")
    if isinstance(seen, str) and problem["type"] in ("float_type", "int_type") and _looks_like_number(seen):
        message = f"{seen!r} is text for YAML; write the number without quotes"
    elif not isinstance(seen, dict):
        message = f"{message}; seen: {_shortened(seen)}"
    return f"{name}: {message}"


def _shortened(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        text = "a number of thousands of digits"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _known_keys(path: list[str]) -> list[str]:
    fields: Any = Params.model_fields
    for part in path:
        fields = getattr(fields[part].annotation, "model_fields", {})
    return list(fields)


def _looks_like_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
