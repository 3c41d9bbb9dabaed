"""Does a sample fit the model? Known without loading it: from text, size in pixels and tokenizer."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field

from ownhand.model.base import BaseModel
from ownhand.model.sequence import SequenceTooLong, build_training_ids
from ownhand.params import Params


@dataclass(frozen=True)
class SequenceLimit:
    """What decides how many tokens a sample takes, and how many it may take."""

    base: BaseModel
    max_tokens: int
    survivors: dict[str, bool] = field(default_factory=dict, init=False, compare=False)  # characters asked for so far

    @classmethod
    def of(cls, params: Params) -> SequenceLimit:
        """The limit of the chosen base model; only its small files are needed."""
        return cls(BaseModel.open(params, weights=False), params.train.max_tokens)

    def why_not(self, text: str, width_px: int, height_px: int) -> str | None:
        """Why the sample cannot be trained on ("text too long: ...", "character: ..."), or None when it can."""
        lost = sorted(character for character in set(text) if not self._survives(character))
        if lost:
            names = ", ".join(f"{c!r} ({unicodedata.name(c, 'unnamed')})" for c in lost)
            return f"character: the tokenizer cannot express {names}"
        tokenizer = self.base.tokenizer
        again = tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids)
        if again != text:
            return f"characters: the tokenizer makes {again!r} of this text"
        vision_tokens = self.count_vision_tokens(width_px, height_px)
        try:
            build_training_ids(tokenizer, self.base.special, vision_tokens, text, self.max_tokens)
        except SequenceTooLong as error:
            return f"text too long: {error} (train.max_tokens)"
        return None

    def count_vision_tokens(self, width_px: int, height_px: int) -> int:
        """Vision tokens of a picture of this size."""
        return self.base.view_rules.count_tokens(width_px, height_px)

    def _survives(self, character: str) -> bool:
        if character not in self.survivors:
            ids = self.base.tokenizer.encode(character, add_special_tokens=False).ids
            self.survivors[character] = bool(self.base.tokenizer.decode(ids) == character)
        return self.survivors[character]
