"""The stage as a whole: a folder of photographs in, samples out, nothing lost."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ownhand.samples
import stages.prepare
from demo.drawing import Hand, draw_line
from ownhand.correction.queue import OpenLines
from ownhand.correction.store import Store
from ownhand.dataset.splits import SplitError
from ownhand.errors import Refusal, run_stage
from ownhand.ground_truth.records import GroundTruthError, Record
from ownhand.model.fit import SequenceLimit
from ownhand.params import PrepareParams, read_params
from ownhand.samples import metadata_file, read_metadata, write_metadata
from stages.prepare import Summary, name_pages, prepare

ROOT = Path(__file__).parent.parent
FONT = ROOT / "demo/fonts/demo_hand/bad-script-regular.woff2"
FOUR_PHOTOS = ROOT.parent / "shared/real-handwriting"
PARAMS = PrepareParams(
    encoding="utf-8",
    max_side_px=300,
    min_side_px=8,
    max_pixels=1_000_000,
    max_aspect=30.0,
    val_share=0.25,
    test_share=0.0,
    val=None,
    test=None,
    same_text_characters=10,
    max_rejected_share=0.2,
    seed=7,
)


Run = Callable[..., Summary]


def params(**changes: Any) -> PrepareParams:
    return PrepareParams(**{**PARAMS.model_dump(), **changes})


def save_line(path: Path, text: str, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_line(text, FONT, Hand(grain=2), np.random.default_rng(seed), 40).save(path)


def write_table(raw: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("filename", "text", "page")) -> None:
    with (raw / "annotations.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Twelve lines on four pages."""
    raw = tmp_path / "raw"
    rows = []
    for number in range(12):
        name, text = f"p{number // 3}/стр {number}.png", f"это строка {number}"
        save_line(raw / name, text, number)
        rows.append((name, text, f"p{number // 3}"))
    write_table(raw, rows)
    return raw


@pytest.fixture
def limit(model_folder: Path) -> SequenceLimit:
    shipped = read_params(ROOT / "params.yaml")
    model = shipped.model.model_copy(update={"name_or_path": str(model_folder)})
    return SequenceLimit.of(shipped.model_copy(update={"model": model}))


@pytest.fixture
def run(raw: Path, limit: SequenceLimit) -> Run:
    """Prepare `raw` with some parameters changed."""

    def prepare_raw(limit: SequenceLimit = limit, **changes: Any) -> Summary:
        return prepare(raw, raw.parent / "processed", raw.parent / "metrics", params(**changes), limit)

    return prepare_raw


def metadata(raw: Path) -> list[dict[str, Any]]:
    return [asdict(sample) for sample in read_metadata(raw.parent / "processed")]


def rejected(raw: Path) -> list[dict[str, str]]:
    with (raw.parent / "metrics/rejected.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def add_rows(raw: Path, *rows: tuple[str, str, str]) -> None:
    with (raw / "annotations.csv").open("a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_line_becomes_a_sample_that_the_other_stages_can_read(raw: Path, run: Run) -> None:
    summary = run()
    processed = raw.parent / "processed"
    assert str(summary) == (
        "prepare: read 12 rows and 12 images; wrote 9 train + 3 val samples (3 + 1 pages); "
        f"rejected 0 ({(raw.parent / 'metrics/rejected.csv').as_posix()})"
    )
    samples = read_metadata(processed)
    assert [sample.image_id for sample in samples] == [f"{number:05d}" for number in range(1, 13)]
    assert [sample.text for sample in samples] == [f"это строка {number}" for number in range(12)]
    for number, sample in enumerate(samples):
        path = processed / sample.split / "images" / f"{sample.image_id}.jpg"
        assert sample.image_path == path.as_posix()
        assert sample.original_filename == f"p{number // 3}/стр {number}.png"
        assert sample.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (sample.width, sample.height))
    assert sum(path.is_file() for path in processed.rglob("*")) == 12 + 4
    assert {path.name for path in processed.iterdir()} == {"train", "val", "train.txt", "val.txt"}
    assert (raw.parent / "metrics/waiting.csv").read_bytes() == b"file,row,what\n"
    assert (raw.parent / "metrics/rejected.csv").read_bytes() == b"file,row,reason\n"


def test_paths_are_posix_and_relative_to_where_the_stage_runs(
    raw: Path, limit: SequenceLimit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(raw.parent)
    prepare(Path("raw"), Path("data/processed"), Path("metrics"), PARAMS, limit)
    assert {sample.image_path for sample in read_metadata(Path("data/processed"))} <= {
        f"data/processed/{side}/images/{number:05d}.jpg" for side in ("train", "val") for number in range(1, 13)
    }


def test_texts_are_nfc_and_keep_their_lines(raw: Path, run: Run) -> None:
    save_line(raw / "new.png", "мой", 50)
    add_rows(raw, ("new.png", " мо\u0438\u0306\r\nдом  ", "p9"))
    run()
    assert metadata(raw)[-1]["text"] == "мой\nдом"


def test_the_same_input_gives_the_same_bytes_whatever_was_there_before(raw: Path, run: Run) -> None:
    processed = raw.parent / "processed"
    run()
    before = tree(processed)
    (processed / "train/images/99999.jpg").write_bytes(b"of an earlier run")
    run()
    assert tree(processed) == before


def test_longest_side_is_a_parameter(raw: Path, run: Run) -> None:
    run(max_side_px=100)
    assert max(max(sample["width"], sample["height"]) for sample in metadata(raw)) == 100


def test_share_and_seed_choose_the_validation_pages(raw: Path, run: Run) -> None:
    assert run(val_share=0.5).pages == {"train": 2, "val": 2}
    chosen = set()
    for seed in range(8):
        run(seed=seed)
        chosen.add(frozenset(sample["page"] for sample in metadata(raw) if sample["split"] == "val"))
    assert len(chosen) > 1


def test_encoding_is_a_parameter_and_its_name_is_in_the_error(raw: Path, run: Run) -> None:
    content = (raw / "annotations.csv").read_text(encoding="utf-8")
    (raw / "annotations.csv").write_text(content, encoding="cp1251", newline="")
    with pytest.raises(GroundTruthError, match=r"prepare\.encoding"):
        run()
    assert run(encoding="cp1251").samples == {"train": 9, "val": 3}


def test_bad_pictures_and_rows_are_rejected_by_name_and_the_good_ones_kept(raw: Path, run: Run) -> None:
    good = (raw / "p0/стр 0.png").read_bytes()
    bad: dict[str, tuple[bytes, str]] = {
        "empty.jpg": (b"", "empty file"),
        "cut.png": (good[: len(good) // 2], "unreadable picture"),
        "page.pdf": (b"%PDF-1.7", "not a readable picture"),
    }
    for name, (content, _) in bad.items():
        (raw / name).write_bytes(content)
    for name, size in {"dot.png": (1, 1), "bomb.png": (1200, 1200), "thread.png": (900, 20)}.items():
        Image.new("1", size).save(raw / name)
    Image.new("L", (50, 50)).save(raw / "film.tif", save_all=True, append_images=[Image.new("L", (50, 50))] * 4)
    Image.new("L", (50, 50)).save(raw / "nobody.png")
    names = [*bad, "dot.png", "bomb.png", "thread.png", "film.tif"]
    add_rows(
        raw,
        *((name, f"плохой {name}", "bad") for name in names),
        ("gone.png", "нет", "bad"),
        ("p0/стр 0.png", "", "p0"),
    )
    summary = run(max_rejected_share=0.5)
    kinds = {row["file"]: (row["row"], row["reason"].partition(":")[0]) for row in rejected(raw)}
    assert kinds == {
        "empty.jpg": ("14", "empty file"),
        "cut.png": ("15", "unreadable picture"),
        "page.pdf": ("16", "not a readable picture"),
        "dot.png": ("17", "too small"),
        "bomb.png": ("18", "too large"),
        "thread.png": ("19", "too elongated"),
        "film.tif": ("20", "several frames"),
        "gone.png": ("21", "image not found"),
        "p0/стр 0.png": ("22", "empty text"),
    }
    assert (summary.rows, summary.images, sum(summary.samples.values()), summary.rejected) == (21, 20, 12, 9)
    assert summary.waiting == 1


def test_limits_of_size_and_shape_are_parameters(raw: Path, run: Run) -> None:
    for change, kind in (
        ({"min_side_px": 60}, "too small"),
        ({"max_pixels": 1000}, "too large"),
        ({"max_aspect": 1.5}, "too elongated"),
    ):
        with pytest.raises(Refusal, match=f"12 x {kind}"):
            run(**change)


def test_a_text_that_does_not_fit_is_rejected_with_its_token_count(raw: Path, run: Run, limit: SequenceLimit) -> None:
    save_line(raw / "long.png", "слово", 50)
    add_rows(raw, ("long.png", "слово " * 60, "px"))
    run(limit=replace(limit, max_tokens=200))
    (row,) = rejected(raw)
    assert row["file"] == "long.png"
    assert row["reason"].startswith("text too long: ") and "limit is 200" in row["reason"]
    assert len(metadata(raw)) == len(list((raw.parent / "processed").rglob("*.jpg"))) == 12


def test_a_character_that_the_tokenizer_cannot_express_is_named(raw: Path, run: Run, limit: SequenceLimit) -> None:
    class WithoutYo:
        """A tokenizer that loses one letter, as a vocabulary without byte fallback does."""

        def encode(self, text: str, add_special_tokens: bool) -> object:
            return limit.base.tokenizer.encode(text.replace("ё", "е"), add_special_tokens=add_special_tokens)

        def decode(self, ids: list[int]) -> str:
            return str(limit.base.tokenizer.decode(ids))

    save_line(raw / "yo.png", "всё", 50)
    add_rows(raw, ("yo.png", "всё", "px"))
    run(limit=replace(limit, base=replace(limit.base, tokenizer=WithoutYo())))  # type: ignore[arg-type]
    reason = "character: the tokenizer cannot express 'ё' (CYRILLIC SMALL LETTER IO)"
    assert rejected(raw) == [{"file": "yo.png", "row": "14", "reason": reason}]


def test_a_text_that_the_tokenizer_alters_as_a_whole_is_rejected_though_each_character_survives(
    raw: Path, run: Run, limit: SequenceLimit
) -> None:
    class WithoutDoubleLetters:
        """A tokenizer that makes one letter of two equal ones."""

        def encode(self, text: str, add_special_tokens: bool) -> object:
            return limit.base.tokenizer.encode(text.replace("нн", "н"), add_special_tokens=add_special_tokens)

        def decode(self, ids: list[int]) -> str:
            return str(limit.base.tokenizer.decode(ids))

    save_line(raw / "long.png", "длинный день", 50)
    add_rows(raw, ("long.png", "длинный день", "px"))
    run(limit=replace(limit, base=replace(limit.base, tokenizer=WithoutDoubleLetters())))  # type: ignore[arg-type]
    reason = "characters: the tokenizer makes 'длиный день' of this text"
    assert rejected(raw) == [{"file": "long.png", "row": "14", "reason": reason}]


def test_names_of_special_tokens_are_kept_as_they_were_written(raw: Path, run: Run) -> None:
    text = "<image> и <｜end▁of▁sentence｜>"
    save_line(raw / "odd.png", "слово", 50)
    add_rows(raw, ("odd.png", text, "px"))
    run()
    assert rejected(raw) == [] and text in [sample["text"] for sample in metadata(raw)]


def test_too_many_rejections_stop_the_run_with_the_list_written_first(raw: Path, run: Run) -> None:
    run()
    add_rows(raw, *((f"none{number}.png", "текст", "p0") for number in range(4)), ("p0/стр 0.png", " ", "p0"))
    with pytest.raises(
        Refusal, match=r"5 of 17 samples are rejected, prepare\.max_rejected_share allows 20%"
    ) as caught:
        run()
    assert "4 x image not found, such as row 14, 'none0.png'" in str(caught.value)
    assert len(rejected(raw)) == 5
    assert not (raw.parent / "processed").exists()
    assert run(max_rejected_share=0.3).rejected == 5


def test_what_is_untranscribed_waits_and_never_stops_the_run(
    raw: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(30):
        save_line(raw / f"more/{number:02d}.png", "текст", number)
    summary = run(max_rejected_share=0.0)
    assert (summary.rejected, summary.waiting) == (0, 30)
    assert rejected(raw) == []
    said = [line for line in capsys.readouterr().out.splitlines() if "without a transcription" in line]
    listed = raw.parent / "metrics/waiting.csv"
    assert said == [
        f"prepare: 30 pictures without a transcription ({listed.as_posix()}); they wait, nothing is wrong with them"
    ]
    rows = listed.read_text(encoding="utf-8").splitlines()
    assert rows[1] == "more/00.png,,picture: no row of the annotations names it" and len(rows) == 31


def test_what_a_person_has_set_aside_neither_waits_nor_is_rejected(
    raw: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("illegible", "blank", "later", "never seen"):
        save_line(raw / f"{name}.png", "текст", 1)
    with (raw / "annotations.csv").open("a", encoding="utf-8") as table:
        table.write("illegible.png,,\nlater.png,вновь написано,p9\n")
    store = Store(OpenLines(raw, "utf-8"), raw.parent)
    store.set_aside(store.lines.by_name["illegible.png"], "", "unreadable")
    store.set_aside(store.lines.by_name["blank.png"], "", "not a line")
    with (raw / "set_aside.csv").open("a", encoding="utf-8") as table:
        table.write("later.png,unreadable\nno longer there.png,unreadable\n")
    summary = run(max_rejected_share=0.0)
    assert (summary.rejected, summary.waiting, sum(summary.samples.values())) == (0, 1, 13)
    assert rejected(raw) == []
    assert "never seen.png" in (raw.parent / "metrics/waiting.csv").read_text(encoding="utf-8")
    said = [line for line in capsys.readouterr().out.splitlines() if "set aside" in line]
    assert said == [f"prepare: 2 set aside as no ground truth ({(raw / 'set_aside.csv').as_posix()})"]
    (raw / "set_aside.csv").write_bytes(b"\xff")
    with pytest.raises(Refusal, match=r"set_aside\.csv is no table in UTF-8"):
        run()


def test_where_everything_waits_there_is_a_list_and_a_sentence(raw: Path, run: Run) -> None:
    write_table(raw, [])
    with pytest.raises(Refusal, match="nothing to prepare; 12 wait for their transcription"):
        run()
    assert len((raw.parent / "metrics/waiting.csv").read_text(encoding="utf-8").splitlines()) == 13


def test_one_bad_line_of_a_page_is_one_rejected_line(raw: Path, run: Run) -> None:
    (raw / "annotations.csv").unlink()
    polygons = ["0,0 50,0 50,30 0,30", "0,0 1e999,0 50,30", "900,900 950,900 950,950", "-9,-9 50,-9 50,30 -9,30"]
    for number in range(12):
        lines = "".join(
            f'<TextLine id="{part}"><Coords points="{polygon}"/>'
            f"<TextEquiv><Unicode>часть {part} строки {number}</Unicode></TextEquiv></TextLine>"
            for part, polygon in enumerate(polygons)
        )
        content = f'<PcGts><Page imageFilename="стр {number}.png">{lines}</Page></PcGts>'
        (raw / f"p{number // 3}/{number}.xml").write_text(content, encoding="utf-8")
    assert run(max_rejected_share=0.5).rejected == 24
    assert {row["row"].partition("#")[2]: row["reason"].partition(":")[0] for row in rejected(raw)} == {
        "1": "bad number",
        "2": "no region",
    }
    assert {sample["original_filename"].partition("#")[2] for sample in metadata(raw)} == {"0", "3"}


def test_a_copied_or_resaved_picture_never_stands_on_both_sides(
    raw: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(raw / "p0/стр 0.png", raw / "copy.png")
    with Image.open(raw / "p1/стр 3.png") as image:
        image.convert("RGB").resize((image.width * 2 // 3, image.height * 2 // 3)).save(raw / "small.jpg", quality=70)
    add_rows(raw, ("copy.png", "копия первой", ""), ("small.jpg", "копия второй", ""))
    for seed in range(6):
        run(seed=seed, val_share=0.5)
        sides = {sample["original_filename"]: sample["split"] for sample in metadata(raw)}
        assert sides["copy.png"] == sides["p0/стр 0.png"]
        assert sides["small.jpg"] == sides["p1/стр 3.png"]
    assert "p0/стр 0.png and copy.png hold the same picture; their pages stay together" in capsys.readouterr().out


def test_each_sample_says_what_it_stays_together_with(raw: Path, run: Run) -> None:
    save_line(raw / "other page.png", "это строка 4", 99)
    add_rows(raw, ("other page.png", "это строка 4", "p8"))  # the text of the fifth line, which is on p1
    run()
    groups = [sample.group for sample in read_metadata(raw.parent / "processed")]
    assert groups == [*["00001"] * 3, *["00004"] * 3, *["00007"] * 3, *["00010"] * 3, "00004"]


def test_lines_are_cut_from_pages_that_page_xml_describes(
    raw: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (raw / "annotations.csv").unlink()
    for number in range(12):  # each line is a page of two lines now
        with Image.open(raw / f"p{number // 3}/стр {number}.png") as image:
            width, height = image.size
        lines = "".join(
            f'<TextLine id="l{part}"><Coords points="{left},0 {left + width // 2},0 {left + width // 2},{height} '
            f'{left},{height}"/><TextEquiv><Unicode>часть {part} строки {number}</Unicode></TextEquiv></TextLine>'
            for part, left in enumerate((0, width // 2))
        )
        (raw / f"p{number // 3}/{number}.xml").write_text(
            f'<PcGts><Page imageFilename="стр {number}.png" imageWidth="{width}" imageHeight="{height}">{lines}</Page>'
            "</PcGts>",
            encoding="utf-8",
        )
    assert run().pages == {"train": 9, "val": 3}
    assert "ground truth is read as PAGE XML from 12 files, such as p0/0.xml" in capsys.readouterr().out
    samples = metadata(raw)
    assert len(samples) == 24
    assert samples[1]["original_filename"] == "p0/стр 0.png#l1"
    assert samples[1]["page"] == "p0/стр 0.png"
    assert samples[1]["text"] == "часть 1 строки 0"
    with Image.open(raw / "p0/стр 0.png") as page, Image.open(samples[1]["image_path"]) as line:
        half = np.asarray(page.convert("RGB"), float)[:, page.width // 2 :][:, : line.width]
        assert np.abs(np.asarray(line, float) - half).mean() < 8


def split_proof(raw: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((raw.parent / "metrics/split.json").read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("greeting", ["Здравствуй, мама!", "Здравствуйте, дорогие мама и папа!"])
def test_letters_with_one_greeting_are_split_by_letter_and_the_proof_says_what_it_allows(
    raw: Path, run: Run, capsys: pytest.CaptureFixture[str], greeting: str
) -> None:
    rows = []
    for letter in range(12):
        for line, text in enumerate((greeting, f"пишу в {letter} раз", f"у нас {letter} градусов тепла", "Алёша")):
            save_line(raw / f"l{letter}/{line}.png", text, 100 * line + letter)
            rows.append((f"l{letter}/{line}.png", text, f"l{letter}"))
    write_table(raw, rows)
    assert run().samples == {"train": 36, "val": 12}
    assert len({sample["group"] for sample in metadata(raw)}) == 12
    proof = split_proof(raw)
    assert proof["checks"]["held_out_samples_with_a_trained_text"] == 6
    assert proof["checks"]["recurring_texts"] == 2
    assert {
        (row["text"], row["pages"], row["train"], row["val"]) for row in proof["allowed_on_both_sides"]["texts"]
    } == {
        (greeting, 12, 9, 3),
        ("Алёша", 12, 9, 3),
    }
    assert "prepare: note: 6 of 12 held-out samples have a text that is trained on, too" in capsys.readouterr().out


def test_the_split_is_recorded_with_its_proof(raw: Path, run: Run) -> None:
    run()
    proof = split_proof(raw)
    assert {side: (own["samples"], own["pages"]) for side, own in proof["sides"].items()} == {
        "train": (9, 3),
        "val": (3, 1),
    }
    for side in ("train", "val"):
        listed = (raw.parent / f"processed/{side}.txt").read_bytes()
        assert hashlib.sha256(listed).hexdigest() == proof["sides"][side]["sha256_of_names"]
        own = sorted(sample["original_filename"] for sample in metadata(raw) if sample["split"] == side)
        assert listed.decode().splitlines() == own
    assert proof["chosen_by"] == {"val": "prepare.val_share 0.25 and prepare.seed 7"}
    assert set(proof["checks"].values()) == {0}


def test_a_split_is_frozen_by_the_list_that_an_earlier_run_wrote(raw: Path, run: Run) -> None:
    run()
    before = split_proof(raw)["sides"]["val"]
    shutil.copy(raw.parent / "processed/val.txt", raw / "val.txt")
    for number in range(12, 30):
        save_line(raw / f"new/{number}.png", f"новая строка {number}", number)
        add_rows(raw, (f"new/{number}.png", f"новая строка {number}", f"новая {number}"))
    for seed in range(3):
        assert run(val="val.txt", seed=seed).samples == {"train": 27, "val": 3}
        assert split_proof(raw)["sides"]["val"] == before | {
            "characters_not_in_training": split_proof(raw)["sides"]["val"]["characters_not_in_training"]
        }
    assert split_proof(raw)["chosen_by"] == {"val": "the list val.txt"}


def test_what_would_leak_from_a_frozen_page_is_left_out_by_name(raw: Path, run: Run) -> None:
    (raw / "val.txt").write_text("p2\n", encoding="utf-8")
    save_line(raw / "again.png", "это строка 6", 90)
    add_rows(raw, ("again.png", "это строка 6", "p9"))
    summary = run(val="val.txt")
    assert (summary.samples, summary.rejected) == ({"train": 9, "val": 3}, 1)
    reason = "left out: it shares a text or a picture with p2/стр 6.png, which prepare.val freezes"
    assert rejected(raw) == [{"file": "again.png", "row": "14", "reason": reason}]
    assert len(list((raw.parent / "processed").rglob("*.jpg"))) == 12


def test_test_samples_are_where_no_stage_looks(raw: Path, run: Run) -> None:
    assert run(test_share=0.25).samples == {"train": 6, "val": 3, "test": 3}
    assert {sample["split"] for sample in metadata(raw)} == {"train", "val"}
    test = read_metadata(raw.parent / "processed", ["test"])
    assert len(test) == 3
    assert all(Path(sample.image_path).is_file() and sample.split == "test" for sample in test)
    assert not {sample.page for sample in test} & {sample["page"] for sample in metadata(raw)}


def test_names_that_were_alike_once_converted_do_not_overwrite_each_other(raw: Path, run: Run) -> None:
    for number, name in enumerate(("x/a.png", "y/a.png", "x/a.jpg", "x a.png")):
        save_line(raw / name, "другой текст", 70 + number)
        add_rows(raw, (name, f"текст {number}", ""))
    assert sum(run().samples.values()) == 16
    assert len({sample["image_path"] for sample in metadata(raw)}) == 16
    assert len({sample["sha256"] for sample in metadata(raw)}) == 16


def transcribed(name: str, page: str = "") -> Record:
    return Record(2, name, "текст", page)


def test_a_sample_without_a_page_is_its_own_page() -> None:
    names = [transcribed("a.jpg"), transcribed("sub/a.jpg"), transcribed("b.jpg", "p1"), transcribed("v1.2.jpg")]
    assert name_pages(names) == ["a", "sub/a", "p1", "v1.2"]


def test_own_pages_of_equal_names_stay_apart() -> None:
    names = [transcribed("a.jpg"), transcribed("a.png"), transcribed("p1.jpg"), transcribed("x.jpg", "p1")]
    assert name_pages(names) == ["a.jpg", "a.png", "p1.jpg", "p1"]


def test_one_page_alone_cannot_be_split_and_leaves_nothing_behind(raw: Path, run: Run) -> None:
    write_table(raw, [("p0/стр 0.png", "раз", "p"), ("p0/стр 1.png", "два", "p")])
    with pytest.raises(SplitError, match="make one group"):
        run()
    assert not (raw.parent / "processed").exists()


def test_a_run_that_breaks_leaves_no_metadata_behind(raw: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run()

    def full_disk(path: Path, value: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ownhand.samples, "write_json", full_disk)
    with pytest.raises(OSError, match="No space left"):
        run()
    assert not list((raw.parent / "processed").rglob("metadata.json"))


def test_texts_that_stand_in_a_text_of_the_other_side_are_told(
    raw: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(
        raw,
        [
            ("p0/стр 0.png", "миновало почти десятилетие", "a"),
            ("p0/стр 1.png", "Миновало почти десятилетие с тех пор", "b"),
        ],
    )
    run()
    assert (
        "warning: the text of p0/стр 0.png (train) stands inside that of p0/стр 1.png (val)" in capsys.readouterr().out
    )


@pytest.mark.skipif(not FOUR_PHOTOS.is_dir(), reason=f"the first user's photographs are not in {FOUR_PHOTOS}")
def test_the_four_photographs_of_the_first_user_make_three_and_one(tmp_path: Path, limit: SequenceLimit) -> None:
    shutil.copytree(FOUR_PHOTOS, tmp_path / "raw", copy_function=shutil.copyfile)
    for seed in range(5):
        shipped = read_params(ROOT / "params.yaml").prepare.model_dump()
        changed = PrepareParams(**{**shipped, "seed": seed})
        summary = prepare(tmp_path / "raw", tmp_path / "processed", tmp_path, changed, limit)
        assert (summary.samples, summary.rejected) == ({"train": 3, "val": 1}, 0)
        assert summary.pages == summary.samples
        samples = {sample.page: sample for sample in read_metadata(tmp_path / "processed")}
        assert set(samples) == {"test_000", "test_001", "test_002", "test_003"}
        assert (samples["test_000"].width, samples["test_000"].height) == (2600, 1708)
        assert samples["test_000"].split == samples["test_003"].split == "train"


def test_the_stage_ends_with_one_line_or_with_a_message_and_exit_code_1(
    raw: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(raw.parent)
    shutil.copytree(raw, "data/raw")
    shipped = (ROOT / "params.yaml").read_text(encoding="utf-8")
    changed = shipped.replace("name_or_path: models/base", f"name_or_path: '{model_folder.as_posix()}'")
    Path("params.yaml").write_text(changed, encoding="utf-8")
    run_stage(stages.prepare.main)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("prepare: read 12 rows and 12 images; wrote 9 train + 3 val samples (3 + 1 pages); ")
    assert last.endswith("rejected 0 (metrics/rejected.csv)")
    shutil.copyfile(ROOT / "dvc.yaml", "dvc.yaml")
    split = stages.prepare.prepare
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(
            stages.prepare, "prepare", lambda *a, **more: (Path("data/raw/new.jpg").touch(), split(*a, **more))
        )
        run_stage(stages.prepare.main)
    assert "data/raw/new.jpg changed while prepare ran" in capsys.readouterr().err
    Path("data/raw/annotations.csv").write_text("a.jpg,текст\n", encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        run_stage(stages.prepare.main)
    assert ended.value.code == 1
    assert "Columns seen: 'a.jpg', 'текст'" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[{", "{}x", '[{"image_id": "1"}]', "[7]", "[" * 100_000])
def test_a_damaged_metadata_file_is_named_with_what_makes_it_anew(tmp_path: Path, content: str) -> None:
    write_metadata([], tmp_path)
    metadata_file("val", tmp_path).write_text(content, encoding="utf-8")
    with pytest.raises(Refusal, match=r"val/metadata\.json .*dvc repro --force --single-item prepare"):
        read_metadata(tmp_path)
