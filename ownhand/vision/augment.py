"""Augmentation: another photograph of the same line, as the same hand might have written it.

Only for training pictures and drawn from a seed, so that the feature cache can hold the copies. The transformations are
kornia's; JPEG is Pillow's, which is the real codec in a tenth of the time. Ours is that nothing of a picture is cut off
and that a copy depends on nothing but its seed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import kornia.augmentation as K
import numpy as np
import torch
from kornia.geometry.transform import warp_affine
from PIL import Image

from ownhand.images import paper_colour
from ownhand.params import AugmentParams

LINE_PX = 128  # what is higher is taken for several lines: else the blur of a page would leave nothing to read
ELASTIC_SHARE = 0.15  # the waves of the elastic warp: of the line's height, about half a letter
ELASTIC_ROOM = 4.0  # in standard deviations of the shift
NOISE_DEVIATION = math.sqrt(1 / 3)  # of even noise between -1 and 1, which kornia smooths for the warp
SOMETIMES = 0.5  # share of the copies with blur, JPEG noise, a shadow: a sharp and even picture stays usual
BEST_JPEG = 90


def augment(image: Image.Image, settings: AugmentParams, seed: Sequence[int]) -> Image.Image:
    """A changed copy of an RGB picture; size may change, nothing of the picture is cut off.

    The copy depends on picture, settings and seed alone. torch's own random numbers are left as they were.
    """
    with _seeded(seed):
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255  # (1, 3, height, width)
        pixels = _warp(pixels, torch.tensor(paper_colour(image)) / 255, settings, line_height(image.height))
        for change in _changes_of_light(settings, line_height(image.height)):
            pixels = change(pixels)
        compressed, quality = torch.rand(2).tolist()
    values = (pixels[0].clamp(0, 1) * 255).round().to(torch.uint8)
    copy = Image.fromarray(values.permute(1, 2, 0).contiguous().numpy())
    if settings.jpeg_quality and compressed < SOMETIMES:
        copy = _compress(copy, round(settings.jpeg_quality + quality * (BEST_JPEG - settings.jpeg_quality)))
    return copy


def augmented_size(width_px: int, height_px: int, settings: AugmentParams, seed: Sequence[int]) -> tuple[int, int]:
    """(width, height) of the copy that `augment` makes of a picture of this size, without making it."""
    with _seeded(seed):
        _, (height, width) = _placement(height_px, width_px, settings, line_height(height_px))
    return width, height


@contextmanager
def _seeded(seed: Sequence[int]) -> Iterator[None]:
    """torch's random numbers from `seed`, and behind it as they were. Not torch.manual_seed, which seeds the GPUs."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]))
        yield


def line_height(height_px: int) -> int:
    """The height of a line in pixels that shares are counted from: the picture's own, or a usual one on a page."""
    return min(height_px, LINE_PX)


def _placement(height: int, width: int, settings: AugmentParams, line_px: int) -> tuple[torch.Tensor, tuple[int, int]]:
    """Where a picture goes on its new paper: matrix (3, 3), and the paper's (height, width)."""
    shift = settings.elastic * ELASTIC_SHARE * line_px
    low, high = 1 - settings.stretch, 1 + settings.stretch
    slant = settings.shear_degrees
    affine = K.RandomAffine(settings.rotation_degrees, scale=(low, high, low, high), shear=(-slant, slant), p=1.0)
    shape = torch.Size([1, 3, height, width])
    matrix = affine.compute_transformation(torch.empty(shape), affine.forward_parameters(shape), affine.flags)[0]
    corners = torch.tensor([[0, width, width, 0], [0, 0, height, height], [1, 1, 1, 1]], dtype=matrix.dtype)
    moved = (matrix @ corners)[:2]  # (2, corners)
    left, top, right, bottom = torch.rand(4) * settings.margin * line_px + ELASTIC_ROOM * shift
    matrix[:2, 2] += torch.stack([left, top]) - moved.min(dim=1).values
    new_width, new_height = (moved.max(dim=1).values - moved.min(dim=1).values).tolist()
    return matrix, (math.ceil(new_height + top + bottom), math.ceil(new_width + left + right))


def _warp(pixels: torch.Tensor, paper: torch.Tensor, settings: AugmentParams, line_px: int) -> torch.Tensor:
    """Turned, slanted, stretched, with new margins and wavy, on paper of that colour (3)."""
    height, width = pixels.shape[2:]
    matrix, size = _placement(height, width, settings, line_px)
    if (matrix - torch.eye(3)).abs().max() > 1e-6 or size != (height, width):
        pixels = warp_affine(pixels, matrix[None, :2], size, mode="bicubic", padding_mode="fill", fill_value=paper)
    if not settings.elastic:
        return pixels
    wave = ELASTIC_SHARE * line_px
    shift = settings.elastic * wave  # standard deviation in pixels: `elastic` is then that of the local stretching
    # Smoothed with a Gaussian of that width, noise keeps 1 / (2 √π wave) of its deviation; kornia counts in half sides.
    scale = shift * 2 * math.sqrt(math.pi) * wave / NOISE_DEVIATION
    kernel = 4 * math.ceil(wave) + 1
    alpha = (2 * scale / size[1], 2 * scale / size[0])
    elastic = K.RandomElasticTransform((kernel, kernel), (wave, wave), alpha, padding_mode="border", p=1.0)
    warped: torch.Tensor = elastic(pixels)
    return warped


def _changes_of_light(settings: AugmentParams, line_px: int) -> list[torch.nn.Module]:
    """Shadow, brightness, contrast, colour and sharpness, those that are not switched off, in this order."""
    changes: list[torch.nn.Module] = []
    if settings.shadow:
        changes.append(K.RandomLinearIllumination((0.0, settings.shadow), (-1.0, -1.0), p=SOMETIMES))
    amounts = (settings.brightness, settings.contrast, settings.colour)
    if any(amounts):
        changes.append(K.ColorJitter(*amounts, p=1.0))
    sharpest, softest = 0.2, settings.blur * line_px  # standard deviations in pixels; below 0.2 nothing is seen
    if softest > sharpest:
        kernel = 2 * math.ceil(3 * softest) + 1
        changes.append(K.RandomGaussianBlur((kernel, kernel), (sharpest, softest), p=SOMETIMES))
    return changes


def _compress(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")
