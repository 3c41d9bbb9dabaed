"""The queue: what waits, in which order, for which tab; and the characters that are offered."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
from PIL import Image

from ownhand.correction.queue import Line, OpenLines, Queue, special_characters
from ownhand.ground_truth.records import GroundTruthError


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for name in ("p2/1.jpg", "p2/10.jpg", "p2/2.jpg", "p10/1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (90, 40), "white").save(tmp_path / name)
    return tmp_path


def names(queue: Queue, tab: str = "tab") -> list[str]:
    """The order in which a tab goes through the lines."""
    return [line.name for line in queue.next(tab, count=100)]


def test_pictures_wait_in_the_order_of_the_pages(raw: Path) -> None:
    (raw / "annotations.csv").write_text("filename,text\np2/2.jpg,да\np2/1.jpg,\np2/lost.jpg,\n", encoding="utf-8")
    lines = OpenLines(raw, "utf-8")
    assert [line.name for line in lines.in_order] == ["p2/1.jpg", "p2/2.jpg", "p2/10.jpg", "p10/1.jpg"]
    assert lines.unusable == 1  # the row without a picture
    queue = Queue(lines, review=False, urgency=None)
    assert queue.count_open() == (3, 0)
    assert names(queue) == ["p2/1.jpg", "p2/10.jpg", "p10/1.jpg"]
    queue.skipped.add(queue.next("tab")[0].number)
    assert names(queue) == ["p2/10.jpg", "p10/1.jpg"]
    assert queue.count_open() == (3, 1)


def test_the_least_certain_come_first_and_the_unknown_last(raw: Path) -> None:
    confidence = {"p10/1.jpg": 0.4, "p2/10.jpg": 0.9}

    def doubt(line: Line) -> float:
        return -confidence[line.name] if line.name in confidence else -math.inf

    queue = Queue(OpenLines(raw, "utf-8"), review=False, urgency=doubt)
    assert names(queue) == ["p10/1.jpg", "p2/10.jpg", "p2/1.jpg", "p2/2.jpg"]


def test_equally_urgent_lines_follow_the_one_before_and_start_again_at_the_front(raw: Path) -> None:
    queue = Queue(OpenLines(raw, "utf-8"), review=False, urgency=None)
    lines = queue.lines.in_order
    assert queue.next("tab", lines[2], 4) == [lines[3], *lines[:3]]


def test_two_tabs_are_not_offered_the_same_line_while_there_are_others(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue(OpenLines(raw, "utf-8"), review=False, urgency=None)
    (first,) = queue.next("one")
    queue.hold("one", first)
    assert queue.next("two", count=4)[0] != first
    assert queue.next("two", count=4)[-1] == first  # the tab may be a closed one
    assert queue.next("one") == [first]
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3600)
    assert queue.next("two") == [first]  # the tab was closed long ago


def test_review_shows_what_has_a_transcription_until_it_is_checked(raw: Path) -> None:
    (raw / "annotations.csv").write_text("filename,text\np2/2.jpg,да\np2/1.jpg,нет\n", encoding="utf-8")
    queue = Queue(OpenLines(raw, "utf-8"), review=True, urgency=None)
    queue.checked = {"p2/1.jpg": "нет", "p2/2.jpg": "changed since"}
    assert names(queue) == ["p2/2.jpg"]


def test_lines_keep_their_numbers_when_the_folder_changes(raw: Path) -> None:
    lines = OpenLines(raw, "utf-8")
    before = {line.name: line.number for line in lines.in_order}
    (raw / "p2/1.jpg").rename(raw / "p2/0.jpg")
    (raw / "annotations.csv").write_text("filename,text\np2/2.jpg,да\n", encoding="utf-8")
    lines.scan()
    after = {line.name: line.number for line in lines.in_order}
    assert list(after) == ["p2/0.jpg", "p2/2.jpg", "p2/10.jpg", "p10/1.jpg"]
    assert after["p2/0.jpg"] == 4
    assert {name: number for name, number in after.items() if name in before}.items() < before.items()
    assert lines.by_name["p2/2.jpg"].text == "да"
    assert lines.by_name["p2/1.jpg"].gone


def test_what_prepare_refuses_as_a_whole_is_refused_with_its_words(raw: Path) -> None:
    (raw / "annotations.csv").write_text("filename,text\np2/2.jpg,да\n", encoding="utf-8")
    (raw / "p2/1.gt.txt").write_text("нет", encoding="utf-8")
    with pytest.raises(GroundTruthError, match="2 formats"):
        OpenLines(raw, "utf-8")


def test_lists_of_the_split_are_no_ground_truth(raw: Path) -> None:
    (raw / "p2/1.txt").write_text("p2\n", encoding="utf-8")
    assert OpenLines(raw, "utf-8", not_truth=["p2/1.txt"]).form is None


def test_special_characters_are_those_that_are_hard_to_type(raw: Path) -> None:
    lines = OpenLines(raw, "utf-8")
    texts = ["— «Ёж», съел 5 ёжиков… № 5 —", "вѣра, а\u0301, naïve", "שָׁלוֹם", "漢字"]
    for line, text in zip(lines.in_order, texts, strict=True):
        line.text = text
    special = special_characters(lines.in_order)
    assert special[0] == "—"
    assert set(special) == {"—", "«", "»", "Ё", "ё", "…", "№", "ѣ", "\u0301", "ï", *"שָׁלוֹם"} - set("שלום")
    lines.in_order[0].text = lines.in_order[1].text = "мама, mama"
    assert not set(special_characters(lines.in_order[:2]))


@pytest.mark.slow
def test_fifty_thousand_pictures_are_no_burden(tmp_path: Path) -> None:
    for name in range(50):
        (tmp_path / f"p{name}").mkdir()
        for number in range(1000):
            (tmp_path / f"p{name}/{number}.jpg").touch()
    queue = Queue(OpenLines(tmp_path, "utf-8"), review=False, urgency=lambda line: -line.number % 7)
    began = time.process_time()
    for _ in range(10):
        (line,) = queue.next("tab")
        queue.skipped.add(line.number)
        queue.hold("tab", line)
    assert queue.count_open() == (50_000, 10)
    assert time.process_time() - began < 10  # a second each on the slowest machine
