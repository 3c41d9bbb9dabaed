"""Every bad input that people have, all at once: it does no harm to what is good, and each is named."""

from __future__ import annotations

import csv
import io
import struct
import unicodedata
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ownhand import images
from ownhand.model.fit import SequenceLimit
from ownhand.params import read_params
from ownhand.samples import read_metadata
from stages.prepare import prepare

ROOT = Path(__file__).parent.parent


def stored(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def noise(seed: int, size: tuple[int, int] = (72, 24)) -> Image.Image:
    """A picture that is like no other."""
    coarse = np.random.default_rng(seed).integers(0, 256, (size[1] // 4, size[0] // 4), np.uint8)
    return Image.fromarray(coarse).resize(size).convert("RGB")


def odd_but_good() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(np.random.default_rng(1).integers(0, 65536, (24, 72), np.uint16))
    single = Image.fromarray(np.random.default_rng(2).random((24, 72), np.float32))
    return {
        "PNG named.jpg": stored(noise(1000), "PNG"),
        "no suffix": stored(noise(1001), "JPEG"),
        "turned.jpg": stored(noise(1002), "JPEG", exif=exif),
        "grey.png": stored(noise(1003).convert("L"), "PNG"),
        "bits.tif": stored(noise(1004).convert("1"), "TIFF"),
        "ink.tif": stored(noise(1005).convert("CMYK"), "TIFF"),
        "clear.png": stored(noise(1006).convert("RGBA"), "PNG"),
        "deep.png": stored(deep, "PNG"),
        "single.tif": stored(single, "TIFF"),
        unicodedata.normalize("NFD", "ёж 🙂.webp"): stored(noise(1007), "WEBP"),
    }


def bad_pictures() -> dict[str, tuple[bytes, str]]:
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    frames = {"save_all": True, "append_images": [noise(3), noise(4)]}
    whole = stored(noise(5, (200, 100)), "JPEG")
    return {
        "empty.jpg": (b"", "empty file"),
        "cut.jpg": (whole[: len(whole) // 2], "unreadable picture"),
        "letter.jpg": (b"%PDF-1.7", "not a readable picture"),
        "phone.heic": (struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(99), "HEIC/HEIF"),
        "pages.tif": (stored(noise(6), "TIFF", **frames), "several frames"),
        "moving.gif": (stored(noise(7), "GIF", **frames), "several frames"),
        "bomb.png": (bomb + struct.pack(">I", 1 << 20) + b"IDAT", "too large"),
        "dot.png": (stored(noise(8, (4, 4)).resize((1, 1)), "PNG"), "too small"),
        "thread.png": (stored(noise(9, (1200, 12)), "PNG"), "too elongated"),
    }


class WithoutYo:
    """A tokenizer that loses one letter, as a vocabulary without byte fallback does."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def encode(self, text: str, add_special_tokens: bool) -> Any:
        return self.tokenizer.encode(text.replace("ё", "е"), add_special_tokens=add_special_tokens)

    def decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids))


def test_of_500_good_pictures_and_everything_bad_500_are_accepted_and_each_bad_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_formats", lambda: images.PILLOW_FORMATS)  # as without the optional HEIC reader
    raw = tmp_path / "raw"
    (raw / "lines").mkdir(parents=True)
    rows: list[tuple[str, str]] = []
    for number in range(490):
        name = f"lines/{number:03d}.jpg"
        noise(number).save(raw / name)
        rows.append((name, f"строка номер {number}"))
    for number, (name, content) in enumerate(odd_but_good().items()):
        (raw / name).write_bytes(content)
        rows.append((unicodedata.normalize("NFC", name), f"{number}.0"))
    expected = {"lost.jpg": "image not found", "": "broken row"}
    for name, (content, kind) in bad_pictures().items():
        (raw / name).write_bytes(content)
        rows.append((name, f"текст {name}"))
        expected[name] = kind
    for name, text, kind in (
        ("blank.png", " \u00a0", "empty text"),
        ("novel.png", "слово " * 3000, "text too long"),
        ("yo.png", "всё", "character"),
        ("doubt.png", "да", "named twice with different texts"),
    ):
        noise(len(expected) + 2000).save(raw / name)
        expected[name] = kind
        rows.append((name, text))
    noise(2999).save(raw / "nobody.png")
    noise(3000).save(tmp_path / "x.jpg")
    for name in ("../x.jpg", "/etc/passwd", "C:\\x.jpg"):
        rows.append((name, "чужое"))
        expected[name] = "outside data/raw"
    rows += [("lost.jpg", "нет"), ("doubt.png", "нет"), rows[0]]
    expected[rows[0][0]] = "repeated"
    for junk in (".DS_Store", "._a.jpg", "Thumbs.db"):
        (raw / junk).write_bytes(b"junk")
    with (raw / "annotations.csv").open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.writer(file, delimiter=";")
        table.writerows([("Image", "Transcription"), *rows])
        file.write('"кавычка" не там;и тут\n')

    shipped = read_params(ROOT / "params.yaml")
    model = shipped.model.model_copy(update={"name_or_path": str(ROOT / "models/base")})
    limit = SequenceLimit.of(shipped.model_copy(update={"model": model}))
    base = replace(limit.base, tokenizer=WithoutYo(limit.base.tokenizer))  # type: ignore[arg-type]
    limit = replace(limit, base=base)
    summary = prepare(raw, tmp_path / "processed", tmp_path, shipped.prepare, limit)

    assert sum(summary.samples.values()) == len(read_metadata(tmp_path / "processed")) == 500
    with (tmp_path / "rejected.csv").open(encoding="utf-8", newline="") as file:
        rejected = list(csv.DictReader(file))
    assert {row["file"]: row["reason"].partition(":")[0] for row in rejected} == expected
    assert len(rejected) == summary.rejected == len(expected) + 1  # both rows of the doubtful one
    assert all(row["row"] for row in rejected)
    waiting = (tmp_path / "waiting.csv").read_text(encoding="utf-8").splitlines()
    assert waiting == ["file,row,what", "nobody.png,,picture: no row of the annotations names it"]
