"""Views: what the vision tower sees of a picture, by DeepSeek-OCR's original rules, and the vision tokens of them.

A *view* is one square picture. Every mode has one global view; "gundam" adds tiles of a grid w x h (columns x rows).
The view sizes are the base model's own: they come from the `view_sizes` entry of its `processor_config.json`, else
they are its family's. Source of the rules: the processing code published with deepseek-ai/DeepSeek-OCR.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from ownhand.errors import Refusal
from ownhand.files import read_json
from ownhand.model.families import AGAIN, MODES, read_family

PADDING_COLOUR = (127, 127, 127)
MIN_TILES = 2
LARGEST_VIEW_PX = 1 << 14


@dataclass(frozen=True)
class ViewSizes:
    """Side of each view in pixels, and pixels per vision token along one side (patch size times downsampling).

    `gundam` uses `base` for its global view and `tile` for its tiles. modes: those that the model knows;
    row_newlines: whether each row of vision tokens ends with a newline token.
    """

    tiny: int = 512
    small: int = 640
    base: int = 1024
    large: int = 1280
    tile: int = 640
    pixels_per_token: int = 64
    modes: tuple[str, ...] = MODES
    row_newlines: bool = True

    def tokens_per_side(self, side_px: int) -> int:
        """Vision tokens along one side of a square view of `side_px` pixels (rounded up: two stride-2 convolutions)."""
        return -(-side_px // self.pixels_per_token)


@dataclass(frozen=True)
class Views:
    """The views of one picture.

    global_view: float32 (3, S, S); tiles: float32 (columns * rows, 3, T, T) in reading order, or None;
    grid: (columns, rows), (1, 1) when there are no tiles; tokens: number of vision tokens, newlines and separator
    included.
    """

    global_view: torch.Tensor
    tiles: torch.Tensor | None
    grid: tuple[int, int]
    tokens: int


def read_view_sizes(model_folder: Path) -> ViewSizes:
    """The base model's view sizes: `view_sizes` in `processor_config.json`, its family's where that is silent.

    Refusal when the entry has a size that is not known or is none.
    """
    family = read_family(model_folder)
    sizes = {"base": family.base_px, "tile": family.tile_px}
    path = model_folder / "processor_config.json"
    if path.exists():
        content = read_json(path, AGAIN)
        stored = content.get("view_sizes", {}) if isinstance(content, dict) else content
        if not isinstance(stored, dict):
            raise Refusal(f"{path}: view_sizes must be sizes by name, it is {type(stored).__name__}; {AGAIN}")
        sizes |= stored
    unknown = sizes.keys() - {"tiny", "small", "base", "large", "tile", "pixels_per_token"}
    if unknown:
        raise Refusal(f"{path}: view_sizes has {', '.join(sorted(unknown))}, which is no view")
    wrong = [f"{name}: {px!r}" for name, px in sizes.items() if type(px) is not int or not 1 <= px <= LARGEST_VIEW_PX]
    if wrong:
        raise Refusal(f"{path}: view_sizes must be pixels from 1 to {LARGEST_VIEW_PX}, not {', '.join(wrong)}; {AGAIN}")
    return ViewSizes(**sizes, modes=family.modes, row_newlines=family.row_newlines)


def choose_grid(width_px: int, height_px: int, tile_px: int, max_tiles: int) -> tuple[int, int]:
    """The tile grid (columns, rows) whose aspect ratio is closest to the picture's; (1, 1) means no tiles.

    No tiles when both sides fit one tile. All grids with 2 <= columns * rows <= max_tiles compete, in order of their
    number of tiles; on a tie the later one wins if the picture's area exceeds half of that grid's.
    """
    if width_px <= tile_px and height_px <= tile_px:
        return 1, 1
    grids = sorted(
        {
            (columns, rows)
            for columns in range(1, max_tiles + 1)
            for rows in range(1, max_tiles + 1)
            if MIN_TILES <= columns * rows <= max_tiles
        },
        key=lambda grid: grid[0] * grid[1],
    )
    aspect = width_px / height_px
    best, best_difference = (1, 1), float("inf")
    for columns, rows in grids:
        difference = abs(aspect - columns / rows)
        if difference < best_difference:
            best, best_difference = (columns, rows), difference
        elif difference == best_difference and width_px * height_px > 0.5 * tile_px**2 * columns * rows:
            best = (columns, rows)
    return best


def count_tokens(mode: str, grid: tuple[int, int], sizes: ViewSizes) -> int:
    """Vision tokens of one picture: every row of tokens ends with a newline (if any), the whole with a separator."""
    newline = int(sizes.row_newlines)
    side = sizes.tokens_per_side(_global_side_px(mode, sizes))
    tokens = side * (side + newline) + 1
    if mode == "gundam" and grid != (1, 1):
        columns, rows = grid
        tile = sizes.tokens_per_side(sizes.tile)
        tokens += rows * tile * (columns * tile + newline)
    return tokens


def make_views(image: Image.Image, mode: str, sizes: ViewSizes, max_tiles: int) -> Views:
    """The views of an upright RGB picture.

    tiny and small squash it into a square; base and large pad it; gundam pads it for the global view and resizes it,
    aspect not kept, to the grid that is then cut into tiles. Bicubic; value / 255, mean and standard deviation 0.5.
    Raises Refusal for a mode that the model does not know.
    """
    if mode not in sizes.modes:
        raise Refusal(f"encode.mode: {mode!r} is not a mode of this model; it knows {', '.join(sizes.modes)}")
    side_px = _global_side_px(mode, sizes)
    if mode in ("tiny", "small"):
        global_image = image.resize((side_px, side_px), Image.Resampling.BICUBIC)
    else:
        global_image = ImageOps.pad(image, (side_px, side_px), Image.Resampling.BICUBIC, color=PADDING_COLOUR)
    grid = choose_grid(image.width, image.height, sizes.tile, max_tiles) if mode == "gundam" else (1, 1)
    tiles = None
    if grid != (1, 1):
        columns, rows = grid
        whole = image.resize((columns * sizes.tile, rows * sizes.tile), Image.Resampling.BICUBIC)
        pixels = _to_tensor(whole).reshape(3, rows, sizes.tile, columns, sizes.tile)
        tiles = pixels.permute(1, 3, 0, 2, 4).reshape(columns * rows, 3, sizes.tile, sizes.tile).contiguous()
    return Views(_to_tensor(global_image), tiles, grid, count_tokens(mode, grid, sizes))


def _global_side_px(mode: str, sizes: ViewSizes) -> int:
    return sizes.base if mode == "gundam" else int(getattr(sizes, mode))


def _to_tensor(image: Image.Image) -> torch.Tensor:
    """(3, height, width), values in [-1, 1]."""
    pixels = torch.from_numpy(np.array(image, dtype=np.float32))
    return (pixels / 255 - 0.5).div(0.5).permute(2, 0, 1).contiguous()


def pixel_inputs(views: Sequence[Views], dtype: torch.dtype) -> dict[str, Any]:
    """The arguments of the model's `forward` for pictures, one per sequence of the batch."""
    tiles = [one.tiles for one in views if one.tiles is not None]
    return {
        "pixel_values": torch.stack([one.global_view for one in views]).to(dtype),
        "pixel_values_local": torch.cat(tiles).to(dtype) if tiles else None,
        "num_local_patches": [0 if one.tiles is None else len(one.tiles) for one in views],
        "patches_grid": [list(one.grid) for one in views],
    }


@torch.inference_mode()
def compute_vision_tokens(model: Any, views: Views) -> torch.Tensor:
    """Vision tokens of one picture, (tokens, width) in the model's dtype, on the CPU; `model` with adapter or without.

    Their order: the rows of the whole grid of tiles from the top, each from left to right across all tiles, then those
    of the global view, a newline token behind each row, and the separator last. One picture a pass: what else is read
    at the same time can never change a picture's tokens. Raises ValueError when the model returns another number of
    tokens than the views promise.
    """
    inputs = pixel_inputs([views], model.dtype)
    features = model.get_image_features(
        **{name: part.to(model.device) if isinstance(part, torch.Tensor) else part for name, part in inputs.items()}
    )
    tokens: torch.Tensor = features.pooler_output[0].cpu().clone()
    if len(tokens) != views.tokens:
        raise ValueError(
            f"the vision tower returned {len(tokens)} tokens where the mode gives {views.tokens}; "
            "do the view sizes in processor_config.json belong to this model?"
        )
    return tokens


@dataclass(frozen=True)
class ViewRules:
    """How pictures become views for one model: mode, its view sizes, and the cap on tiles."""

    mode: str
    sizes: ViewSizes
    max_tiles: int

    def views(self, image: Image.Image) -> Views:
        """The views of an upright RGB picture."""
        return make_views(image, self.mode, self.sizes, self.max_tiles)

    def count_tokens(self, width_px: int, height_px: int) -> int:
        """Vision tokens of a picture of this size."""
        grid = (1, 1)
        if self.mode == "gundam":
            grid = choose_grid(width_px, height_px, self.sizes.tile, self.max_tiles)
        return count_tokens(self.mode, grid, self.sizes)
