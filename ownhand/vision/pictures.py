"""Pictures of samples and their augmented copies, by key: what the vision tower is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from ownhand.images import open_image
from ownhand.params import EncodeParams
from ownhand.samples import Sample
from ownhand.vision.augment import augment, augmented_size


def copy_keys(image_id: str, copies: int) -> list[str]:
    """The keys of a picture's augmented copies."""
    return [f"{image_id}~{number}" for number in range(1, copies + 1)]


class Pictures:
    """Every picture by its key: "00001" is a sample's own, "00001~3" its third augmented copy.

    `probes` are pictures that are no sample's, by their keys. Opens files only when asked, so that spawned workers can
    have it. KeyError for an unknown picture.
    """

    def __init__(
        self, samples: Sequence[Sample], encode: EncodeParams, probes: Mapping[str, Image.Image] | None = None
    ) -> None:
        self.samples = {sample.image_id: sample for sample in samples}
        self.encode = encode
        self.probes = probes or {}

    def image(self, key: str) -> Image.Image:
        """The picture or the augmented copy, RGB; the same at every call and in every process."""
        if key in self.probes:
            return self.probes[key]
        sample, seed = self._find(key)
        image = open_image(Path(sample.image_path))
        return augment(image, self.encode.augment, seed) if seed else image

    def size(self, key: str) -> tuple[int, int]:
        """Width and height of a sample's picture or copy in pixels, without opening a file."""
        sample, seed = self._find(key)
        size = sample.width, sample.height
        return augmented_size(*size, self.encode.augment, seed) if seed else size

    def _find(self, key: str) -> tuple[Sample, list[int]]:
        """The sample of a key, and a copy's seed: from the content, so that a line more before it changes no copy."""
        image_id, _, copy = key.partition("~")
        sample = self.samples[image_id]
        return sample, [self.encode.seed, int(sample.sha256, 16), int(copy)] if copy else []
