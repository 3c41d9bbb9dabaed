"""The official layout of DeepSeek-OCR: its `config.json`, its tensor names, and writing a checkpoint in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel as Schema
from pydantic import ConfigDict, Field
from safetensors import safe_open
from transformers import PreTrainedModel, UnlimitedOcrConfig
from transformers.core_model_loading import revert_weight_conversion

from ownhand.files import write_json
from ownhand.model.families import OFFICIAL_MODEL_TYPE

OFFICIAL_ARCHITECTURE = "DeepseekOCRForCausalLM"

# The official file has this matrix, although its code never multiplies by it: SAM's output takes its place.
UNUSED_NATIVE = "model.vision_tower.vision_encoder.embeddings.patch_embedding.weight"
UNUSED_OFFICIAL = "model.vision_model.embeddings.patch_embedding.weight"

# The fields of the official config.json that decide the architecture, with DeepSeek-OCR's numbers.
OFFICIAL_CONFIG: dict[str, Any] = {
    "architectures": [OFFICIAL_ARCHITECTURE],
    "model_type": OFFICIAL_MODEL_TYPE,
    "candidate_resolutions": [[1024, 1024]],
    "global_view_pos": "head",
    "tile_tag": "2D",
    "torch_dtype": "bfloat16",
    "bos_token_id": 0,
    "eos_token_id": 1,
    "language_config": {
        "architectures": ["DeepseekV2ForCausalLM"],
        "model_type": "deepseek_v2",
        "torch_dtype": "bfloat16",
        "vocab_size": 129280,
        "hidden_size": 1280,
        "intermediate_size": 6848,
        "moe_intermediate_size": 896,
        "num_hidden_layers": 12,
        "first_k_dense_replace": 1,
        "num_attention_heads": 10,
        "num_key_value_heads": 10,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "num_experts_per_tok": 6,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "greedy",
        "max_position_embeddings": 8192,
        "use_mla": False,
        "lm_head": True,
        "bos_token_id": 0,
        "eos_token_id": 1,
    },
    "projector_config": {
        "model_type": "mlp_projector",
        "projector_type": "linear",
        "input_dim": 2048,
        "n_embed": 1280,
    },
    "vision_config": {
        "model_type": "vision",
        "model_name": "deeplip_b_l",
        "image_size": 1024,
        "width": {
            "clip-l-14-224": {"width": 1024, "layers": 24, "heads": 16, "image_size": 224, "patch_size": 14},
            "sam_vit_b": {
                "width": 768,
                "layers": 12,
                "heads": 12,
                "global_attn_indexes": [2, 5, 8, 11],
                "downsample_channels": [512, 1024],
            },
        },
    },
}


Size = Annotated[int, Field(ge=1, le=1 << 24)]
Layers = Annotated[int, Field(ge=1, le=1000)]
Ratio = Annotated[float, Field(gt=0, le=1e9)]


class _Part(Schema):
    model_config = ConfigDict(strict=True)


class _Language(_Part):  # a default says that the field may be absent, and is never used
    vocab_size: Size = 1
    hidden_size: Size = 1
    intermediate_size: Size = 1
    moe_intermediate_size: Size = 1
    num_hidden_layers: Layers = 1
    first_k_dense_replace: Annotated[int, Field(ge=0, le=1000)] = 0
    num_attention_heads: Size = 1
    num_key_value_heads: Size = 1
    max_position_embeddings: Size = 1
    n_routed_experts: Size = 1
    n_shared_experts: Size = 1
    num_experts_per_tok: Size = 1
    n_group: Size = 1
    topk_group: Size = 1
    topk_method: str = ""
    rms_norm_eps: Ratio = 1
    rope_theta: Ratio = 1
    bos_token_id: Annotated[int, Field(ge=0)] = 0
    eos_token_id: Annotated[int, Field(ge=0)] = 0


class _Sam(_Part):
    width: Size
    layers: Layers
    heads: Size
    global_attn_indexes: list[Annotated[int, Field(ge=0, le=1000)]]
    downsample_channels: Annotated[list[Size], Field(min_length=2, max_length=2)]
    image_size: Size = 1
    patch_size: Size = 1
    output_channels: Size = 1
    window_size: Size = 1
    mlp_ratio: Ratio = 1


class _Clip(_Part):
    width: Size
    layers: Layers
    heads: Size
    image_size: Size
    patch_size: Size


class _Widths(_Part):
    sam_vit_b: _Sam
    clip: _Clip = Field(alias="clip-l-14-224")


class _Vision(_Part):
    image_size: Size
    width: _Widths


class _Official(_Part):
    """What an official `config.json` must hold, and within which bounds; a damaged file could ask for any number."""

    language_config: _Language
    vision_config: _Vision
    initializer_range: Ratio = 1


def build_config(official: dict[str, Any], image_token_id: int) -> UnlimitedOcrConfig:
    """The native config of an official `config.json`.

    The official file leaves out what DeepSeek-OCR's code hard-codes; those fields may stand in it for smaller models:
    `vision_config.width.sam_vit_b.{patch_size, image_size, output_channels, mlp_ratio, window_size}`.
    pydantic's ValidationError says what is missing or no possible value.
    """
    _Official.model_validate(official)
    language = official["language_config"]
    widths = official["vision_config"]["width"]
    sam, clip = widths["sam_vit_b"], widths["clip-l-14-224"]
    spread = official.get("initializer_range", 0.02)
    sam_config = {
        "hidden_size": sam["width"],
        "num_hidden_layers": sam["layers"],
        "num_attention_heads": sam["heads"],
        "global_attn_indexes": list(sam["global_attn_indexes"]),
        "downsample_channels": list(sam["downsample_channels"]),
        "image_size": sam.get("image_size", official["vision_config"]["image_size"]),
        "patch_size": sam.get("patch_size", 16),
        "output_channels": sam.get("output_channels", 256),
        "window_size": sam.get("window_size", 14),
        "mlp_dim": int(sam["width"] * sam.get("mlp_ratio", 4)),
        "initializer_range": spread,
    }
    clip_config = {
        "hidden_size": clip["width"],
        "intermediate_size": 4 * clip["width"],
        "num_hidden_layers": clip["layers"],
        "num_attention_heads": clip["heads"],
        "image_size": clip["image_size"],
        "patch_size": clip["patch_size"],
        "initializer_range": spread,
    }
    text_config = {name: language[name] for name in _Language.model_fields.keys() - {"rope_theta"} if name in language}
    text_config |= {
        "rms_norm_eps": language.get("rms_norm_eps", 1e-6),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(language.get("rope_theta", 10000.0))},
        "routed_scaling_factor": language.get("routed_scaling_factor", 1.0),
        "sliding_window": language["max_position_embeddings"],
        "initializer_range": spread,
    }
    return UnlimitedOcrConfig(
        vision_config={"sam_config": sam_config, "encoder_config": clip_config},
        text_config=text_config,
        image_token_id=image_token_id,
    )


def official_tensors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """All tensors of a model under the official names, as a checkpoint holds them; works on the meta device too.

    The unused patch embedding is not among them: the native class does not have it.
    """
    tensors: dict[str, torch.Tensor] = revert_weight_conversion(model, model.state_dict())
    return tensors


def write_checkpoint(
    model: PreTrainedModel, folder: Path, config: dict[str, Any], unused: torch.Tensor | None = None
) -> None:
    """Weights under the official names in `model`'s dtype, and config.json, into an existing or new folder.

    `unused` is the patch embedding that the official file has and the native class lacks; None leaves it out.
    The tokenizer and processor files are the caller's.
    """
    weights = dict(model.state_dict())
    if unused is not None:
        weights[UNUSED_NATIVE] = unused.to(model.dtype)
    model.save_pretrained(folder, state_dict=weights)
    (folder / "generation_config.json").unlink(missing_ok=True)
    write_json(folder / "config.json", config)


def read_unused(folder: Path) -> torch.Tensor | None:
    """The unused patch embedding of an official checkpoint; None when it has none."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            if UNUSED_OFFICIAL in file.keys():  # noqa: SIM118 - a safetensors handle is no mapping
                tensor: torch.Tensor = file.get_tensor(UNUSED_OFFICIAL)
                return tensor
    return None
