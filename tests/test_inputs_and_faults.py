"""Every bad input that people have: each row of the two tables has a test, and all of them at once do no harm."""

from __future__ import annotations

import ast
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
from ownhand.dataset.preparation import prepare
from ownhand.model.fit import SequenceLimit
from ownhand.params import read_params
from ownhand.samples import read_metadata

ROOT = Path(__file__).parent.parent

# What may come in, and the tests that say what it gets.
ANNOTATIONS = {
    "texts NA, null, None, nan, 007, 1.0, TRUE": (
        "test_annotations.test_texts_that_look_like_values_stay_exactly_as_written",
        "test_ground_truth.test_every_format_keeps_texts_exactly_and_names_rows_that_differ",
    ),
    "byte order mark": ("test_annotations.test_byte_order_mark_is_no_part_of_the_first_column",),
    "semicolon or tab as delimiter": ("test_annotations.test_delimiter_comes_from_the_header_whatever_the_texts_hold",),
    "cp1251 or another encoding": (
        "test_annotations.test_cp1251_is_an_error_that_names_the_line_and_the_parameter",
        "test_annotations.test_cp1251_is_read_when_it_is_declared",
        "test_annotations.test_utf8_declared_as_cp1251_is_an_error_and_not_a_wrong_text",
    ),
    "header missing or with other names": (
        "test_annotations.test_known_synonyms_of_the_columns_are_accepted",
        "test_annotations.test_unknown_or_missing_header_lists_the_columns_seen",
    ),
    "multi-line quoted text, quotes and commas": (
        "test_annotations.test_multi_line_texts_quotes_and_delimiters_are_kept_and_rows_are_lines_of_the_file",
    ),
    "empty or whitespace-only text": (
        "test_ground_truth.test_empty_or_whitespace_only_text_is_rejected",
        "test_ground_truth.test_every_format_rejects_empty_and_damaged_texts_and_missing_pictures_by_row",
    ),
    "text that does not fit the token limit": (
        "test_prepare.test_a_text_that_does_not_fit_is_rejected_with_its_token_count",
    ),
    "a character that the tokenizer cannot express": (
        "test_prepare.test_a_character_that_the_tokenizer_cannot_express_is_named",
    ),
    "row without image": (
        "test_ground_truth.test_row_without_image_is_rejected_with_the_nearest_name_that_still_lacks_a_row",
        "test_ground_truth.test_every_format_rejects_empty_and_damaged_texts_and_missing_pictures_by_row",
    ),
    "image without row": (
        "test_ground_truth.test_image_without_row_waits_and_is_no_rejection",
        "test_ground_truth.test_every_format_lists_pictures_that_it_does_not_name",
    ),
    "a picture or TextLine without a transcription": (
        "test_page_files.test_lines_without_text_pages_without_lines_and_pictures_without_a_page_wait",
        "test_prepare.test_what_is_untranscribed_waits_and_never_stops_the_run",
    ),
    "PAGE or ALTO with impossible numbers and nesting": (
        "test_page_files.test_one_bad_line_is_one_rejected_line_and_the_rest_is_read",
        "test_page_files.test_a_page_of_an_impossible_size_is_one_rejection",
        "test_page_files.test_a_number_of_5000_digits_as_id_of_two_lines_is_rejected_and_listed",
        "test_page_files.test_one_bad_alto_line_is_one_rejected_line_and_one_without_text_waits",
        "test_prepare.test_one_bad_line_of_a_page_is_one_rejected_line",
    ),
    "10,000 rows that name one file": ("test_rejections.test_the_list_grows_with_the_rows_and_not_with_their_square",),
    "a FIFO, socket, device, dangling or looping link": (
        "test_images.test_what_is_neither_file_nor_folder_is_named_for_what_it_is",
        "test_ground_truth.test_what_is_no_file_is_named_for_what_it_is_before_anything_is_read",
        "test_prepare.test_a_fifo_is_named_and_not_waited_for",
        "test_check.test_what_is_no_file_in_data_raw_is_a_blocker",
    ),
    "the same file named twice": (
        "test_ground_truth.test_same_file_twice_with_the_same_text_keeps_one",
        "test_ground_truth.test_same_file_twice_with_different_texts_or_pages_rejects_both",
        "test_ground_truth.test_every_format_settles_pictures_that_are_named_twice",
    ),
    "a path or link that leaves data/raw": (
        "test_ground_truth.test_paths_that_leave_the_folder_are_rejected_as_outside",
        "test_ground_truth.test_links_that_leave_the_folder_are_rejected_as_outside",
        "test_ground_truth.test_no_format_reads_files_outside_the_folder",
        "test_ground_truth.test_no_format_follows_links_out_of_the_folder",
    ),
    "NFC against NFD, letter case, spaces, Cyrillic, emoji in names": (
        "test_ground_truth.test_names_are_matched_by_normal_form",
        "test_ground_truth.test_every_format_matches_names_by_normal_form_and_letter_case",
        "test_ground_truth.test_names_that_differ_only_in_case_are_an_error_that_lists_them",
        "test_ground_truth.test_names_that_differ_only_in_unicode_form_are_an_error",
        "test_prepare.test_names_that_were_alike_once_converted_do_not_overwrite_each_other",
    ),
}
IMAGES = {
    "zero bytes": ("test_images.test_zero_bytes_are_rejected",),
    "truncated": ("test_images.test_truncated_files_are_rejected_however_much_is_there",),
    "not an image": ("test_images.test_what_is_no_image_is_rejected_with_its_first_bytes",),
    "wrong extension": ("test_images.test_wrong_extension_with_valid_content_is_read",),
    "EXIF orientation 1-8": ("test_images.test_every_exif_orientation_is_turned_upright",),
    "L, LA, P, RGBA, CMYK, 1-bit, 16-bit, 32-bit float": (
        "test_images.test_grey_and_black_and_white_become_rgb",
        "test_images.test_transparency_becomes_white_paper",
        "test_images.test_grey_with_transparency_and_palette_with_transparency_become_white_paper",
        "test_images.test_cmyk_becomes_the_same_colours",
        "test_images.test_16_bits_are_scaled_and_not_clipped",
        "test_images.test_floating_point_values_are_scaled_and_not_clipped",
    ),
    "multi-frame TIFF or GIF": ("test_images.test_files_of_several_frames_are_rejected_with_their_number",),
    "HEIC or HEIF": (
        "test_images.test_heic_without_the_optional_reader_is_rejected_with_the_package_name",
        "test_images.test_heic_with_the_optional_reader_is_read",
    ),
    "decompression bomb": ("test_images.test_decompression_bomb_is_rejected_before_it_is_decoded",),
    "1 x 1 px": ("test_images.test_one_pixel_is_rejected_with_size_and_limit",),
    "extreme aspect": ("test_images.test_extreme_aspect_is_rejected_with_ratio_and_limit",),
    "system files and sub-folders": (
        "test_images.test_sub_folders_are_walked_and_system_files_ignored",
        "test_ground_truth.test_system_files_are_neither_read_nor_listed",
    ),
    "the same picture twice or re-saved": (
        "test_prepare.test_a_copied_or_resaved_picture_never_stands_on_both_sides",
        "test_duplicates.test_resaved_copies_are_found",
        "test_duplicates.test_resized_copies_are_found",
    ),
}


@pytest.mark.parametrize(("row", "tests"), [*ANNOTATIONS.items(), *IMAGES.items()])
def test_every_row_of_the_tables_has_its_tests(row: str, tests: tuple[str, ...]) -> None:
    assert tests, row
    for test in tests:
        module, _, name = test.partition(".")
        tree = ast.parse((ROOT / f"tests/{module}.py").read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{row}: {test}"


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
    monkeypatch.setattr(images, "_formats", lambda: images.FORMATS)  # as without the optional HEIC reader
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
    summary = prepare(raw, tmp_path / "processed", tmp_path, shipped.prepare, limit, workers=1)

    assert sum(summary.samples.values()) == len(read_metadata(tmp_path / "processed")) == 500
    with (tmp_path / "rejected.csv").open(encoding="utf-8", newline="") as file:
        rejected = list(csv.DictReader(file))
    assert {row["file"]: row["reason"].partition(":")[0] for row in rejected} == expected
    assert len(rejected) == summary.rejected == len(expected) + 1  # both rows of the doubtful one
    assert all(row["row"] for row in rejected)
    waiting = (tmp_path / "waiting.csv").read_text(encoding="utf-8").splitlines()
    assert waiting == ["file,row,what", "nobody.png,,picture: no row of the annotations names it"]
