"""Prepare: what people have becomes samples; nothing is lost without being named."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from stages.lib.failures import Refusal
from stages.lib.fit import SequenceLimit
from stages.lib.params import PrepareParams, read_params
from stages.prepare import Summary, prepare

ROOT = Path(__file__).parent.parent
PARAMS = PrepareParams(
    encoding="utf-8",
    max_side_px=300,
    min_side_px=8,
    max_pixels=1_000_000,
    max_aspect=30.0,
    val_share=0.25,
    max_rejected_share=0.5,
    seed=7,
)


@pytest.fixture
def limit(model_folder: Path) -> SequenceLimit:
    params = read_params(ROOT / "params.yaml")
    model = params.model.model_copy(update={"name_or_path": str(model_folder)})
    return SequenceLimit.of(params.model_copy(update={"model": model}))


def picture(path: Path, mark: str, size: tuple[int, int] = (200, 40)) -> None:
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for i, character in enumerate(mark):  # a pattern that belongs to this picture alone
        draw.rectangle((10 * i + 2, ord(character) % 23, 10 * i + 8, ord(character) % 23 + 12), fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def raw_folder(folder: Path, rows: list[tuple[str, str, str]]) -> Path:
    for name, text, _ in rows:
        picture(folder / name, hashlib.sha256(f"{name}{text}".encode()).hexdigest()[:18])
    with (folder / "annotations.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("filename", "text", "page"), *rows])
    return folder


def run(tmp_path: Path, limit: SequenceLimit, params: PrepareParams = PARAMS) -> Summary:
    return prepare(tmp_path / "raw", tmp_path / "processed", tmp_path / "rejected.csv", params, limit)


def rejected(tmp_path: Path) -> list[dict[str, str]]:
    with (tmp_path / "rejected.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


ROWS = [(f"стр {i // 2}/{i}.png", f"строка номер {i}", f"p{i // 2}") for i in range(12)]


def test_samples_are_upright_pictures_with_their_facts(tmp_path: Path, limit: SequenceLimit) -> None:
    raw_folder(tmp_path / "raw", ROWS)
    picture(tmp_path / "raw/стр 0/0.png", "wide", size=(900, 90))
    summary = run(tmp_path, limit)
    assert str(summary).startswith("prepare: read 12 rows and 12 images; wrote ")
    samples = json.loads((tmp_path / "processed/metadata.json").read_text(encoding="utf-8"))
    assert [sample["image_id"] for sample in samples] == [f"{i:05d}" for i in range(1, 13)]
    for sample, (name, text, page) in zip(samples, ROWS, strict=True):
        assert (sample["original_filename"], sample["text"], sample["page"]) == (name, text, page)
        path = Path(sample["image_path"])
        assert path == tmp_path / "processed" / sample["split"] / "images" / f"{sample['image_id']}.jpg"
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sample["sha256"]
        with Image.open(path) as image:
            assert (image.width, image.height) == (sample["width"], sample["height"])
    assert (samples[0]["width"], samples[0]["height"]) == (300, 30)
    sides = {split: {s["page"] for s in samples if s["split"] == split} for split in ("train", "val")}
    assert sides["train"] and sides["val"] and not sides["train"] & sides["val"]
    assert not rejected(tmp_path)


def test_a_text_that_does_not_fit_is_rejected_with_its_token_count(
    tmp_path: Path, limit: SequenceLimit
) -> None:
    raw_folder(tmp_path / "raw", [*ROWS, ("long.png", "слово " * 60, "px")])
    run(tmp_path, replace(limit, max_tokens=200))
    (row,) = rejected(tmp_path)
    assert row["file"] == "long.png"
    assert row["reason"].startswith("text too long: ") and "limit is 200" in row["reason"]
    assert len(json.loads((tmp_path / "processed/metadata.json").read_text(encoding="utf-8"))) == 12
    assert len(list((tmp_path / "processed").rglob("*.jpg"))) == 12


def test_a_character_that_the_tokenizer_cannot_express_is_named(tmp_path: Path, limit: SequenceLimit) -> None:
    class WithoutYo:
        """A tokenizer that loses one letter, as a vocabulary without byte fallback does."""

        def encode(self, text: str, add_special_tokens: bool) -> object:
            return limit.tokenizer.encode(text.replace("ё", "е"), add_special_tokens=add_special_tokens)

        def decode(self, ids: list[int]) -> str:
            return str(limit.tokenizer.decode(ids))

    raw_folder(tmp_path / "raw", [*ROWS, ("yo.png", "всё", "px")])
    run(tmp_path, replace(limit, tokenizer=WithoutYo()))  # type: ignore[arg-type]
    assert rejected(tmp_path) == [
        {
            "file": "yo.png",
            "row": "14",
            "reason": "character: the tokenizer cannot express 'ё' (CYRILLIC SMALL LETTER IO)",
        }
    ]


def test_too_many_rejections_stop_the_run_and_leave_the_list(tmp_path: Path, limit: SequenceLimit) -> None:
    raw_folder(tmp_path / "raw", ROWS)
    for i in range(7):
        (tmp_path / f"raw/стр {i // 2}/{i}.png").write_bytes(b"")
    with pytest.raises(Refusal, match=r"7 of 12 samples are rejected.*50%(?s:.*)7 x empty file"):
        run(tmp_path, limit)
    assert len(rejected(tmp_path)) == 7
    assert not (tmp_path / "processed").exists()


def test_what_an_earlier_run_left_is_gone(tmp_path: Path, limit: SequenceLimit) -> None:
    raw_folder(tmp_path / "raw", ROWS)
    stale = tmp_path / "processed/train/images/99999.jpg"
    stale.parent.mkdir(parents=True)
    stale.touch()
    run(tmp_path, limit)
    assert not stale.exists()


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, limit: SequenceLimit) -> None:
    raw_folder(tmp_path / "raw", ROWS)
    run(tmp_path, limit)
    first = (tmp_path / "processed/metadata.json").read_bytes()
    run(tmp_path, limit)
    assert (tmp_path / "processed/metadata.json").read_bytes() == first
