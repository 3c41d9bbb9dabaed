"""A checkpoint of DeepSeek-OCR's exact shape with random weights, for tests and benchmarks.

    python -m benchmarks.random_checkpoint FOLDER [--layers N] [--dtype bfloat16]

Reads   nothing.
Writes  FOLDER: safetensors under the official names, config.json, tokenizer.json (bytes only, with the official ids of
        the special tokens), tokenizer_config.json and processor_config.json. All 12 layers take 6.7 GB, 2 take 2.0 GB.
Refuses a folder that is not empty, and a disk without room for it.
"""

from __future__ import annotations

import argparse
import copy
import shutil
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, UnlimitedOcrForConditionalGeneration

from ownhand.errors import Refusal, run_stage
from ownhand.files import write_json
from ownhand.model.loading import BOS, EOS, IMAGE, PAD
from ownhand.model.official import OFFICIAL_CONFIG, build_config, write_checkpoint
from ownhand.runtime import DTYPES

IMAGE_ID = 128815  # of <image> in the official tokenizer
SPREAD = 0.02  # standard deviation of the random weights


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.random_checkpoint", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=12, help="decoder layers, 12 in the original")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    arguments = parser.parse_args()
    parameters = imitate(arguments.folder, official_config(arguments.layers), DTYPES[arguments.dtype])
    print(f"random_checkpoint: wrote {parameters:,} random parameters to {arguments.folder.as_posix()}")


def official_config(layers: int) -> dict[str, Any]:
    """DeepSeek-OCR's config.json with `layers` decoder layers; the first is dense, the others have experts."""
    if layers < 1:
        raise Refusal(f"--layers is {layers}: a decoder has at least one layer")
    config = copy.deepcopy(OFFICIAL_CONFIG)
    config["language_config"]["num_hidden_layers"] = layers
    return config


def imitate(folder: Path, config: dict[str, Any], dtype: torch.dtype, seed: int = 0) -> int:
    """Write a random checkpoint of this config.json to a new folder; the number of its parameters.

    Every matrix, position and bias is drawn, so that nothing is zero by chance of its initialisation; norms are 1.
    """
    if folder.exists() and any(folder.iterdir()):
        raise Refusal(f"{folder} is not empty; name a new folder")
    kind: Any = UnlimitedOcrForConditionalGeneration
    with torch.device("meta"):  # shapes only: the weights are drawn below, and once is enough
        model: PreTrainedModel = kind._from_config(build_config(config, IMAGE_ID), dtype=dtype)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = parameters * dtype.itemsize, shutil.disk_usage(folder).free
    if needed > free:
        raise Refusal(f"{folder}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free")
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and name.endswith("weight"):
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, SPREAD, generator=generator)
    clip = config["vision_config"]["width"]["clip-l-14-224"]
    unused = torch.zeros(clip["width"], 3, clip["patch_size"], clip["patch_size"])
    write_checkpoint(model, folder, config, unused)
    write_small_files(folder, config)
    return parameters + unused.numel()


def write_small_files(folder: Path, config: dict[str, Any]) -> None:
    """Tokenizer and processor files as they stand beside the official weights."""
    byte_level_tokenizer().save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "LlamaTokenizerFast", "bos_token": BOS, "eos_token": EOS, "pad_token": PAD},
    )
    size = config["vision_config"]["image_size"]
    write_json(
        folder / "processor_config.json",
        {
            "processor_class": "DeepseekVLV2Processor",
            "candidate_resolutions": [[size, size]],
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "image_token": IMAGE,
            "pad_token": PAD,
            "patch_size": 16,
            "downsample_ratio": 4,
            "normalize": True,
        },
    )


def byte_level_tokenizer() -> Tokenizer:
    """One token per UTF-8 byte, the special tokens at their official ids, placeholders between them."""
    names = [BOS, EOS, PAD, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    names += [f"<｜placeholder▁{i}｜>" for i in range(len(names), IMAGE_ID)] + [IMAGE]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (BOS, EOS, PAD, IMAGE)])
    return tokenizer


if __name__ == "__main__":
    run_stage(main)
