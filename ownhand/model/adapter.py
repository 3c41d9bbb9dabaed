"""LoRA: which weights of the base model get an adapter, reading a trained adapter back, and its official names.

PEFT names an adapter's weights after the native class (`...model.language_model.layers.N...`), in which the routed
experts of a layer are two fused parameters. Serving engines map the official layout's names (`...model.layers.N...`),
with three matrices for each expert; `to_official` and `to_native` translate.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from pydantic import BaseModel as Schema
from pydantic import ConfigDict, Field, ValidationError
from transformers import PreTrainedModel

from ownhand.errors import Refusal
from ownhand.files import read_json
from ownhand.model.four_bit import has_four_bits
from ownhand.model.loading import VISION_MODULES
from ownhand.model.weights import open_weights, read_weights, refuse_not_finite
from ownhand.params import TrainParams

# The vision tower's attention has the decoder's names: every pattern names its part of the model in full.
DECODER_LAYER = r"language_model\.layers\.\d+\."
LINEAR_TARGETS = {
    "attention": DECODER_LAYER + r"self_attn\.(q|k|v|o)_proj",
    "mlp": DECODER_LAYER + r"mlp\.(shared_experts\.)?(gate|up|down)_proj",  # the dense layer and the shared experts
    "vision": r"vision_tower\..+\.layers\.\d+\.(attn|self_attn|mlp)\."
    r"(qkv|proj|lin1|lin2|fc1|fc2|(q|k|v|o|out|gate|up|down)_proj)",
    "projector": r"multi_modal_projector",
}
EXPERT_PARAMETERS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]  # fused 3-D weights, not nn.Linear
VISION_TARGETS = frozenset({"vision", "projector"})
VISION_PREFIXES = tuple(f"base_model.model.{module}." for module in VISION_MODULES)
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
MOST_RANK = 1024  # as of train.lora_r
ModuleName = Annotated[str, Field(pattern=r"^\w+(\.\w+)*$", max_length=100)]
# Settings of a foreign adapter_config.json that change nothing in an adapter that is trained.
HARMLESS = frozenset({"auto_mapping", "inference_mode", "peft_version"})
EMPTY: tuple[object, ...] = (None, False, {}, [])
VALUE_SHOWN = 60  # characters
NATIVE_PREFIX, OFFICIAL_PREFIX = "base_model.model.model.language_model.layers.", "base_model.model.model.layers."
# PEFT wraps the experts once per parameter: gate_up_proj is inside, under `base_layer`, and down_proj around it.
EXPERTS, GATE_UP = ".mlp.experts.", "base_layer."
EXPERT_WEIGHT = re.compile(
    r"(?P<layer>.+\.mlp\.experts\.)(?P<expert>\d+)\.(?P<matrix>\w+_proj)\.(?P<kind>lora_[AB])\.weight"
)


def needs_pictures(targets: Collection[str]) -> bool:
    """Whether training these targets changes the vision tokens, so that none can come from the cache."""
    return not VISION_TARGETS.isdisjoint(targets)


def lora_config(params: TrainParams, name_or_path: str, revision: str | None) -> LoraConfig:
    """The PEFT configuration of the `train` parameters."""
    linear = [pattern for target, pattern in LINEAR_TARGETS.items() if target in params.lora_targets]
    return LoraConfig(
        r=params.lora_r,
        lora_alpha=params.lora_alpha,
        lora_dropout=params.lora_dropout,
        target_modules=_pattern(linear) if linear else [],
        target_parameters=EXPERT_PARAMETERS if "experts" in params.lora_targets else None,
        base_model_name_or_path=name_or_path,
        revision=revision,
        task_type="CAUSAL_LM",
    )


def add_adapter(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    """The base model, frozen, with a fresh adapter whose weights are float32.

    LoRA's second matrix starts at zero: the untrained adapter changes nothing.
    """
    adapted = _adapt(model, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if not any(parameter.requires_grad for parameter in adapted.parameters()):
        raise Refusal("train.lora_targets match no weight of this model")
    return adapted


def _adapt(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    if config.target_parameters and has_four_bits(model):
        raise Refusal("this adapter changes the routed experts, which are in 4 bits here: set expert_weights to as_is")
    config.base_model_name_or_path = None  # PEFT puts the model's folder there and warns of any other name
    adapted = get_peft_model(model, config)
    assert isinstance(adapted, PeftModel)
    return adapted


def save_adapter(model: PeftModel, folder: Path, name_or_path: str) -> None:
    """Write the adapter in PEFT's layout; it names the base model as params.yaml does, not by a path of this machine.

    PEFT would otherwise also ask the hub whether the vocabulary has grown; ours never does. Refusal, with nothing
    written, for weights that are no numbers.
    """
    trained = ((name, weight) for name, weight in model.named_parameters() if ".lora_" in name)
    refuse_not_finite(folder, trained, "lower train.learning_rate")
    for config in model.peft_config.values():
        config.base_model_name_or_path = name_or_path
    model.save_pretrained(str(folder), save_embedding_layers=False)


def load_adapter(model: PreTrainedModel, folder: Path, strength: float = 1.0) -> PeftModel:
    """Base model and trained adapter, in evaluation mode; `strength` as for `weaken`.

    An adapter under official names has its strength in its weights already, as the export writes it.
    Refusal when the folder holds no adapter that fits.
    """
    adapted = _adapt(model, read_adapter_config(folder))
    load_adapter_weights(adapted, folder)
    if not any(name.startswith(OFFICIAL_PREFIX) for name in _weight_names(folder)):
        weaken(adapted.named_parameters(), strength)
    return adapted.eval()


@torch.no_grad()
def weaken(weights: Iterable[tuple[str, torch.Tensor]], strength: float) -> None:
    """Multiply, in place, all that an adapter adds to the base model; 1 leaves it as it was trained.

    The names may be native or official. Scaled are LoRA's second matrices: no engine has to know of it.
    """
    for name, weight in weights:
        if ".lora_B." in name:
            weight.mul_(strength)


@contextmanager
def weakened(model: PeftModel, strength: float) -> Iterator[None]:
    """The model with its adapter at `strength`, as `transcribe` reads; afterwards its weights are as they were."""
    kept = {name: weight.detach().clone() for name, weight in model.named_parameters() if ".lora_B." in name}
    weaken(model.named_parameters(), strength)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name in kept:
                    weight.copy_(kept[name])


def load_adapter_weights(model: PeftModel, folder: Path) -> None:
    """Copy an adapter's weights, under native or official names, into the adapter that `model` has.

    PEFT's own loader renames native names a second time by transformers' conversion rules for this architecture
    (`language_model.layers` contains `model.layers`), finds none of them, and only warns; the adapter then stays
    untrained. Here every weight must find its place: Refusal lists what is missing or left over.
    """
    stored = to_native(read_adapter_weights(folder))
    own = {name.replace(".default.", "."): weight for name, weight in model.named_parameters() if ".lora_" in name}
    missing, unknown = sorted(own.keys() - stored.keys()), sorted(stored.keys() - own.keys())
    if missing or unknown:
        raise Refusal(
            f"the adapter in {folder} does not fit this base model: {len(missing)} weights missing "
            f"({', '.join(missing[:3])}), {len(unknown)} unknown ({', '.join(unknown[:3])})"
        )
    for name, weight in own.items():
        if weight.shape != stored[name].shape:
            raise Refusal(
                f"the adapter in {folder} does not fit this base model: {name} is {tuple(stored[name].shape)}, "
                f"expected {tuple(weight.shape)}"
            )
        weight.data.copy_(stored[name])


class _Stored(Schema):
    """The fields of adapter_config.json that decide what an adapter computes; only these ever reach PEFT."""

    model_config = ConfigDict(strict=True, extra="allow")

    peft_type: Literal["LORA"]
    task_type: Literal["CAUSAL_LM"] | None = None
    base_model_name_or_path: str | None = None
    revision: str | None = None
    r: int = Field(ge=1, le=MOST_RANK)
    lora_alpha: float = Field(gt=0, le=1e6)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | Annotated[list[ModuleName], Field(max_length=1000)] | None = None
    target_parameters: list[Literal["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]] | None = None


def read_adapter_config(folder: Path) -> LoraConfig:
    """The configuration of an adapter, for the native model.

    PEFT's own reader imports modules that the file names and runs regular expressions that it holds. Here a pattern
    must be one of ours, and every setting that we do not know must be at PEFT's default. Refusal when the folder holds
    no adapter, its configuration is damaged, or it needs what we do not know.
    """
    _check_adapter_is_there(folder)
    path = folder / CONFIG
    remedy = f"take {CONFIG} from where the adapter came from, or run `dvc repro train` for an adapter of your own"
    content = read_json(path, remedy)
    try:
        stored = _Stored.model_validate(content)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, one['loc'])) or CONFIG}: {one['msg']}" for one in error.errors()]
        raise Refusal(f"{path.as_posix()} cannot be used ({'; '.join(problems)}); {remedy}") from None
    defaults = LoraConfig().to_dict()  # type: ignore[no-untyped-call]
    unknown = {name: value for name, value in (stored.model_extra or {}).items() if name not in HARMLESS}
    changed = [name for name, value in unknown.items() if value != defaults.get(name) and value not in EMPTY]
    if changed:
        settings = ", ".join(f"{name}: {json.dumps(unknown[name])[:VALUE_SHOWN]}" for name in sorted(changed))
        raise Refusal(f"{path.as_posix()} has settings that ownhand does not know ({settings}); {remedy}")
    targets = stored.target_modules or []
    parameters: list[str] | None = list(stored.target_parameters) if stored.target_parameters else None
    if isinstance(targets, str) and targets not in _own_patterns():
        raise Refusal(
            f"{path.as_posix()}: target_modules is a pattern that ownhand does not write ({targets[:VALUE_SHOWN]!r}); "
            "list the names of the modules instead, such as q_proj"
        )
    if targets and not isinstance(targets, str):  # official: names without their place, which the weights tell
        names = _weight_names(folder)
        linear = {match[1] for name in names if (match := re.search(r"layers\.\d+\.(\D+)\.lora_A\.weight$", name))}
        linear = {name for name in linear if not name.startswith(EXPERTS.strip("."))}
        targets = rf".*\.{DECODER_LAYER}({'|'.join(map(re.escape, sorted(linear)))})" if linear else []
        parameters = EXPERT_PARAMETERS if any(map(EXPERT_WEIGHT.fullmatch, names)) else parameters
    alpha = stored.lora_alpha
    return LoraConfig(
        r=stored.r,
        lora_alpha=int(alpha) if alpha.is_integer() else alpha,  # type: ignore[arg-type] # PEFT divides it by r
        lora_dropout=stored.lora_dropout,
        target_modules=targets,
        target_parameters=parameters,
        base_model_name_or_path=stored.base_model_name_or_path,
        revision=stored.revision,
        task_type=stored.task_type,
    )


def _own_patterns() -> set[str]:
    """Every pattern that `lora_config` can make."""
    names = list(LINEAR_TARGETS)
    chosen = (some for count in range(1, len(names) + 1) for some in combinations(names, count))
    return {_pattern([LINEAR_TARGETS[name] for name in some]) for some in chosen}


def _pattern(linear: Sequence[str]) -> str:
    return rf".*\.({'|'.join(linear)})"


def read_adapter_weights(folder: Path) -> dict[str, torch.Tensor]:
    """An adapter's weights as they are stored. Refusal when they are not there, damaged, integers or no numbers."""
    _check_adapter_is_there(folder)
    remedy = "run `dvc repro train` again, or copy the adapter from where it is whole"
    weights = read_weights(folder / WEIGHTS, remedy)
    whole = sorted(name for name, tensor in weights.items() if not tensor.is_floating_point())
    if whole:
        kind = str(weights[whole[0]].dtype).removeprefix("torch.")
        raise Refusal(f"{(folder / WEIGHTS).as_posix()}: {whole[0]} is {kind}, not floating point; {remedy}")
    return weights


def changes_vision(folder: Path) -> bool:
    """Whether a trained adapter changes the vision tokens: then they cannot come from the cache.

    Refusal when the folder holds no adapter.
    """
    _check_adapter_is_there(folder)
    return any(name.startswith(VISION_PREFIXES) for name in _weight_names(folder))


def _weight_names(folder: Path) -> list[str]:
    with open_weights(folder / WEIGHTS, "run `dvc repro train` again") as file:
        return list(file.keys())


def _check_adapter_is_there(folder: Path) -> None:
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).exists()]
    if missing:
        raise Refusal(
            f"{folder.as_posix()} holds no adapter ({' and '.join(missing)} missing): `dvc repro train` writes "
            "models/adapter, and the export models/adapter-official"
        )


def to_official(weights: dict[str, torch.Tensor], rank: int) -> dict[str, torch.Tensor]:
    """An adapter's weights under the names of the official layout; `rank` is its `lora_r`.

    Trained routed experts become one pair per matrix and expert, `mlp.experts.E.{gate,up,down}_proj.lora_{A,B}.weight`:
    vLLM and llama.cpp take no others. gate and up are one fused matrix here, so both get the same A.
    Refusal for weights outside the decoder's layers: the official vision tower has other matrices (q, k and v are one),
    and serving engines take adapters of the decoder only.
    """
    other = [name for name in weights if not name.startswith(NATIVE_PREFIX)]
    if other:
        raise Refusal(
            f"the adapter changes more than the decoder ({len(other)} weights, the first is {other[0]}): it has no "
            "form under official names; use the merged model"
        )
    official: dict[str, torch.Tensor] = {}
    for native, tensor in weights.items():
        name = OFFICIAL_PREFIX + native.removeprefix(NATIVE_PREFIX)
        layer, routed, rest = name.partition(EXPERTS)
        official |= _split_experts(layer + routed, rest, tensor, rank) if routed else {name: tensor}
    return official


def _split_experts(layer: str, rest: str, fused: torch.Tensor, rank: int) -> dict[str, torch.Tensor]:
    """One fused A (experts x rank, in) or B (out, rank x experts) as a pair's half for each matrix and expert."""
    matrices = ("gate_proj", "up_proj") if rest.startswith(GATE_UP) else ("down_proj",)
    kind = rest.removeprefix(GATE_UP)
    if kind.startswith("lora_A"):
        halves = [fused.reshape(-1, rank, fused.shape[1])] * len(matrices)  # (experts, rank, in)
    else:
        by_expert = fused.reshape(len(fused), rank, -1).movedim(2, 0)  # (experts, out, rank)
        halves = list(by_expert.chunk(len(matrices), dim=1))
    return {
        f"{layer}{expert}.{matrix}.{kind}": tensor.clone(memory_format=torch.contiguous_format)
        for matrix, half in zip(matrices, halves, strict=True)
        for expert, tensor in enumerate(half)
    }


def to_native(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inverse of `to_official`; native names stay as they are.

    Refusal for experts that have no fused form: one is missing, or gate and up have different A.
    """
    native: dict[str, torch.Tensor] = {}
    layers: dict[str, dict[tuple[str, str, int], torch.Tensor]] = {}
    for official, tensor in weights.items():
        name = (
            NATIVE_PREFIX + official.removeprefix(OFFICIAL_PREFIX) if official.startswith(OFFICIAL_PREFIX) else official
        )
        if match := EXPERT_WEIGHT.fullmatch(name):
            layers.setdefault(match["layer"], {})[match["matrix"], match["kind"], int(match["expert"])] = tensor
        else:
            native[name] = tensor
    for layer, experts in layers.items():
        native |= _join_experts(layer, experts)
    return native


def _join_experts(layer: str, weights: dict[tuple[str, str, int], torch.Tensor]) -> dict[str, torch.Tensor]:
    """The fused weights of one layer's experts, the inverse of `_split_experts`."""
    n_experts = 1 + max(expert for _, _, expert in weights)

    def stacked(matrix: str, kind: str) -> torch.Tensor:
        """(experts, rank, in) for A, (experts, out, rank) for B."""
        try:
            return torch.stack([weights[matrix, kind, expert] for expert in range(n_experts)])
        except KeyError as missing:
            raise Refusal(f"the adapter lacks {missing} (matrix, kind, expert) of {layer}: export it again") from None

    if not torch.equal(stacked("gate_proj", "lora_A"), stacked("up_proj", "lora_A")):
        raise Refusal(f"gate_proj and up_proj of {layer} differ in A: no fused form holds that; use a merged model")
    a = {GATE_UP: stacked("gate_proj", "lora_A"), "": stacked("down_proj", "lora_A")}
    b = {
        GATE_UP: torch.cat([stacked("gate_proj", "lora_B"), stacked("up_proj", "lora_B")], dim=1),
        "": stacked("down_proj", "lora_B"),
    }
    return {f"{layer}{place}lora_A.weight": tensor.flatten(0, 1) for place, tensor in a.items()} | {
        f"{layer}{place}lora_B.weight": tensor.movedim(0, 2).flatten(1) for place, tensor in b.items()
    }


def official_modules(weights: Collection[str]) -> list[str]:
    """The names of the adapted modules without their place, such as q_proj: the list that serving engines read."""
    return sorted({match[1] for name in weights if (match := re.search(r"(\w+_proj)\.lora_[AB]\.weight$", name))})
