"""Token ids: the one sequence that DeepSeek-OCR is trained and asked with, and the collator that pads it.

    [bos]  <image> x N  prompt  transcription  [eos]
    -100   -100         -100    ids            id       <- labels

This is the official "plain" template: no role tokens and no space behind the prompt, which is "\\nFree OCR." for
DeepSeek-OCR and stands in `families.py` for each model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ownhand.errors import Refusal

IGNORED_LABEL = -100


class SequenceTooLong(Refusal):
    """A sample whose text would have to be cut; cutting removes eos and teaches endless output."""


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of what is not transcription: begin, end, padding, the placeholder of one vision token, and the prompt."""

    bos: int
    eos: int
    pad: int
    image: int
    prompt: tuple[int, ...]


def build_prompt_ids(special: SpecialTokens, vision_tokens: int) -> list[int]:
    """The ids that stand before the text: bos, one image id per vision token, the prompt."""
    return [special.bos, *[special.image] * vision_tokens, *special.prompt]


def build_training_ids(
    tokenizer: Tokenizer, special: SpecialTokens, vision_tokens: int, text: str, max_tokens: int
) -> tuple[list[int], list[int]]:
    """(input ids, labels) of one sample, equally long; labels are -100 except on the text and eos.

    Raises SequenceTooLong when the whole exceeds `max_tokens`.
    """
    prompt = build_prompt_ids(special, vision_tokens)
    answer = [*tokenizer.encode(text, add_special_tokens=False).ids, special.eos]
    if len(prompt) + len(answer) > max_tokens:
        raise SequenceTooLong(
            f"{len(prompt) + len(answer)} tokens ({vision_tokens} vision, {len(answer)} text), "
            f"the limit is {max_tokens}"
        )
    return prompt + answer, [IGNORED_LABEL] * len(prompt) + answer


def pad_batch(
    ids: Sequence[Sequence[int]], pad_id: int, labels: Sequence[Sequence[int]] | None = None, side: str = "right"
) -> dict[str, torch.Tensor]:
    """input_ids, attention_mask and, if given, labels as int64 tensors (batch, longest); padding labels are -100."""
    longest = max(len(row) for row in ids)

    def padded(rows: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
        gaps = [[filler] * (longest - len(row)) for row in rows]
        joined = [[*row, *gap] if side == "right" else [*gap, *row] for row, gap in zip(rows, gaps, strict=True)]
        return torch.tensor(joined, dtype=torch.long)

    batch = {
        "input_ids": padded(ids, pad_id),
        "attention_mask": padded([[1] * len(row) for row in ids], 0),
    }
    if labels is not None:
        batch["labels"] = padded(labels, IGNORED_LABEL)
    return batch


def as_image_outputs(vision_tokens: Sequence[torch.Tensor]) -> dict[str, BaseModelOutputWithPooling]:
    """Vision tokens, one (tokens, width) tensor per picture, as the model's `mm_encoder_outputs` takes them."""
    return {"image": BaseModelOutputWithPooling(pooler_output=list(vision_tokens))}  # type: ignore[arg-type]
