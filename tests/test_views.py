"""Views: the original rules for pixels, checked against numbers made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ownhand.errors import Refusal
from ownhand.model.families import FAMILIES, MODES
from ownhand.model.views import ViewSizes, choose_grid, count_tokens, make_views, read_view_sizes

OFFICIAL = ViewSizes()
GREY = (127 / 255 - 0.5) / 0.5  # of the padding


def picture(width: int, height: int) -> Image.Image:
    """A reproducible picture without symmetry."""
    rng = np.random.default_rng(width * 10007 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("mode", "side_px", "tokens"),
    [("tiny", 512, 73), ("small", 640, 111), ("base", 1024, 273), ("large", 1280, 421), ("gundam", 1024, 273)],
)
def test_each_mode_has_its_side_and_its_number_of_tokens(mode: str, side_px: int, tokens: int) -> None:
    views = make_views(picture(300, 200), mode, OFFICIAL, 9)
    assert views.global_view.shape == (3, side_px, side_px)
    assert views.global_view.dtype == torch.float32
    assert (views.tiles, views.grid, views.tokens) == (None, (1, 1), tokens)


@pytest.mark.parametrize(
    ("grid", "tokens"),
    [((2, 1), 273 + 10 * 21), ((1, 2), 273 + 20 * 11), ((3, 2), 273 + 20 * 31), ((9, 1), 273 + 10 * 91)],
)
def test_gundam_adds_ten_rows_of_tokens_and_their_newlines_per_row_of_tiles(grid: tuple[int, int], tokens: int) -> None:
    assert count_tokens("gundam", grid, OFFICIAL) == tokens


@pytest.mark.parametrize(
    ("width_px", "height_px", "max_tiles", "grid"),
    [
        (640, 640, 9, (1, 1)),  # fits one tile
        (640, 100, 9, (1, 1)),
        (641, 640, 9, (2, 2)),  # 1.002: of the grids with ratio 1 the first, see the test of ties
        (1280, 640, 9, (2, 1)),
        (640, 1280, 9, (1, 2)),
        (1800, 600, 9, (3, 1)),
        (600, 1800, 9, (1, 3)),
        (2600, 1708, 9, (3, 2)),  # 1.522: 3/2 is nearest
        (1600, 1200, 9, (3, 2)),  # 1.333: 4/3 would need 12 tiles, 3/2 is nearer than 1
        (1600, 1200, 12, (4, 3)),
        (6400, 640, 9, (9, 1)),
        (6400, 640, 6, (6, 1)),
        (6400, 640, 4, (4, 1)),
    ],
)
def test_the_grid_is_the_closest_aspect_ratio(
    width_px: int, height_px: int, max_tiles: int, grid: tuple[int, int]
) -> None:
    assert choose_grid(width_px, height_px, 640, max_tiles) == grid


def test_on_a_tie_the_larger_grid_wins_only_for_a_picture_of_more_than_half_its_area() -> None:
    # 1x1 is no grid of its own, so 2x2 is the first with aspect ratio 1, and 3x3 ties with it: half of 3x3 tiles of
    # 640 px is 0.5 * 9 * 409,600 = 1,843,200 px.
    assert choose_grid(1357, 1357, 640, 9) == (2, 2)  # 1,841,449 px
    assert choose_grid(1358, 1358, 640, 9) == (3, 3)  # 1,844,164 px
    # 2x1 and 4x2 tie at 2: half of eight tiles is 1,638,400 px.
    assert choose_grid(1810, 905, 640, 9) == (2, 1)  # 1,638,050 px
    assert choose_grid(1812, 906, 640, 9) == (4, 2)  # 1,641,672 px
    assert choose_grid(1812, 906, 640, 7) == (2, 1)  # eight tiles are not allowed


def test_tiles_are_cut_in_reading_order_from_the_picture_resized_to_the_grid() -> None:
    image = picture(1300, 600)
    views = make_views(image, "gundam", OFFICIAL, 9)
    assert views.grid == (2, 1)
    assert views.tokens == 273 + 10 * 21
    whole = np.asarray(image.resize((1280, 640), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    assert views.tiles is not None and views.tiles.shape == (2, 3, 640, 640)
    for column in (0, 1):
        expected = (whole[:, column * 640 : (column + 1) * 640].transpose(2, 0, 1) - 0.5) / 0.5
        assert np.allclose(views.tiles[column].numpy(), expected, atol=1e-6)
    three = make_views(picture(1300, 1950), "gundam", OFFICIAL, 9)
    assert three.grid == (2, 3) and three.tiles is not None and len(three.tiles) == 6
    tall = np.asarray(picture(1300, 1950).resize((1280, 1920), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    expected = (tall[640:1280, :640].transpose(2, 0, 1) - 0.5) / 0.5  # the third tile: second row, first column
    assert np.allclose(three.tiles[2].numpy(), expected, atol=1e-6)


def test_base_pads_with_grey_in_the_middle_and_keeps_the_aspect() -> None:
    view = make_views(Image.new("RGB", (1000, 250), (255, 255, 255)), "base", OFFICIAL, 9).global_view
    # 1000x250 becomes 1024x256, with (1024 - 256) / 2 = 384 rows of grey above and below.
    assert torch.allclose(view[:, :384], torch.tensor(GREY))
    assert torch.allclose(view[:, 384:640], torch.tensor(1.0))
    assert torch.allclose(view[:, 640:], torch.tensor(GREY))


def test_tiny_and_small_squash() -> None:
    image = picture(900, 300)
    for mode, side in (("tiny", 512), ("small", 640)):
        expected = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32) / 255
        view = make_views(image, mode, OFFICIAL, 9).global_view
        assert np.allclose(view.permute(1, 2, 0).numpy(), (expected - 0.5) / 0.5, atol=1e-6)


def test_black_is_minus_one_and_white_is_one() -> None:
    for colour, value in (((0, 0, 0), -1.0), ((255, 255, 255), 1.0)):
        view = make_views(Image.new("RGB", (64, 64), colour), "tiny", OFFICIAL, 9).global_view
        assert torch.equal(view, torch.full_like(view, value))


def test_the_sizes_are_the_models_own(tmp_path: Path) -> None:
    def sizes(model_type: str, processor: dict[str, object] | None) -> ViewSizes:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}), encoding="utf-8")
        (tmp_path / "processor_config.json").unlink(missing_ok=True)
        if processor is not None:
            (tmp_path / "processor_config.json").write_text(json.dumps(processor), encoding="utf-8")
        return read_view_sizes(tmp_path)

    assert sizes("deepseek_vl_v2", None) == OFFICIAL
    assert sizes("deepseek_vl_v2", {"patch_size": 16}) == OFFICIAL
    own = sizes("deepseek_vl_v2", {"view_sizes": {"base": 64, "tile": 32, "pixels_per_token": 16}})
    assert (own.base, own.tile, own.tokens_per_side(own.base)) == (64, 32, 4)
    with pytest.raises(Refusal, match="huge"):
        sizes("deepseek_vl_v2", {"view_sizes": {"huge": 4096}})


def test_deepseek_ocr_2_has_tiles_of_768_and_no_newlines(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "deepseek_ocr2"}', encoding="utf-8")
    sizes = read_view_sizes(tmp_path)
    assert count_tokens("base", (1, 1), sizes) == 256 + 1
    assert count_tokens("gundam", (3, 2), sizes) == 6 * 144 + 256 + 1
    with pytest.raises(Refusal, match="base, gundam"):
        make_views(picture(100, 100), "tiny", sizes, 6)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(Refusal, match="huge"):
        make_views(picture(10, 10), "huge", OFFICIAL, 9)


def test_the_table_of_families_names_modes_that_exist() -> None:
    for family in FAMILIES.values():
        assert set(family.modes) <= set(MODES)
        assert family.base_px % 64 == family.tile_px % 64 == 0
