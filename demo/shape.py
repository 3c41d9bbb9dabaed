"""Shape and files of the demo base model: DeepSeek-OCR's own fields and layout, with small numbers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from ownhand.checks.lengths import TRAINED_LINES, TrainedLines
from ownhand.files import write_json, write_text
from ownhand.model.families import FAMILIES, OFFICIAL_MODEL_TYPE
from ownhand.model.loading import BOS, EOS, IMAGE, PAD, special_tokens
from ownhand.model.sequence import SpecialTokens

CYRILLIC = "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"
EXTRA = "«»„“”‘’–—…№°§"
ACCENTED = "àâäáãåæçéèêëíìîïñóòôöõøœúùûüýÿßąćęłńśźżčďěňřšťůžőűğışțăâіїєґў"
# The few fields that the official file leaves to its code.
WIDTH = 128
TILE_PX = 128
PATCH_PX = 16
SAM_LAYERS = 3
CLIP_LAYERS = 3
DECODER_LAYERS = 6
VIEW_SIZES: dict[str, Any] = {
    "tiny": TILE_PX,
    "small": TILE_PX,
    "base": TILE_PX,
    "large": 2 * TILE_PX,
    "tile": TILE_PX,
    "pixels_per_token": 4 * PATCH_PX,
}

MAX_LENGTH = 96  # characters
# What 99 of 100 have of 1,240 lines that demo/lines.py drew with 8 characters or more.
TRAINED = TrainedLines(pixels=21.8, vision=0.82, longest=MAX_LENGTH)

README = """# The demo base model

A small model of DeepSeek-OCR's own architecture in the official file layout, at 1/1000 of its size. It exists so that
the whole pipeline can run anywhere. `demo/pretrain.py` makes it.

**Trained on** drawn text in the fonts of `demo/fonts/printed` and `demo/fonts/handwritten`: words of nine languages
(most of them Russian; wordfreq's lists), some with words of two scripts in one line, prose in four languages
(`demo/texts/prose`), pieces of short lines, and random strings, most of up to 64 characters, some of up to 96. In the
last 2,950 batches, a third and soon half of the lines of usual length were real handwriting (below). It began with the
weights of a smaller demo base model, itself trained on 432,000 lines of up to 28 characters, and saw 9,200 batches of
{batch_size} lines and then {steps:,} more, most lines twice; the last 1,900 with a falling rate.

**It reads** single short lines, print better than handwriting. **It does not read** whole pages, tables, formulas, or
other scripts than Cyrillic and Latin. All real handwriting that it has seen is French.

## Real handwriting

Lines of public transcriptions, all under CC BY 4.0, cut out by `prepare`'s own code; `demo/real_lines.py` names the
commits. Texts with marks of an edition were left out.

- 5,617 lines by 267 volunteers, 2024: [Copiste d'un jour](https://github.com/banq-dcn/Copiste-d-un-jour), Bibliothèque
  et Archives nationales du Québec
- 2,741 lines by some 140 soldiers, 1898 to 1918:
  [Testament de Poilus](https://github.com/HTR-United/CREMMA-AN-TestamentsDePoilus), A. Chagué, T. Clérice, A. Mazoue,
  E. Van Kote
- 1,898 lines by some 16 notaries' clerks, 1830 to 1939:
  [Notaires de Paris, Répertoires](https://github.com/HTR-United/lectaurep-repertoires), LECTAUREP, A. Rostaing,
  M. Durand, A. Chagué
- 1,544 lines by ten writers of the 19th century: [CREMMA-MSS-19](https://github.com/HTR-United/CREMMA-MSS-19),
  T. Clérice, A. Chagué and others
- 1,012 lines of a registry office, 1902 to 1913:
  [Tables décennales](https://github.com/Lucie-Louis/Tables_decennales_HTR), Lucie Louis
- only to measure, 143 lines by two writers of the 20th century:
  [CREMMA-MSS-20](https://github.com/HTR-United/CREMMA-MSS-20), T. Clérice, A. Chagué and others

## Measured

CER on 64 lines each, and on 143 real ones: texts and noise not used in training, in up to 8 tiles as the demo's
`params.yaml` has it (long and real lines: 16):

| lines | CER |
|---|---|
{rows}
"""


def official_config(vocabulary: int, special: SpecialTokens) -> dict[str, Any]:
    """The `config.json` of the demo base model, in the official fields."""
    return {
        "architectures": ["DeepseekOCRForCausalLM"],
        "model_type": "deepseek_vl_v2",
        "candidate_resolutions": [[TILE_PX, TILE_PX]],
        "global_view_pos": "head",
        "tile_tag": "2D",
        "torch_dtype": "bfloat16",
        "bos_token_id": special.bos,
        "eos_token_id": special.eos,
        "pad_token_id": special.pad,
        "initializer_range": 0.08,
        "language_config": {
            "architectures": ["DeepseekV2ForCausalLM"],
            "model_type": "deepseek_v2",
            "torch_dtype": "bfloat16",
            "vocab_size": vocabulary,
            "hidden_size": WIDTH,
            "intermediate_size": 3 * WIDTH,
            "moe_intermediate_size": WIDTH,
            "num_hidden_layers": DECODER_LAYERS,
            "first_k_dense_replace": 1,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "topk_method": "greedy",
            "max_position_embeddings": 2048,
            "use_mla": False,
            "lm_head": True,
            "bos_token_id": special.bos,
            "eos_token_id": special.eos,
        },
        "projector_config": {
            "model_type": "mlp_projector",
            "projector_type": "linear",
            "input_dim": 2 * WIDTH,
            "n_embed": WIDTH,
        },
        "vision_config": {
            "model_type": "vision",
            "model_name": "deeplip_b_l",
            "image_size": TILE_PX,
            "width": {
                "clip-l-14-224": {
                    "width": WIDTH,
                    "layers": CLIP_LAYERS,
                    "heads": 4,
                    "image_size": 28,
                    "patch_size": 14,
                },
                "sam_vit_b": {
                    "width": WIDTH,
                    "layers": SAM_LAYERS,
                    "heads": 2,
                    "global_attn_indexes": list(range(SAM_LAYERS)),
                    "downsample_channels": [WIDTH, WIDTH],
                    "patch_size": PATCH_PX,
                    "output_channels": WIDTH,
                    "mlp_ratio": 2,
                },
            },
        },
    }


def build_tokenizer() -> Tokenizer:
    """A byte-level BPE tokenizer in which every Russian letter is one token; any other text falls back to bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([BOS, EOS, PAD, IMAGE, *alphabet])}
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    merges: list[tuple[str, str]] = []
    accented = "".join(c for c in ACCENTED + ACCENTED.upper() if len(c.encode()) > 1)
    for character in dict.fromkeys(CYRILLIC + CYRILLIC.upper() + EXTRA + accented):
        symbols = to_bytes.pre_tokenize_str(character)[0][0]
        for end in range(2, len(symbols) + 1):
            if symbols[:end] not in vocabulary:
                vocabulary[symbols[:end]] = len(vocabulary)
                merges.append((symbols[: end - 1], symbols[end - 1]))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (BOS, EOS, PAD, IMAGE)])
    return tokenizer


def grow(model: Any, smaller: dict[str, torch.Tensor]) -> None:
    """Take over the weights of a smaller demo model (its state dict): the larger one begins nearly where that was.

    A patch kernel is resized to the larger patch; embeddings keep their first rows; layers that the smaller one lacks
    keep their random weights, but add nothing yet: the matrix that each of their two halves ends with is zero.
    """
    ends = ("attn.proj.", "mlp.lin2.", "out_proj.", "fc2.", "o_proj.", "mlp.down_proj.weight", "experts.down_proj")
    own = model.state_dict()
    for name, tensor in own.items():
        old = smaller.get(name)
        if old is None:
            if any(end in name for end in ends):
                tensor.zero_()
        elif name.endswith("patch_embed.projection.weight"):
            ratio = old.shape[-1] / tensor.shape[-1]  # the mean of the new pixels stands where one old pixel stood
            tensor.copy_(torch.nn.functional.interpolate(old, size=tensor.shape[-2:], mode="nearest-exact") * ratio**2)
        else:
            tensor[tuple(slice(0, side) for side in old.shape)].copy_(old)


def write_base_model(
    model: Any,
    folder: Path,
    measured: dict[str, float],
    settings: dict[str, Any],
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """The official layout: weights under the official names, and the files that stand beside them."""
    tokenizer = build_tokenizer()
    special = special_tokens(tokenizer, FAMILIES[OFFICIAL_MODEL_TYPE].prompt)
    folder.mkdir(parents=True, exist_ok=True)
    model.to(dtype).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "config.json", official_config(tokenizer.get_vocab_size(), special))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "LlamaTokenizerFast",
            "bos_token": BOS,
            "eos_token": EOS,
            "pad_token": PAD,
            "model_max_length": 2048,
        },
    )
    write_json(
        folder / "processor_config.json",
        {
            "processor_class": "DeepseekVLV2Processor",
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "image_token": IMAGE,
            "pad_token": PAD,
            "patch_size": PATCH_PX,
            "downsample_ratio": 4,
            "normalize": True,
            "view_sizes": VIEW_SIZES,
        },
    )
    write_json(folder / TRAINED_LINES, asdict(TRAINED))
    rows = "\n".join(f"| {name.replace('_', ' ')} | {value:.4f} |" for name, value in measured.items())
    write_text(folder / "README.md", README.format(**settings, rows=rows))
