"""Parameters: `params.yaml`, read and checked in one place.

Each group is a model whose fields carry their meaning, unit and range. `read_params` reports every problem of the whole
file in one message. A test holds that every field is used and that every key of the file is a field.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ownhand.errors import Refusal

PARAMS_FILE = Path("params.yaml")


class ParameterError(Refusal):
    """params.yaml holds something that cannot work; the message lists everything found."""


class Group(BaseModel):
    """A group of parameters: strict types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ModelParams(Group):
    """The base model."""

    name_or_path: str = Field(min_length=1, description="local folder (POSIX path from the repository root) or hub id")
    revision: str | None = Field(pattern=r"^[0-9a-f]{40}$", description="commit of a hub id; null for a folder")
    dtype: Literal["float32", "bfloat16", "float16"]
    attn_implementation: Literal["sdpa", "eager"] = Field(description="of attention; same numbers, other memory")


class PrepareParams(Group):
    """Pictures and transcriptions in, training and validation samples out."""

    encoding: str = Field(description="of tables and text files, a Python codec name")
    max_side_px: int = Field(ge=16, le=20000)
    min_side_px: int = Field(ge=2)
    max_pixels: int = Field(ge=1000)
    max_aspect: float = Field(ge=1)
    val_share: float = Field(gt=0, lt=1)
    test_share: float = Field(ge=0, lt=1)
    val: str | None = Field(min_length=1, description="list of file names or pages, a path below data/raw")
    test: str | None = Field(min_length=1, description="list of file names or pages, a path below data/raw")
    same_text_characters: int = Field(ge=1, description="shorter texts, such as greetings, may stand on both sides")
    max_rejected_share: float = Field(ge=0, le=1)
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _something_to_train_on(self) -> PrepareParams:
        if self.val_share + self.test_share >= 1:
            raise ValueError("val_share and test_share together leave nothing to train on; lower one of them")
        return self


class CheckParams(Group):
    """The readiness report."""

    overfit: bool = Field(description="train four lines for proof before anything expensive")


class AugmentParams(Group):
    """How far a copy may be from its picture; 0 switches a change off."""

    rotation_degrees: float = Field(ge=0, le=45)
    shear_degrees: float = Field(ge=0, le=45, description="slant of the letters")
    stretch: float = Field(ge=0, le=0.5, description="of width and height, each for itself, as a share")
    margin: float = Field(ge=0, le=1, description="paper added at each side, as a share of the height")
    elastic: float = Field(ge=0, le=0.3, description="local stretching, its standard deviation as a share")
    brightness: float = Field(ge=0, le=0.9)
    contrast: float = Field(ge=0, le=0.9)
    colour: float = Field(ge=0, le=1, description="saturation")
    shadow: float = Field(ge=0, le=1, description="darkening at one side, as a share of white")
    blur: float = Field(ge=0, le=0.1, description="standard deviation as a share of the height")
    jpeg_quality: int = Field(ge=0, le=90, description="the lowest; 0 compresses no copy")


class EncodeParams(Group):
    """Pictures to vision tokens."""

    mode: Literal["tiny", "small", "base", "large", "gundam"]
    max_tiles: int = Field(ge=2, le=40, description="columns x rows of the gundam grid at most")
    copies: int = Field(ge=0, le=100, description="augmented copies of each training picture")
    seed: int = Field(ge=0, description="of the augmentation")
    augment: AugmentParams


class TrainParams(Group):
    """LoRA on the base model."""

    max_tokens: int = Field(ge=16)
    lora_r: int = Field(ge=1, le=1024)
    lora_alpha: int = Field(ge=1)
    lora_dropout: float = Field(ge=0, lt=1)
    lora_targets: list[Literal["attention", "mlp", "experts", "vision", "projector"]] = Field(min_length=1)
    epochs: float = Field(gt=0)
    batch_size: int = Field(ge=1)
    batch_tokens: int | None = Field(ge=16, description="of a batch, padding included; batch_size is then its limit")
    accumulation: int = Field(ge=1, description="batches per optimizer step")
    learning_rate: float = Field(gt=0, lt=1)
    warmup_share: float = Field(ge=0, lt=1)
    warmup_steps: int | None = Field(ge=0, description="replaces warmup_share when it is a number")
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    gradient_checkpointing: bool
    evaluations: int = Field(ge=1, description="of the validation loss over the whole run")
    cer_lines: int = Field(ge=0, description="validation lines read at each evaluation")
    select: Literal["last", "loss", "cer"] = Field(description="which adapter is kept")
    patience: int = Field(ge=0, description="evaluations without a better value before the run stops; 0 never stops")
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _selection_has_its_values(self) -> TrainParams:
        if self.select == "cer" and not self.cer_lines:
            raise ValueError("select: cer needs cer_lines above 0")
        if self.patience and self.select == "last":
            raise ValueError("patience needs select: loss or cer; with select: last the run goes to its end")
        return self

    @model_validator(mode="after")
    def _no_dropout_on_experts(self) -> TrainParams:
        if self.lora_dropout and "experts" in self.lora_targets:
            raise ValueError("lora_dropout must be 0 with the target `experts`: PEFT has no dropout for fused experts")
        return self


class TranscribeParams(Group):
    """Vision tokens to text, the same for base model and adapter."""

    max_new_tokens: int = Field(ge=1)
    no_repeat_ngram_size: int = Field(ge=0)
    batch_size: int = Field(ge=1)


class EvaluateParams(Group):
    """Predictions to numbers."""

    bootstrap_samples: int = Field(ge=100)
    confidence_level: float = Field(gt=0.5, lt=1)
    min_pages: int = Field(ge=2)
    worst_lines: int = Field(ge=0)
    folds: int = Field(ge=0, description="of the cross-validation; 0: none")
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _a_fold_has_another(self) -> EvaluateParams:
        if self.folds == 1:
            raise ValueError("folds: 1 would leave nothing to train on; set 0 for none, or at least 2")
        return self


class RuntimeParams(Group):
    """What does not change results."""

    device: str = Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    threads: int = Field(ge=0)
    processes: int = Field(ge=1, description="of each stage that runs the model; one per card")
    shard_mb: int = Field(ge=1)
    store_mb: int = Field(ge=0, description="of vision tokens kept for later runs, beside data/features")
    checkpoint_steps: int = Field(ge=1)


class Params(Group):
    """The whole of params.yaml."""

    model: ModelParams
    prepare: PrepareParams
    check: CheckParams
    encode: EncodeParams
    train: TrainParams
    transcribe: TranscribeParams
    evaluate: EvaluateParams
    runtime: RuntimeParams


def read_params(path: Path = PARAMS_FILE) -> Params:
    """The checked parameters; ParameterError lists every unknown key, wrong type, missing and out-of-range value."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ParameterError(f"{path} is missing here; run the command in the folder that holds dvc.yaml") from None
    except yaml.YAMLError as error:
        raise ParameterError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ParameterError(f"{path} must hold groups such as `train:`, it holds {type(content).__name__}")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        problems = [_describe(problem, content) for problem in error.errors()]
        raise ParameterError(f"{path}: {len(problems)} problem(s)\n  " + "\n  ".join(problems)) from None


def _describe(problem: Any, content: dict[str, Any]) -> str:
    path = [str(part) for part in problem["loc"]]
    name, seen = ".".join(path), problem["input"]
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(path[-1], _known_keys(path[:-1]), n=1)
        return f"{name}: unknown key" + (f"; did you mean {'.'.join([*path[:-1], close[0]])}?" if close else "")
    if problem["type"] == "missing":
        return f"{name}: missing"
    message = problem["msg"].removeprefix("Value error, ")
    if isinstance(seen, str) and problem["type"] in ("float_type", "int_type") and _looks_like_number(seen):
        message = f"{seen!r} is text for YAML; write the number with a dot, such as 2.0e-4"
    elif not isinstance(seen, dict):
        message = f"{message}; seen: {seen!r}"
    return f"{name}: {message}"


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
