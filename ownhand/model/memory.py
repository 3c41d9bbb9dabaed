"""Memory of a stage before it runs, by parts.

One step is rehearsed with the real code on tensors that have a shape and no content (torch's fake tensors): every
tensor that would live is counted, so that the peak follows the code, whatever the model, LoRA targets or attention.
Nothing of the model is read but its config.json.

Not counted: what the device's own libraries take (about half a gigabyte of a CUDA GPU) and the allocator's gaps.
Compared with the resident memory of real steps on a CPU (full width, 2 layers, float32; attention and mlp, with
experts, with gradient checkpointing, batch 1 and 4): 0.994 to 0.998 of what was measured. In bfloat16 a CPU step took
0.28 GB more than that, about one copy of the output matrix; a GPU has not been measured.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import PreTrainedConfig

from ownhand.model.adapter import add_adapter, lora_config, needs_pictures
from ownhand.model.four_bit import ExpertWeights, quantise_experts, scale_bytes
from ownhand.model.loading import VISION_MODULES, model_class, remove_modules
from ownhand.model.loss import sum_cross_entropy
from ownhand.model.views import Views
from ownhand.params import Params, TrainParams
from ownhand.runtime import DTYPES

GROUPED_MM = torch.ops.aten._grouped_mm.default
ADAPTER_BYTES = 4  # of one adapter weight or gradient: float32, whatever the base model has
OPTIMIZER_BYTES = 8  # AdamW's two moments in float32


@dataclass(frozen=True)
class Memory:
    """Bytes by part; `total` is the peak.

    activations: what backward needs and what is in flight besides; logits: what the label positions add to it;
    cache: keys and values of generation, or the vision tokens of a training batch.
    """

    weights: int = 0
    adapter: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    logits: int = 0
    cache: int = 0

    @property
    def total(self) -> int:
        return sum(getattr(self, part.name) for part in fields(self))

    def __str__(self) -> str:
        unit, divisor = ("GB", 1e9) if self.total >= 1e8 else ("MB", 1e6)
        parts = ", ".join(f"{part.name} {getattr(self, part.name) / divisor:.2f}" for part in fields(self))
        return f"{self.total / divisor:.2f} {unit} ({parts})"


@dataclass(frozen=True)
class Load:
    """The largest batch of a training step: sequences, tokens of the longest one, and how many of them are vision
    tokens and labels (text and eos); `views` of one picture only where the vision tower is trained."""

    batch_size: int
    tokens: int
    vision_tokens: int
    labels: int
    views: Views | None = None


def estimate_training(
    config: PreTrainedConfig, params: TrainParams, dtype: torch.dtype, attn_implementation: str, load: Load
) -> Memory:
    """Peak of a training step with LoRA on a model of this configuration, optimizer state included."""
    pictures = needs_pictures(params.lora_targets)
    model = _hollow_model(config, dtype, attn_implementation, () if pictures else VISION_MODULES)
    base = _bytes(model)
    adapted: Any = add_adapter(model, lora_config(params, "", None))
    adapted.train()
    if params.gradient_checkpointing:
        adapted.activation_checkpointing_enable()
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    with FakeTensorMode(allow_non_fake_inputs=True):
        _make_fake(adapted)
        base -= _quantise(model, params.expert_weights)
        with_logits = _peak(adapted, lambda: _training_step(model, config, dtype, load, load.labels))
        without = _peak(adapted, lambda: _training_step(model, config, dtype, load, 1))
    tokens = 0 if pictures else load.batch_size * load.vision_tokens * config.text_config.hidden_size * dtype.itemsize
    return Memory(
        weights=base,
        adapter=trained * ADAPTER_BYTES,
        gradients=trained * ADAPTER_BYTES,
        optimizer=trained * OPTIMIZER_BYTES,
        activations=without,
        logits=with_logits - without,
        cache=tokens,
    )


def estimate_transcription(config: PreTrainedConfig, params: Params, tokens: int) -> Memory:
    """Peak of reading with an adapter: prefill, keys and values of all layers, the scores of one step.

    tokens: of the longest sequence before its text.
    """
    text, dtype = config.text_config, DTYPES[params.model.dtype]
    batch_size = params.transcribe.batch_size * params.transcribe.beams
    train, expert_weights = params.train, params.transcribe.expert_weights
    left_out = () if needs_pictures(train.lora_targets) else VISION_MODULES
    model = _hollow_model(config, dtype, params.model.attn_implementation, left_out)
    base = _bytes(model)
    heads, most_tokens = text.num_key_value_heads * text.head_dim, tokens + params.transcribe.max_new_tokens
    keys_and_values = 2 * text.num_hidden_layers * batch_size * most_tokens * heads * dtype.itemsize
    if expert_weights == "nf4":  # no adapter changes experts that are in 4 bits
        train = train.model_copy(update={"lora_targets": [t for t in train.lora_targets if t != "experts"]})
    adapted: Any = add_adapter(model, lora_config(train, "", None)).eval()
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        _make_fake(adapted)
        base -= _quantise(model, expert_weights)
        peak = _peak(adapted, lambda: _decoder(model, config, dtype, batch_size, tokens, 1))
    # Generation keeps the scores in float32 and a second copy for the repetition guard.
    return Memory(
        weights=base,
        adapter=trained * ADAPTER_BYTES,
        activations=peak,
        logits=2 * 4 * batch_size * text.vocab_size,
        cache=keys_and_values,
    )


def _hollow_model(config: PreTrainedConfig, dtype: torch.dtype, attn: str, left_out: tuple[str, ...]) -> Any:
    """The model on the meta device: shapes only."""
    with torch.device("meta"):
        model = model_class(config)._from_config(config, dtype=dtype, attn_implementation=attn)
    remove_modules(model, left_out)
    return model


def _bytes(model: torch.nn.Module) -> int:
    own = sum(parameter.numel() * parameter.dtype.itemsize for parameter in model.parameters())
    return own + scale_bytes(model)


def _quantise(model: torch.nn.Module, expert_weights: ExpertWeights) -> int:
    """Give a model the experts that it will have; how many bytes that saves."""
    before = _bytes(model)
    if expert_weights == "nf4":
        quantise_experts(model)
    return before - _bytes(model)


def _make_fake(model: torch.nn.Module) -> None:
    """Replace meta tensors by fake CPU tensors, which take the same paths through the code as real ones."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                fake = torch.empty(parameter.shape, dtype=parameter.dtype)
                module._parameters[name] = torch.nn.Parameter(fake, requires_grad=parameter.requires_grad)
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def _peak(model: torch.nn.Module, step: Callable[[], object]) -> int:
    """What `step` takes at its peak beyond the model itself; gradients are released behind it."""
    counter = LiveBytes(model)
    at_rest = counter.live
    with counter:
        step()
    model.zero_grad()
    return counter.peak - at_rest


def _training_step(model: Any, config: PreTrainedConfig, dtype: torch.dtype, load: Load, labels: int) -> None:
    """Forward and backward as `label_logits_loss` runs them, behind the embedding of ids and vision tokens."""
    vision = None if load.views is None else _vision_tokens(model, dtype, load.views, load.batch_size)
    logits = _decoder(model, config, dtype, load.batch_size, load.tokens, labels, vision)
    loss = sum_cross_entropy(logits.flatten(0, 1), torch.zeros(load.batch_size * labels, dtype=torch.long))
    del logits, vision
    loss.backward()  # type: ignore[no-untyped-call]


def _vision_tokens(model: Any, dtype: torch.dtype, views: Views, batch_size: int) -> torch.Tensor:
    """(batch, vision tokens, width) from pixels of the shape of `views`."""
    tiles = views.tiles
    local = None if tiles is None else torch.empty((batch_size * len(tiles), *tiles.shape[1:]), dtype=dtype)
    features = model.get_image_features(
        pixel_values=torch.empty((batch_size, *views.global_view.shape), dtype=dtype),
        pixel_values_local=local,
        num_local_patches=[0 if tiles is None else len(tiles)] * batch_size,
        patches_grid=[list(views.grid)] * batch_size,
    )
    return torch.stack(list(features.pooler_output))


def _decoder(
    model: Any,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    batch_size: int,
    tokens: int,
    keep: int,
    vision: torch.Tensor | None = None,
) -> torch.Tensor:
    """Logits of the last `keep` positions."""
    embedded = torch.empty(batch_size, tokens, config.text_config.hidden_size, dtype=dtype)
    if vision is not None:
        embedded = torch.cat([vision, embedded[:, vision.shape[1] :]], dim=1)
    elif any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        embedded.requires_grad_()  # as enable_input_require_grads does behind the embedding
    mask = torch.ones(batch_size, 1, tokens, tokens, dtype=torch.bool)
    kinds = getattr(config.text_config, "layer_types", None)
    output = model.model.language_model(
        inputs_embeds=embedded,
        attention_mask={kind: mask for kind in kinds} if kinds else mask,
        use_cache=False,
    )
    logits: torch.Tensor = model.lm_head(output.last_hidden_state[:, -keep:])
    return logits


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that are alive: of `model` from the start, of everything that runs inside."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self.known: dict[int, int] = {}
        for tensor in [*model.parameters(), *model.buffers()]:
            self._count(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = _grouped_mm(func, args, kwargs or {}) if func is GROUPED_MM else func(*args, **(kwargs or {}))
        for value in tree_iter(output):
            if isinstance(value, torch.Tensor):
                self._count(value)
        return output

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.known:
            self.known[key] = storage.nbytes()
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.live -= self.known.pop(key)


def _grouped_mm(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The experts' matrix product: without content torch has it for bfloat16 only, with content for every dtype."""
    dtype = args[0].dtype
    if dtype == torch.bfloat16 or not isinstance(args[0], FakeTensor):
        return func(*args, **kwargs)
    return func(args[0].bfloat16(), args[1].bfloat16(), *args[2:], **kwargs).to(dtype)
