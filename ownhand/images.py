"""Images: found, opened, decoded wholly, turned upright and made RGB, in this one place.

A picture that cannot be taken raises UnreadableImage, whose reason names what was measured and the limit or remedy.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import os
import stat
import warnings
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ownhand.errors import Refusal
from ownhand.text import to_nfc

if TYPE_CHECKING:
    from ownhand.params import PrepareParams

# Our own limit is checked before a pixel is decoded, and says which parameter it is; Pillow's would stop at half of it.
Image.MAX_IMAGE_PIXELS = None

# Named, because some of Pillow's other readers start foreign programs (EPS) or read only a preview.
PILLOW_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
# A phone keeps depth maps and further shots behind the photograph itself, which is the first picture of these.
PHOTO_CONTAINERS = ("MPO", "HEIF")
IMAGE_SUFFIXES = {".heic", ".heif"} | {
    suffix for suffix, name in Image.registered_extensions().items() if name in (*PILLOW_FORMATS, *PHOTO_CONTAINERS)
}
SYSTEM_NAMES = frozenset(("thumbs.db", "desktop.ini", "__macosx", "@eadir"))
TIFF_BITS_PER_SAMPLE, TIFF_PHOTOMETRIC, TIFF_SUBFILE_TYPE = 258, 262, 254
PLAIN_WHITES = (1, 255, 65535)  # the usual values of white where a file does not say how deep its values are


class UnreadableImage(Refusal):
    """A picture that cannot be used; `reason` begins with its kind: "too small: 1 x 1 px, ..."."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class ConvertedPicture:
    """What `prepare` makes of a photograph: file, size, the file's hash, and 256 bits to find its copies."""

    path: Path
    width_px: int
    height_px: int
    sha256: str
    bits: bytes


@dataclass(frozen=True)
class ImageLimits:
    """What a picture may measure; the names are those of the `prepare` parameters.

    A longer side than `max_side_px` is reduced; the other three lead to rejection, before the picture is decoded.
    """

    max_side_px: int
    min_side_px: int
    max_pixels: int
    max_aspect: float

    @classmethod
    def of(cls, params: PrepareParams) -> ImageLimits:
        """What the parameters say."""
        return cls(params.max_side_px, params.min_side_px, params.max_pixels, params.max_aspect)


@dataclass(frozen=True)
class FoundFiles:
    """The files below a folder, by their NFC POSIX name relative to it.

    files: (name, path) sorted by name, two entries where names differ only in Unicode form;
    links: names of links that are not followed (they leave the folder or lead to a folder), with their targets;
    root: the folder's real path; unreadable: sub-folders that cannot be listed, with the reason.
    """

    root: Path
    files: list[tuple[str, Path]]
    links: dict[str, str]
    unreadable: dict[str, str] = field(default_factory=dict)


def is_system_file(name: str) -> bool:
    """Whether a file or folder name is hidden or an operating system's own: .DS_Store, ._x.jpg, Thumbs.db."""
    return name.startswith(".") or name.casefold() in SYSTEM_NAMES


def has_image_suffix(name: str) -> bool:
    """Whether the name ends like a picture's. Only a hint: what a file is, its content decides."""
    return Path(name).suffix.casefold() in IMAGE_SUFFIXES


def find_files(folder: Path) -> FoundFiles:
    """Every file below `folder`, sub-folders included, system files left out; no link is followed out of it."""
    root = os.path.realpath(folder)
    files: list[tuple[str, Path]] = []
    links: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    pending = [(Path(folder), root, "")]
    while pending:
        here, real, prefix = pending.pop()
        try:
            entries = list(os.scandir(here))
        except OSError as error:
            unreadable[prefix.rstrip("/")] = error.strerror or str(error)
            continue
        for entry in entries:
            if is_system_file(entry.name):
                continue
            name = prefix + _printable(entry.name)
            path = here / entry.name
            own = os.path.join(real, entry.name)
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError:  # a link that leads to itself
                is_folder = is_file = False
            # Resolving costs too much for every file. A Windows junction is a folder, but no symbolic link.
            target = os.path.realpath(path) if entry.is_symlink() or is_folder else own
            if is_folder and os.path.normcase(target) == os.path.normcase(own):
                pending.append((path, own, name + "/"))
            elif is_file and Path(target).is_relative_to(root):
                files.append((name, path))
            else:
                links[name] = target
    return FoundFiles(Path(root), sorted(files), links, unreadable)


def find_unfit_files(folder: Path) -> dict[str, str]:
    """What lies below `folder` and is neither file nor folder, hidden entries included: name to what it is.

    FIFOs, sockets, devices, links to these, to nothing or in a circle, and folders that cannot be opened. Nothing is
    opened, no link to a folder is followed. Empty where there is no folder.
    """
    unfit: dict[str, str] = {}
    pending = [(Path(folder), os.path.realpath(folder), "")] if Path(folder).is_dir() else []
    while pending:
        here, real, prefix = pending.pop()
        try:
            with os.scandir(here) as entries:
                found = list(entries)
        except OSError as error:
            unfit[prefix.rstrip("/") or "."] = f"a folder that cannot be opened ({error.strerror})"
            continue
        for entry in found:
            name = prefix + _printable(entry.name)
            if entry.is_dir(follow_symlinks=False):
                own = os.path.join(real, entry.name)
                if os.path.normcase(os.path.realpath(entry.path)) == os.path.normcase(own):  # no Windows junction
                    pending.append((here / entry.name, own, name + "/"))
            elif not entry.is_file(follow_symlinks=False) and (what := _what_it_is(entry)):
                unfit[name] = what
    return dict(sorted(unfit.items()))


def _what_it_is(entry: os.DirEntry[str]) -> str:
    """The kind of an entry that is neither file nor folder; "" for a link that leads to one of these."""
    try:
        mode = entry.stat().st_mode
    except FileNotFoundError:
        return f"a link to nothing (it leads to {_printable(os.readlink(entry.path))})"
    except OSError as error:
        return "a link that leads to itself" if error.errno == errno.ELOOP else f"unreadable ({error.strerror})"
    kinds = {stat.S_ISFIFO: "a FIFO", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device", stat.S_ISBLK: "a device"}
    kind = next((name for is_kind, name in kinds.items() if is_kind(mode)), "")
    return f"a link to {kind} ({_printable(os.readlink(entry.path))})" if kind and entry.is_symlink() else kind


def _printable(name: str) -> str:
    """A name as NFC text; one that is not valid UTF-8 gets a printable form, so that every list can be written."""
    return to_nfc(os.fsencode(name).decode("utf-8", "backslashreplace"))


def open_image(path: Path, limits: ImageLimits | None = None) -> Image.Image:
    """The picture as upright 8-bit RGB without metadata, its longest side reduced to the limit (Lanczos).

    Transparency becomes white, 16-bit and floating-point values are scaled to 0-255. The content decides about the
    format, not the name. Raises UnreadableImage for anything that is not one whole picture within the limits.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which is dropped here anyway
            picture = _decode(path, limits)
    except UnreadableImage:
        raise
    except UnidentifiedImageError:
        raise UnreadableImage(path, _why_unidentified(path)) from None
    except Exception as error:  # damaged files make Pillow's readers raise nearly every kind of exception
        seen = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnreadableImage(path, f"unreadable picture: {seen}") from error
    return picture if limits is None else reduce_image(picture, limits.max_side_px)


def limit_image(path: Path, image: Image.Image, limits: ImageLimits) -> Image.Image:
    """A part of the picture at `path` under the limits that hold for whole pictures; see `open_image`."""
    _check_size(path, image.size, limits)
    return reduce_image(image, limits.max_side_px)


def reduce_image(image: Image.Image, max_side_px: int) -> Image.Image:
    """The picture with its longest side reduced to the limit (Lanczos); a smaller one as it is."""
    longest = max(image.size)
    if longest <= max_side_px:
        return image
    width, height = (max(1, round(side * max_side_px / longest)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _decode(path: Path, limits: ImageLimits | None) -> Image.Image:
    if path.stat().st_size == 0:
        raise UnreadableImage(path, "empty file: 0 bytes")
    with Image.open(path, formats=_formats()) as image:
        if limits is not None:
            _check_size(path, image.size, limits)
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format not in PHOTO_CONTAINERS:
            raise UnreadableImage(path, f"several frames: {frames} in one {image.format} file; save each as a picture")
        if getattr(image, "tag_v2", {}).get(TIFF_SUBFILE_TYPE, 0) & 1:
            raise UnreadableImage(path, "only a preview: a camera's raw file, it seems; save the photograph as JPEG")
        ImageOps.exif_transpose(image, in_place=True)  # decodes wholly, too
        picture = _to_rgb(image)
        picture.info = {}  # a comment would be written again with the JPEG
        return picture


@cache
def _formats() -> tuple[str, ...]:
    if importlib.util.find_spec("pillow_heif") is None:
        return PILLOW_FORMATS
    importlib.import_module("pillow_heif").register_heif_opener()
    return (*PILLOW_FORMATS, "HEIF")


def _why_unidentified(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(12)
    if start[4:8] == b"ftyp" and not start.startswith(b"avi", 8) and "HEIF" not in _formats():
        return "HEIC/HEIF: the optional reader is missing; install it with `pip install pillow-heif`, or save as JPEG"
    known = f"{', '.join(PILLOW_FORMATS[:-1])} or {PILLOW_FORMATS[-1]}"
    return f"not a readable picture: no {known}, or damaged; begins with {start[:8]!r}"


def _check_size(path: Path, size: tuple[int, int], limits: ImageLimits) -> None:
    shorter, longer = sorted(size)
    seen = f"{size[0]} x {size[1]} px"
    if shorter < limits.min_side_px:
        raise UnreadableImage(path, f"too small: {seen}, prepare.min_side_px is {limits.min_side_px}")
    if shorter * longer > limits.max_pixels:
        pixels = f"{seen} are {shorter * longer:,} pixels"
        raise UnreadableImage(path, f"too large: {pixels}, prepare.max_pixels is {limits.max_pixels:,}")
    if longer > limits.max_aspect * shorter:
        aspect = f"{seen} is {longer / shorter:.1f} : 1"
        raise UnreadableImage(path, f"too elongated: {aspect}, prepare.max_aspect is {limits.max_aspect:g}")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_scale_to_8_bits(image)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    transparent = image.convert("RGBA")
    paper = Image.new("RGB", image.size, "white")
    paper.paste(transparent, mask=transparent.getchannel("A"))
    return paper


def _scale_to_8_bits(image: Image.Image) -> np.ndarray:
    """Deep greyscale values as uint8 (height, width): the file's full range becomes 0-255, nothing is clipped."""
    values = np.asarray(image, np.float32)
    if not np.isfinite(values).all():
        raise ValueError("its values include NaN or infinity")
    tags = getattr(image, "tag_v2", {})
    black, white = 0.0, float(values.max())
    if image.mode.startswith("I;16"):
        white = 2 ** tags.get(TIFF_BITS_PER_SAMPLE, (16,))[0] - 1
    elif image.mode == "I" and image.format == "PPM":  # Pillow has scaled these to 16 bits already
        white = 65535
    elif values.min() < 0:
        black = float(values.min())
    else:
        white = next((usual for usual in PLAIN_WHITES if usual >= white), white)
    grey = np.rint((values - black) * (255 / max(white - black, 1e-6)))
    if tags.get(TIFF_PHOTOMETRIC) == 0:  # white is zero; Pillow turns only the shallow modes around
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if transparent is not None:
        grey[values == transparent] = 255
    return np.asarray(grey, np.uint8)


def paper_colour(image: Image.Image) -> tuple[int, int, int]:
    """The median colour of an RGB picture's edge: what lies around the writing."""
    pixels = np.asarray(image)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = np.median(edge, axis=0)
    return int(red), int(green), int(blue)
