"""The base model: one loader for every checkpoint, and the writer of the official layout.

The official checkpoint declares `model_type: deepseek_vl_v2` and brings Python code of its own, which is never run:
its architecture is built from transformers' native `UnlimitedOcrForConditionalGeneration`, whose reference sliding
window is set as wide as the position limit, so that it never cuts.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
    UnlimitedOcrConfig,
    UnlimitedOcrForConditionalGeneration,
)
from transformers.utils import logging

from stages.lib.failures import Refusal
from stages.lib.sequence import SpecialTokens

OFFICIAL_MODEL_TYPE = "deepseek_vl_v2"
NATIVE_MODEL_TYPES = ("unlimited_ocr", "deepseek_ocr2")
VISION_MODULES = ("model.vision_tower", "model.multi_modal_projector")
WEIGHT_FILES = ["*.safetensors", "*.safetensors.index.json"]
SMALL_FILES = ["config.json", "tokenizer.json", "tokenizer_config.json", "processor_config.json"]
BOS, EOS, PAD, IMAGE = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>", "<image>"


class ModelError(Refusal):
    """The base model cannot be had or does not fit; the message says what to do."""


def find_model(name_or_path: str, revision: str | None, *, weights: bool = True) -> Path:
    """The folder that holds the checkpoint: a local folder as it is, else the hub's cache, else a download.

    With `weights=False` only the small files (configuration, tokenizer) are fetched. Raises ModelError with the remedy
    when a hub id has no revision, or is neither cached nor reachable.
    """
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name_or_path) or name_or_path.startswith("models/"):
        raise ModelError(
            f"model.name_or_path: there is no folder {name_or_path!r}, and it is not a hub id (owner/name)"
        )
    if revision is None:
        raise ModelError(
            f"model.revision: the hub id {name_or_path} needs its 40-digit commit, so that a run can be repeated"
        )
    patterns = SMALL_FILES + (WEIGHT_FILES if weights else [])
    try:
        return Path(snapshot_download(name_or_path, revision=revision, allow_patterns=patterns, local_files_only=True))
    except (OSError, ValueError):
        pass  # not in the cache (or not all of it): download, with the hub's own progress bars
    try:
        return Path(snapshot_download(name_or_path, revision=revision, allow_patterns=patterns, etag_timeout=10))
    except Exception as error:
        raise ModelError(
            f"{name_or_path} at revision {revision} is not in the local cache and cannot be downloaded "
            f"({type(error).__name__}). The checkpoint of DeepSeek-OCR is 6.7 GB. Connect to the network, or download "
            f"the repository's *.json and *.safetensors files elsewhere and set model.name_or_path to their folder."
        ) from error


def load_base_model(
    name_or_path: str,
    revision: str | None = None,
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    attn_implementation: str = "sdpa",
    vision: bool = True,
) -> PreTrainedModel:
    """The base model in evaluation mode, from a hub id or a folder in the official or a native layout.

    With `vision=False` the vision tower's weights are not read and the module is removed: the model then takes vision
    tokens only. Raises ModelError for an unknown architecture and for missing, unexpected or misshapen weights, which
    it lists.
    """
    folder = find_model(name_or_path, revision)
    config = read_config(folder)
    if not vision:
        _shrink_vision(config)
    kind: Any = (
        UnlimitedOcrForConditionalGeneration if isinstance(config, UnlimitedOcrConfig) else AutoModelForImageTextToText
    )
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call] # its table of keys says less than the error below, and cries wolf without vision
    try:
        model, report = kind.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation=attn_implementation,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # an error below, unless it is the vision tower left out on purpose
            local_files_only=True,
        )
    finally:
        logging.set_verbosity(verbosity)
    problems = []
    for name in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = sorted(key if isinstance(key, str) else key[0] for key in report[name])
        if not vision:
            keys = [key for key in keys if not _is_vision(key)]
        if keys:
            more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
            problems.append(f"{name.replace('_', ' ')}: {', '.join(keys[:5])}{more}")
    if problems:
        raise ModelError(f"the weights in {folder} do not fit its config.json: " + "; ".join(problems))
    if not vision:
        for module in VISION_MODULES:
            parent, _, child = module.rpartition(".")
            delattr(model.get_submodule(parent), child)
    loaded: PreTrainedModel = model.to(device).eval()
    return loaded


def read_config(folder: Path) -> PreTrainedConfig:
    """The native configuration of a checkpoint folder. Raises ModelError when it is not of a known architecture."""
    path = folder / "config.json"
    if not path.exists():
        raise ModelError(f"{folder} holds no config.json; is it the folder of a checkpoint?")
    official = json.loads(path.read_text(encoding="utf-8"))
    model_type = official.get("model_type")
    if model_type == OFFICIAL_MODEL_TYPE:
        return build_config(official, special_tokens(read_tokenizer(folder)).image)
    if model_type in NATIVE_MODEL_TYPES:
        native: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True)
        return native
    raise ModelError(
        f"{path}: model_type {model_type!r} is not one that ownhand knows "
        f"({', '.join([OFFICIAL_MODEL_TYPE, *NATIVE_MODEL_TYPES])})"
    )


def _is_vision(key: str) -> bool:
    return key.startswith((*VISION_MODULES, "model.sam_model", "model.vision_model", "model.projector"))


def _shrink_vision(config: Any) -> None:
    """Make the vision tower so small that building it costs nothing; it is removed after loading."""
    sam, encoder = config.vision_config.sam_config, config.vision_config.encoder_config
    sam.hidden_size = sam.output_channels = sam.mlp_dim = sam.num_attention_heads = sam.num_hidden_layers = 1
    sam.image_size, sam.patch_size, sam.downsample_channels = 16, 16, [1, 1]
    encoder.hidden_size = encoder.intermediate_size = encoder.num_attention_heads = encoder.num_hidden_layers = 1


def build_config(official: dict[str, Any], image_token_id: int) -> UnlimitedOcrConfig:
    """The native config of an official `config.json`.

    The official file leaves out what DeepSeek-OCR's code hard-codes; those fields may stand in it for smaller models:
    `vision_config.width.sam_vit_b.{patch_size, image_size, output_channels, mlp_ratio, window_size}`.
    """
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
    text_config = {
        name: language[name]
        for name in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "max_position_embeddings",
            "n_routed_experts",
            "n_shared_experts",
            "num_experts_per_tok",
            "moe_intermediate_size",
            "first_k_dense_replace",
            "topk_method",
            "n_group",
            "topk_group",
            "bos_token_id",
            "eos_token_id",
        )
        if name in language
    }
    text_config |= {
        "rms_norm_eps": language.get("rms_norm_eps", 1e-6),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(language.get("rope_theta", 10000.0))},
        "routed_scaling_factor": language.get("routed_scaling_factor", 1.0),
        "sliding_window": language["max_position_embeddings"],
        "initializer_range": spread,
    }
    config = UnlimitedOcrConfig(
        vision_config={"sam_config": sam_config, "encoder_config": clip_config},
        text_config=text_config,
        image_token_id=image_token_id,
    )
    return config


def read_tokenizer(folder: Path) -> Tokenizer:
    """`tokenizer.json` exactly as it stands, whatever class `tokenizer_config.json` names."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def special_tokens(tokenizer: Tokenizer) -> SpecialTokens:
    """The ids of the four special tokens; ValueError names those that the tokenizer lacks."""
    ids = {name: tokenizer.token_to_id(name) for name in (BOS, EOS, PAD, IMAGE)}
    found = {name: token_id for name, token_id in ids.items() if token_id is not None}
    missing = sorted(ids.keys() - found.keys())
    if missing:
        raise ValueError(f"tokenizer.json lacks the special tokens {missing}; is this a DeepSeek-OCR tokenizer?")
    return SpecialTokens(found[BOS], found[EOS], found[PAD], found[IMAGE])
