"""The base model as one object: its folder, family, tokenizer, how it sees pictures, and its weights on demand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from ownhand.model.families import read_family
from ownhand.model.four_bit import ExpertWeights
from ownhand.model.loading import ModelError, find_model, load_base_model, read_tokenizer, special_tokens
from ownhand.model.sequence import SpecialTokens
from ownhand.model.views import ViewRules, read_view_sizes
from ownhand.params import Params
from ownhand.runtime import DTYPES


@dataclass(frozen=True)
class BaseModel:
    """Everything that a stage needs of the base model that params.yaml names.

    Opening it reads small files only; `load` reads the weights, as often as it is called.
    """

    folder: Path
    tokenizer: Tokenizer
    special: SpecialTokens
    view_rules: ViewRules
    dtype: torch.dtype
    attn_implementation: str
    pinned: bool  # by a revision: the files of a hub's commit never change
    state: tuple[tuple[str, int, int], ...]  # name, bytes and time of the last change of its files when it was opened

    @classmethod
    def open(cls, params: Params, *, weights: bool = True) -> BaseModel:
        """Find the checkpoint, and download what is missing of it; with `weights=False` only its small files.

        ModelError with the remedy when it cannot be had or is no model of the family.
        """
        folder = find_model(params.model.name_or_path, params.model.revision, weights=weights)
        family, tokenizer = read_family(folder), read_tokenizer(folder)
        return cls(
            folder=folder,
            tokenizer=tokenizer,
            special=special_tokens(tokenizer, family.prompt),
            view_rules=ViewRules(params.encode.mode, read_view_sizes(folder), params.encode.max_tiles),
            dtype=DTYPES[params.model.dtype],
            attn_implementation=params.model.attn_implementation,
            pinned=params.model.revision is not None,
            state=_state(folder),
        )

    def load(
        self,
        device: torch.device | str = "cpu",
        *,
        vision: bool = True,
        decoder: bool = True,
        expert_weights: ExpertWeights = "as_is",
    ) -> PreTrainedModel:
        """The weights, in evaluation mode; without the vision tower it takes vision tokens only, without the decoder it
        only makes them. ModelError when they do not fit, or are not those that were opened, under whose hash others
        would keep what is made with them; Refusal when the experts cannot be had in 4 bits."""
        model = load_base_model(
            str(self.folder),
            dtype=self.dtype,
            device=device,
            attn_implementation=self.attn_implementation,
            vision=vision,
            decoder=decoder,
            expert_weights=expert_weights,
        )
        if _state(self.folder) != self.state:
            raise ModelError(f"{self.folder.as_posix()} changed while it was loaded: run the same command again")
        return model

    def files(self) -> list[Path]:
        """The files that identify the model in a fingerprint: the small ones, and the weights where no commit does."""
        return sorted([*self.folder.glob("*.json"), *(() if self.pinned else self.folder.glob("*.safetensors"))])


def _state(folder: Path) -> tuple[tuple[str, int, int], ...]:
    files = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors"))
    return tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
