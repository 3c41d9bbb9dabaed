"""The rows of the table "Images"; each test names its row."""

from __future__ import annotations

import io
import os
import socket
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ownhand import images
from ownhand.folders import find_files, find_unfit_files
from ownhand.images import ImageLimits, UnreadableImage, open_image, paper_colour

LIMITS = ImageLimits(max_side_px=400, min_side_px=8, max_pixels=1_000_000, max_aspect=20.0)
WHITE, RED = (255, 255, 255), (255, 0, 0)
TOLERANCE = 12  # of lossy formats


def corners() -> Image.Image:
    """A picture that looks different in all eight orientations: 48 x 32, each quarter in its own colour."""
    image = Image.new("RGB", (48, 32), WHITE)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 23, 15), fill=(200, 0, 0))
    draw.rectangle((24, 0, 47, 15), fill=(0, 180, 0))
    draw.rectangle((0, 16, 23, 31), fill=(0, 0, 220))
    return image


def encoded(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def opened(folder: Path, content: bytes, name: str = "x.jpg", limits: ImageLimits | None = LIMITS) -> Image.Image:
    path = folder / name
    path.write_bytes(content)
    return open_image(path, limits)


def reason(folder: Path, content: bytes, limits: ImageLimits | None = LIMITS) -> str:
    with pytest.raises(UnreadableImage, match=r"x\.jpg: ") as caught:
        opened(folder, content, limits=limits)
    return caught.value.reason


def distance(one: Image.Image, other: Image.Image) -> float:
    assert one.size == other.size
    return float(np.abs(np.asarray(one, np.float32) - np.asarray(other, np.float32)).mean())


@pytest.mark.parametrize(
    "name", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "JPEG2000"], ids=lambda name: f"{name} named .jpg"
)
def test_wrong_extension_with_valid_content_is_read(tmp_path: Path, name: str) -> None:
    picture = opened(tmp_path, encoded(corners(), name))
    assert picture.mode == "RGB"
    assert distance(picture, corners()) < TOLERANCE


def test_zero_bytes_are_rejected(tmp_path: Path) -> None:
    assert reason(tmp_path, b"") == "empty file: 0 bytes"


def test_what_is_no_image_is_rejected_with_its_first_bytes(tmp_path: Path) -> None:
    assert "begins with b'%PDF-1.7'" in reason(tmp_path, b"%PDF-1.7 and so on")
    assert "not a readable picture" in reason(tmp_path, b"\xff\xd8\xff but no JPEG")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match=r"y\.jpg: unreadable picture: No such file"):
        open_image(tmp_path / "y.jpg")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("JPEG2000", {}),
        ("AVIF", {}),
    ],
)
@pytest.mark.parametrize("share", [0.5, 0.97])
def test_truncated_files_are_rejected_however_much_is_there(
    tmp_path: Path, name: str, options: dict[str, Any], share: float
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    content = encoded(Image.fromarray(noise), name, **options)
    assert opened(tmp_path, content).size == (90, 60)
    kind = reason(tmp_path, content[: int(share * len(content))]).partition(":")[0]
    assert kind in ("unreadable picture", "not a readable picture")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("name", "options"),
    [("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_deflate"})],
)
def test_every_exif_orientation_is_turned_upright(
    tmp_path: Path, orientation: int, name: str, options: dict[str, Any]
) -> None:
    stored = corners()
    # The inverse of what a viewer does: how the camera's sensor saw the upright scene.
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = opened(tmp_path, encoded(stored, name, exif=exif.tobytes(), **options))
    assert distance(picture, corners()) < TOLERANCE


def test_grey_and_black_and_white_become_rgb(tmp_path: Path) -> None:
    grey = Image.linear_gradient("L")
    assert distance(opened(tmp_path, encoded(grey, "PNG")), grey.convert("RGB")) == 0
    binary = Image.new("1", (20, 20), 1)
    binary.putpixel((3, 4), 0)
    picture = opened(tmp_path, encoded(binary, "TIFF", compression="group4"))
    assert (picture.getpixel((3, 4)), picture.getpixel((4, 3))) == ((0, 0, 0), WHITE)


def test_transparency_becomes_white_paper(tmp_path: Path) -> None:
    image = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 10, 10))
    image.putpixel((15, 15), (0, 0, 0, 128))
    picture = opened(tmp_path, encoded(image, "PNG"))
    assert (picture.getpixel((5, 5)), picture.getpixel((12, 2))) == (RED, WHITE)
    assert picture.getpixel((15, 15)) == (127, 127, 127)


def test_grey_with_transparency_and_palette_with_transparency_become_white_paper(tmp_path: Path) -> None:
    grey = Image.new("LA", (20, 20), (0, 0))
    grey.putpixel((3, 3), (40, 255))
    picture = opened(tmp_path, encoded(grey, "PNG"))
    assert (picture.getpixel((3, 3)), picture.getpixel((4, 4))) == ((40, 40, 40), WHITE)
    palette = Image.new("P", (20, 20), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.putpixel((3, 3), 1)
    for name in ("PNG", "GIF"):
        picture = opened(tmp_path, encoded(palette, name, transparency=0))
        assert (picture.getpixel((3, 3)), picture.getpixel((4, 4))) == (RED, WHITE)


def test_cmyk_becomes_the_same_colours(tmp_path: Path) -> None:
    image = Image.new("CMYK", (32, 32), (0, 0, 0, 0))
    image.paste((0, 255, 255, 0), (0, 0, 16, 32))
    for name in ("JPEG", "TIFF"):
        picture = opened(tmp_path, encoded(image, name))
        assert np.allclose(np.asarray(picture)[4, [4, 28]], [RED, WHITE], atol=TOLERANCE)


def ramp(dtype: Any, low: float, high: float) -> Image.Image:
    return Image.fromarray(np.tile(np.linspace(low, high, 64).astype(dtype), (16, 1)))


def assert_is_ramp(picture: Image.Image, *, falling: bool = False) -> None:
    values = np.asarray(picture.convert("L")).astype(int)[0]
    values = values[::-1] if falling else values
    assert picture.mode == "RGB"
    assert (values[0], values[-1]) == (0, 255)
    assert np.abs(values - np.linspace(0, 255, 64)).max() <= 1.01


@pytest.mark.parametrize("name", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_and_not_clipped(tmp_path: Path, name: str) -> None:
    assert_is_ramp(opened(tmp_path, encoded(ramp(np.uint16, 0, 65535), name)))


def test_16_bits_of_a_dark_picture_stay_dark(tmp_path: Path) -> None:
    assert np.asarray(opened(tmp_path, encoded(ramp(np.uint16, 0, 6553), "PNG"))).max() == 25


def test_16_bits_with_white_as_zero_are_turned_around(tmp_path: Path) -> None:
    content = encoded(ramp(np.uint16, 0, 65535), "TIFF", tiffinfo={262: 0})
    assert_is_ramp(opened(tmp_path, content), falling=True)


def test_12_bits_reach_white(tmp_path: Path) -> None:
    values = np.tile(np.linspace(0, 4095, 64).astype(int), (16, 1)).ravel()
    packed = b"".join(bytes(((a >> 4), (a & 15) << 4 | b >> 8, b & 255)) for a, b in values.reshape(-1, 2).tolist())
    tags = [(256, 64), (257, 16), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 16), (279, len(packed))]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    content = b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + directory + bytes(4)
    assert_is_ramp(opened(tmp_path, content))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 255), (0, 65535), (-4.5, 12), (0, 1e9)])
def test_floating_point_values_are_scaled_and_not_clipped(tmp_path: Path, low: float, high: float) -> None:
    assert_is_ramp(opened(tmp_path, encoded(ramp(np.float32, low, high), "TIFF")))


def test_floating_point_values_that_are_no_numbers_are_rejected(tmp_path: Path) -> None:
    image = np.ones((16, 16), np.float32)
    image[3, 3] = np.nan
    assert "NaN" in reason(tmp_path, encoded(Image.fromarray(image), "TIFF"))


def test_16_bit_transparency_becomes_white(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((16, 16), 300, np.uint16))
    assert opened(tmp_path, encoded(image, "PNG", transparency=300)).getpixel((2, 2)) == WHITE


@pytest.mark.parametrize("name", ["TIFF", "GIF", "PNG", "WEBP"])
def test_files_of_several_frames_are_rejected_with_their_number(tmp_path: Path, name: str) -> None:
    others = [corners().rotate(180), Image.new("RGB", (48, 32), RED)]
    content = encoded(corners(), name, save_all=True, append_images=others)
    assert reason(tmp_path, content).startswith(f"several frames: 3 in one {name} file")


def test_a_phones_jpeg_with_further_frames_is_read_as_its_first(tmp_path: Path) -> None:
    content = encoded(corners(), "MPO", save_all=True, append_images=[Image.new("RGB", (48, 32), RED)], quality=95)
    assert distance(opened(tmp_path, content), corners()) < TOLERANCE


def test_a_raw_file_whose_first_picture_is_a_preview_is_rejected(tmp_path: Path) -> None:
    assert reason(tmp_path, encoded(corners(), "TIFF", tiffinfo={254: 1})).startswith("only a preview")


def test_heic_without_the_optional_reader_is_rejected_with_the_package_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_formats", lambda: images.PILLOW_FORMATS)
    content = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(100)
    assert "pip install pillow-heif" in reason(tmp_path, content)


def test_heic_with_the_optional_reader_is_read(tmp_path: Path) -> None:
    reader = pytest.importorskip("pillow_heif", reason="the optional HEIC reader is not installed")
    reader.from_pillow(corners().resize((192, 128))).save(tmp_path / "source.heic", quality=90)
    picture = opened(tmp_path, (tmp_path / "source.heic").read_bytes())
    assert distance(picture, corners().resize((192, 128))) < TOLERANCE


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds no pixel."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def test_decompression_bomb_is_rejected_before_it_is_decoded(tmp_path: Path) -> None:
    seen = reason(tmp_path, png_header(60_000, 60_000) + struct.pack(">I", 1 << 20) + b"IDAT")
    assert seen == "too large: 60000 x 60000 px are 3,600,000,000 pixels, prepare.max_pixels is 1,000,000"


def test_a_picture_of_exactly_the_limits_is_read(tmp_path: Path) -> None:
    exact = ImageLimits(max_side_px=160, min_side_px=8, max_pixels=160 * 8, max_aspect=20.0)
    assert opened(tmp_path, encoded(Image.new("RGB", (160, 8)), "PNG"), limits=exact).size == (160, 8)


def test_one_pixel_is_rejected_with_size_and_limit(tmp_path: Path) -> None:
    assert reason(tmp_path, encoded(Image.new("RGB", (1, 1)), "PNG")) == "too small: 1 x 1 px, prepare.min_side_px is 8"


def test_extreme_aspect_is_rejected_with_ratio_and_limit(tmp_path: Path) -> None:
    seen = reason(tmp_path, encoded(Image.new("RGB", (10, 300)), "PNG"))
    assert seen == "too elongated: 10 x 300 px is 30.0 : 1, prepare.max_aspect is 20"


@pytest.mark.parametrize(("size", "expected"), [((800, 400), (400, 200)), ((300, 1200), (100, 400)), ((400, 9), None)])
def test_the_longest_side_is_limited_and_the_aspect_kept(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int] | None
) -> None:
    content = encoded(Image.new("RGB", size), "PNG")
    limits = ImageLimits(max_side_px=400, min_side_px=8, max_pixels=1_000_000, max_aspect=100.0)
    assert opened(tmp_path, content, limits=limits).size == (expected or size)


def test_without_limits_a_picture_keeps_its_size(tmp_path: Path) -> None:
    assert opened(tmp_path, encoded(Image.new("RGB", (800, 4)), "PNG"), limits=None).size == (800, 4)


def test_comments_and_profiles_do_not_travel_on(tmp_path: Path) -> None:
    content = encoded(corners(), "JPEG", comment=b"where and when", icc_profile=b"profile", dpi=(300, 300))
    assert opened(tmp_path, content).info == {}


def test_sub_folders_are_walked_and_system_files_ignored(tmp_path: Path) -> None:
    for name in ("b.jpg", "a/c.jpg", "a/d/e.jpg", ".DS_Store", "._b.jpg", "Thumbs.db", ".git/f.jpg", "__MACOSX/g.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"picture")
    found = find_files(tmp_path)
    assert [name for name, _ in found.files] == ["a/c.jpg", "a/d/e.jpg", "b.jpg"]
    assert [path for _, path in found.files] == [tmp_path / name for name, _ in found.files]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux stores names that are not valid Unicode")
def test_a_name_that_is_not_utf8_gets_a_form_that_can_be_written(tmp_path: Path) -> None:
    Path(str(tmp_path) + "/caf\udce9.jpg").write_bytes(b"picture")
    ((name, path),) = find_files(tmp_path).files
    assert name == "caf\\xe9.jpg"
    assert path.read_bytes() == b"picture"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_what_is_neither_file_nor_folder_is_named_for_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "raw"
    (raw / "sub/.hidden").mkdir(parents=True)
    (raw / "a.jpg").write_bytes(b"")
    (raw / "good link.jpg").symlink_to(raw / "a.jpg")
    (raw / "good folder").symlink_to(tmp_path)
    (raw / "sub/up").symlink_to("..")
    assert find_unfit_files(raw) == find_unfit_files(tmp_path / "none") == {}
    os.mkfifo(raw / "sub/.hidden/pipe")
    (raw / "pipe.jpg").symlink_to(raw / "sub/.hidden/pipe")
    (raw / "zero.png").symlink_to("/dev/zero")
    (raw / ".#annotations.csv").symlink_to("me@here.1:2")
    (raw / "loop").symlink_to("pool")
    (raw / "pool").symlink_to("loop")
    monkeypatch.chdir(raw)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("ear")
        assert [name for name, _ in find_files(raw).files] == ["a.jpg", "good link.jpg"]  # and nothing is waited for
        assert find_unfit_files(raw) == {
            ".#annotations.csv": "a link to nothing (it leads to me@here.1:2)",
            "ear": "a socket",
            "loop": "a link that leads to itself",
            "pipe.jpg": f"a link to a FIFO ({raw}/sub/.hidden/pipe)",
            "pool": "a link that leads to itself",
            "sub/.hidden/pipe": "a FIFO",
            "zero.png": "a link to a device (/dev/zero)",
        }


def test_the_colour_around_the_writing_is_that_of_the_paper_and_not_of_the_ink() -> None:
    image = Image.new("RGB", (60, 30), (240, 230, 210))
    image.paste("black", (5, 2, 55, 30))  # ink down to the lower edge
    assert paper_colour(image) == (240, 230, 210)
