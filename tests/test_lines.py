"""Lines of photographed pages: what is made of coarse boxes, and what the command writes and leaves alone."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from benchmarks.line_finding import Counts, compare
from demo.pages import Conditions, DrawnPage, draw_page
from ownhand.dataset.conversion import OpenPage
from ownhand.errors import Refusal
from ownhand.folders import find_files
from ownhand.ground_truth.alto_xml import FORMAT as ALTO
from ownhand.ground_truth.page_xml import FORMAT as PAGE
from ownhand.ground_truth.records import Record
from ownhand.images import ImageLimits
from ownhand.pages.detector import MISSING, load_detector
from ownhand.pages.geometry import FoundLine, TurnedPage, trace_lines
from ownhand.pages.ink import measure_ink
from ownhand.pages.lines import find_lines

ROOT = Path(__file__).parent.parent
FONT = ROOT / "demo/fonts/demo_hand/bad-script-regular.woff2"
TEXTS = ["Утро серое, но доброе.", "Гуляла с Альмой в парке,", "встретила Риту у пруда.", "К 6 часам пекла шарлотку.",
         "Дорогой друг, пишу", "из деревни, где тихо"]  # fmt: skip
LIMITS = ImageLimits(max_side_px=4000, min_side_px=4, max_pixels=50_000_000, max_aspect=200)
needs_detector = pytest.mark.skipif(
    importlib.util.find_spec("rapidocr") is None or importlib.util.find_spec("onnxruntime") is None,
    reason="rapidocr and onnxruntime, the extra ownhand[lines], are not installed",
)


@cache
def page(conditions: Conditions = Conditions(), lines: int = len(TEXTS)) -> DrawnPage:  # noqa: B008 # frozen
    return draw_page(TEXTS[:lines], FONT, conditions, np.random.default_rng(4))


def level_box(points: np.ndarray, widen: float = 6) -> np.ndarray:
    """What a detector gives for a line: its frame, level even where the line rises."""
    (left, upper), (right, lower) = points.min(axis=0) - widen, points.max(axis=0) + widen
    return np.array([(left, upper), (right, upper), (right, lower), (left, lower)])


def boxes_of(drawn: DrawnPage) -> np.ndarray:
    return np.array([level_box(line.ink) for line in drawn.lines])


def counts(drawn: DrawnPage, blocks: list[list[FoundLine]]) -> Counts:
    polygons = [line.polygon for block in blocks for line in block]
    return compare(drawn.picture.size, [line.ink for line in drawn.lines], polygons)


@pytest.mark.parametrize(
    "conditions",
    [
        Conditions(),
        Conditions("lines", degrees=3, bend=0.4),
        Conditions("grid", degrees=-5, perspective=0.02, shadow=0.5),
        Conditions("grid", degrees=2, columns=2),
    ],
)
def test_level_boxes_become_polygons_that_hold_their_line_and_little_of_others(conditions: Conditions) -> None:
    drawn = page(conditions)
    seen = counts(drawn, trace_lines(drawn.picture, boxes_of(drawn)))
    assert (seen.found, seen.polygons, seen.joined, seen.cut) == (len(TEXTS), len(TEXTS), 0, 0)
    assert seen.ink / seen.found > 0.98
    assert seen.foreign / seen.found < 0.02
    frames = [tuple(map(tuple, box)) for box in boxes_of(drawn)]
    by_boxes = compare(drawn.picture.size, [line.ink for line in drawn.lines], frames)
    assert seen.foreign <= by_boxes.foreign


def test_baselines_follow_the_writing() -> None:
    drawn = page(Conditions("lines", degrees=4, bend=0.4))
    ((*found,),) = trace_lines(drawn.picture, boxes_of(drawn))
    for line, written in zip(found, drawn.lines, strict=True):
        x, y = np.array(line.baseline).T
        assert all(np.diff(x) > 0)
        true = np.interp(x, *written.baseline.T)
        assert np.abs(y - true).max() < 0.3 * np.ptp(written.ink[:, 1])
        assert np.abs(y - true).mean() < 12


def test_boxes_of_one_line_are_joined_and_lines_stay_apart() -> None:
    drawn = page(Conditions(degrees=2))
    halves = []
    for line in drawn.lines:
        middle = np.median(line.ink[:, 0])
        halves += [level_box(line.ink[line.ink[:, 0] < middle - 8]), level_box(line.ink[line.ink[:, 0] > middle + 8])]
    seen = counts(drawn, trace_lines(drawn.picture, np.array(halves)))
    assert (seen.found, seen.polygons) == (len(TEXTS), len(TEXTS))


def test_a_box_across_two_columns_is_cut_where_other_lines_begin() -> None:
    drawn = draw_page([*TEXTS, *TEXTS], FONT, Conditions(columns=2), np.random.default_rng(4))
    across = level_box(np.concatenate([drawn.lines[1].ink, drawn.lines[7].ink]))
    others = [level_box(line.ink) for number, line in enumerate(drawn.lines) if number not in (1, 7)]
    seen = counts(drawn, trace_lines(drawn.picture, np.array([*others, across])))
    assert (seen.found, seen.joined) == (12, 0)


def test_reading_order_goes_down_each_column_and_notes_come_last() -> None:
    drawn = page(Conditions("lines", degrees=-3, columns=2))
    blocks = trace_lines(drawn.picture, boxes_of(drawn)[::-1])
    assert [len(block) for block in blocks] == [3, 3]
    held = [
        compare(drawn.picture.size, [line.ink], [found.polygon]).found
        for line, found in zip(drawn.lines, (found for block in blocks for found in block), strict=True)
    ]
    assert held == [1] * 6


def test_nothing_found_and_boxes_without_ink_give_no_line() -> None:
    blank = Image.new("RGB", (600, 400), "#f0eee6")
    assert trace_lines(blank, np.empty((0, 4, 2))) == []
    assert trace_lines(blank, np.array([[(50, 50), (400, 50), (400, 100), (50, 100)]])) == []


def test_a_single_short_line_is_a_line() -> None:
    drawn = page(lines=1)
    (block,) = trace_lines(drawn.picture, boxes_of(drawn))
    assert len(block) == 1
    assert counts(drawn, [block]).found == 1


def test_a_page_on_its_side_is_said() -> None:
    drawn = page()
    turned = boxes_of(drawn)[:, :, ::-1]
    with pytest.raises(TurnedPage, match="turn the photograph upright"):
        trace_lines(drawn.picture.transpose(Image.Transpose.TRANSPOSE), turned[:, [0, 3, 2, 1]])


def test_dark_paper_is_no_ink_and_shadow_changes_little() -> None:
    sheet = Image.new("L", (400, 300), 230)
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((0, 0, 120, 300), fill=40)  # the table beside the sheet
    draw.line((200, 150, 380, 150), fill=60, width=4)
    ink = measure_ink(sheet.convert("RGB"))
    assert ink[151, 220:360].min() > 0.6
    assert ink[:, :120].max() < 0.1
    light = np.linspace(1, 0.4, 300)[:, None]
    shaded = measure_ink(Image.fromarray((np.asarray(sheet) * light).astype(np.uint8)).convert("RGB"))
    assert abs(shaded[151, 220:360].mean() - ink[151, 220:360].mean()) < 0.1


# The command


class Detected:
    """A detector that knows the boxes of drawn pages by the picture's size."""

    def __init__(self, *pages: DrawnPage) -> None:
        self.boxes = {drawn.picture.size: boxes_of(drawn) for drawn in pages}

    def __call__(self, image: Image.Image) -> np.ndarray:
        return self.boxes.get(image.size, np.empty((0, 4, 2)))


def run(folder: Path, *pages: DrawnPage, pictures: list[str] | None = None, force: bool = False) -> int:
    return find_lines(pictures or [str(folder)], LIMITS, None, force, lambda: Detected(*pages))


def records(folder: Path, form: object = PAGE) -> list[Record]:
    files = find_files(folder).files
    return form.read(form.find(files), files, "utf-8").records  # type: ignore[attr-defined]


def test_the_ground_truth_reader_reads_what_is_written(tmp_path: Path) -> None:
    drawn = page(Conditions("lines", degrees=3))
    (tmp_path / "дом").mkdir()
    drawn.picture.save(tmp_path / "дом/стр 1.jpg")
    assert run(tmp_path, drawn) == 0
    found = records(tmp_path)
    assert [record.filename for record in found] == ["дом/стр 1.jpg"] * len(TEXTS)
    assert [record.line for record in found] == [f"l{number}" for number in range(1, len(TEXTS) + 1)]
    assert all(record.text == "" for record in found)
    assert found[2].region is not None
    cut = OpenPage(tmp_path / "дом/стр 1.jpg", LIMITS).cut(found[2].region)
    height = np.ptp(drawn.lines[2].ink[:, 1])
    assert 0.9 * height < cut.height < 1.5 * height
    assert measure_ink(cut).max() > 0.5


def test_points_refer_to_the_upright_picture(tmp_path: Path) -> None:
    drawn = page(Conditions("lines", degrees=3))
    exif = Image.Exif()
    exif[274] = 6  # to be turned clockwise by whoever shows it
    drawn.picture.rotate(90, expand=True).save(tmp_path / "a.jpg", exif=exif)
    assert run(tmp_path, drawn) == 0
    region = records(tmp_path)[0].region
    assert region is not None
    assert region.page_size == drawn.picture.size
    assert compare(drawn.picture.size, [drawn.lines[0].ink], [region.polygon]).found == 1
    assert OpenPage(tmp_path / "a.jpg", LIMITS).cut(region).width > 100


def test_what_is_there_is_kept_and_force_keeps_transcriptions_beside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = page()
    drawn.picture.save(tmp_path / "a.jpg")
    assert run(tmp_path, drawn) == 0
    first = (tmp_path / "a.xml").read_text(encoding="utf-8")
    transcribed = first.replace("</TextLine>", "<TextEquiv><Unicode>да</Unicode></TextEquiv></TextLine>", 1)
    (tmp_path / "a.xml").write_text(transcribed, encoding="utf-8", newline="\n")
    assert run(tmp_path, drawn) == 0
    assert (tmp_path / "a.xml").read_text(encoding="utf-8") == transcribed
    assert "a.xml already; kept" in capsys.readouterr().out
    assert run(tmp_path, drawn, force=True) == 0
    assert [record.text for record in records(tmp_path)] == [""] * len(TEXTS)
    assert (tmp_path / "a.xml.bak").read_text(encoding="utf-8") == transcribed


def test_a_file_in_an_exporters_folder_counts_and_is_what_force_replaces(tmp_path: Path) -> None:
    drawn = page()
    drawn.picture.save(tmp_path / "a.jpg")
    assert run(tmp_path, drawn) == 0
    (tmp_path / "page").mkdir()
    (tmp_path / "a.xml").rename(tmp_path / "page/0001.xml")
    assert run(tmp_path, drawn) == 0
    assert not (tmp_path / "a.xml").exists()
    assert run(tmp_path, drawn, force=True) == 0
    assert not (tmp_path / "a.xml").exists()
    assert 'imageFilename="../a.jpg"' in (tmp_path / "page/0001.xml").read_text(encoding="utf-8")
    assert {record.filename for record in records(tmp_path)} == {"page/../a.jpg"}


def test_among_alto_files_alto_is_written(tmp_path: Path) -> None:
    drawn = page()
    (tmp_path / "b.xml").write_text('<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#"/>', encoding="utf-8")
    drawn.picture.save(tmp_path / "a.jpg")
    assert run(tmp_path, drawn) == 0
    found = records(tmp_path, ALTO)
    assert [record.line for record in found] == [f"l{number}" for number in range(1, len(TEXTS) + 1)]


def test_pictures_that_differ_in_their_suffix_get_a_file_each(tmp_path: Path) -> None:
    drawn, other = page(), page(lines=2)
    drawn.picture.save(tmp_path / "a.jpg")
    other.picture.save(tmp_path / "a.png")
    assert run(tmp_path, drawn) == 0
    assert {path.name for path in tmp_path.glob("*.xml")} == {"a.jpg.xml", "a.png.xml"}


def test_a_foreign_xml_file_is_never_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = page()
    drawn.picture.save(tmp_path / "a.jpg")
    (tmp_path / "a.xml").write_text("<settings/>", encoding="utf-8")
    assert run(tmp_path, drawn, force=True) == 0
    assert (tmp_path / "a.xml").read_text(encoding="utf-8") == "<settings/>"
    assert len(records(tmp_path)) == len(TEXTS)
    (tmp_path / "a.jpg.xml").write_text("<PcGts >", encoding="utf-8")
    assert run(tmp_path, drawn, force=True) == 1
    assert "a.jpg.xml cannot be read (broken XML" in capsys.readouterr().err


def test_one_bad_photograph_never_stops_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = page()
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    Image.new("RGB", (300, 200), "white").save(tmp_path / "b.png")
    drawn.picture.transpose(Image.Transpose.TRANSPOSE).save(tmp_path / "c.jpg")
    drawn.picture.save(tmp_path / "d.jpg")
    turned = replace(drawn, picture=drawn.picture.transpose(Image.Transpose.TRANSPOSE))
    turned = replace(turned, lines=[replace(line, ink=line.ink[:, ::-1]) for line in drawn.lines])
    assert run(tmp_path, drawn, turned) == 1
    said = capsys.readouterr()
    assert "a.jpg: not a readable picture" in said.err
    assert "b.png: no line of writing found" in said.out
    assert "c.jpg: its lines run from top to bottom" in said.err
    assert "d.jpg: 6 lines -> d.xml" in said.out
    assert "lines: 1 pages written, 0 kept, 1 without a line, 2 refused" in said.err
    assert [path.name for path in tmp_path.glob("*.xml")] == ["d.xml"]


def test_a_preview_is_drawn_on_request(tmp_path: Path) -> None:
    drawn = page()
    (tmp_path / "raw").mkdir()
    drawn.picture.save(tmp_path / "raw/a.png")
    preview = tmp_path / "seen"
    assert find_lines([str(tmp_path / "raw/a.png")], LIMITS, preview, False, lambda: Detected(drawn)) == 0
    with Image.open(preview / "raw-a.png.png") as seen:
        assert max(seen.size) <= 1600
        assert np.abs(np.asarray(seen.resize(drawn.picture.size), int) - np.asarray(drawn.picture)).max() > 100


def test_previews_never_lie_where_they_would_be_taken_for_photographs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = page()
    raw = tmp_path / "data/raw"
    raw.mkdir(parents=True)
    drawn.picture.save(raw / "a.png")
    monkeypatch.chdir(tmp_path)
    for pictures, preview in (("data", "data/seen"), ("data/raw", "data/raw"), ("data/raw/a.png", "data/raw/seen")):
        with pytest.raises(Refusal, match=f"{preview} lies in data.*would be taken for photographs"):
            find_lines([pictures], LIMITS, Path(preview), False, lambda: Detected(drawn))
    assert [path.name for path in raw.iterdir()] == ["a.png"]
    assert find_lines(["data/raw"], LIMITS, Path("seen"), False, lambda: Detected(drawn)) == 0


def test_nothing_to_do_and_a_missing_detector_are_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refusal, match="no photograph given"):
        run(tmp_path)
    with pytest.raises(Refusal, match="there is no such file"):
        run(tmp_path, pictures=[str(tmp_path / "gone.jpg")])
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(Refusal, match="ownhand\\[lines\\]"):
        load_detector()
    assert "pip install" in MISSING


# With the detector


@needs_detector
def test_lines_of_a_photographed_page_are_found() -> None:
    drawn = page(Conditions("grid", degrees=4, perspective=0.02, bend=0.4, shadow=0.4))
    seen = counts(drawn, trace_lines(drawn.picture, load_detector(1)(drawn.picture)))
    assert (seen.found, seen.polygons) == (len(TEXTS), len(TEXTS))


@needs_detector
@pytest.mark.parametrize("ruling", ["none", "lines", "grid"])
def test_a_blank_sheet_has_no_lines(ruling: str) -> None:
    drawn = page(Conditions(ruling, degrees=1, shadow=0.4), lines=0)
    assert trace_lines(drawn.picture, load_detector(1)(drawn.picture)) == []


@needs_detector
def test_a_turned_photograph_is_noticed_and_a_cropped_line_is_one_line() -> None:
    drawn, detect = page(Conditions("lines")), load_detector(1)
    turned = drawn.picture.rotate(90, expand=True)
    with pytest.raises(TurnedPage):
        trace_lines(turned, detect(turned))
    left, upper = drawn.lines[0].ink.min(axis=0) - 10
    right, lower = drawn.lines[0].ink.max(axis=0) + 10
    line = drawn.picture.crop((int(left), int(upper), int(right), int(lower)))
    assert [len(block) for block in trace_lines(line, detect(line))] == [1]
