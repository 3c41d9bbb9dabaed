"""Does a sample fit the model? Known without loading it: from text, size in pixels and tokenizer."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field

from tokenizers import Tokenizer

from ownhand.model.families import read_family
from ownhand.model.loading import find_model, read_tokenizer, special_tokens
from ownhand.model.sequence import SequenceTooLong, SpecialTokens, build_training_ids
from ownhand.model.views import ViewSizes, choose_grid, count_tokens, read_view_sizes
from ownhand.params import Params


@dataclass(frozen=True)
class SequenceLimit:
    """What decides how many tokens a sample takes, and how many it may take."""

    tokenizer: Tokenizer
    special: SpecialTokens
    sizes: ViewSizes
    mode: str
    max_tiles: int
    max_tokens: int
    survivors: dict[str, bool] = field(default_factory=dict, init=False, compare=False)  # characters asked for so far

    @classmethod
    def of(cls, params: Params) -> SequenceLimit:
        """The limit of the chosen base model; only its small files are needed."""
        folder = find_model(params.model.name_or_path, params.model.revision, weights=False)
        tokenizer = read_tokenizer(folder)
        return cls(
            tokenizer,
            special_tokens(tokenizer, read_family(folder).prompt),
            read_view_sizes(folder),
            params.encode.mode,
            params.encode.max_tiles,
            params.train.max_tokens,
        )

    def why_not(self, text: str, width_px: int, height_px: int) -> str | None:
        """Why the sample cannot be trained on ("text too long: ...", "character: ..."), or None when it can."""
        lost = sorted(character for character in set(text) if not self._survives(character))
        if lost:
            names = ", ".join(f"{c!r} ({unicodedata.name(c, 'unnamed')})" for c in lost)
            return f"character: the tokenizer cannot express {names}"
        vision_tokens = self.count_vision_tokens(width_px, height_px)
        try:
            build_training_ids(self.tokenizer, self.special, vision_tokens, text, self.max_tokens)
        except SequenceTooLong as error:
            return f"text too long: {error} (train.max_tokens)"
        return None

    def count_vision_tokens(self, width_px: int, height_px: int) -> int:
        """Vision tokens of a picture of this size."""
        grid = choose_grid(width_px, height_px, self.sizes.tile, self.max_tiles) if self.mode == "gundam" else (1, 1)
        return count_tokens(self.mode, grid, self.sizes)

    def _survives(self, character: str) -> bool:
        if character not in self.survivors:
            ids = self.tokenizer.encode(character, add_special_tokens=False).ids
            self.survivors[character] = bool(self.tokenizer.decode(ids) == character)
        return self.survivors[character]
