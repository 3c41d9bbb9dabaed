"""JSON lines in the layouts of fine-tuning tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ownhand.ground_truth.matching import GroundTruth, read_ground_truth
from ownhand.ground_truth.records import GroundTruthError

CHAT = {"role": "user", "content": "<image>\nFree OCR."}


def answer(text: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def read(folder: Path, *rows: Any, files: tuple[str, ...] = ("a.jpg", "b.jpg")) -> GroundTruth:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "lines.jsonl").write_text("\n".join(lines), encoding="utf-8", newline="\n")
    return read_ground_truth(folder, "utf-8")


@pytest.mark.parametrize(
    "row",
    [
        {"image": "a.jpg", "text": "Ёж"},
        {"file_name": "a.jpg", "transcription": "Ёж", "id": 5},
        {"messages": [CHAT, answer("Ёж")], "images": ["a.jpg"]},
        {"messages": [{"role": "system", "content": "Read."}, CHAT, answer("Ёж")], "images": [{"path": "a.jpg"}]},
        {"query": "<image>Free OCR.", "response": "Ёж", "images": ["a.jpg"]},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "Free OCR."}, {"type": "image", "image": "a.jpg"}],
                },
                answer([{"type": "text", "text": "Ёж"}]),
            ]
        },
        {"messages": [{"role": "user", "content": [{"type": "image"}]}, answer("Ёж")], "images": ["a.jpg"]},
        {
            "messages": [
                {"role": "<|User|>", "content": "<image>\nFree OCR. ", "images": ["a.jpg"]},
                {"role": "<|Assistant|>", "content": "Ёж"},
            ]
        },
    ],
    ids=["plain", "synonyms", "ms-swift", "system", "query", "unsloth", "placeholder", "deepseek-ocr notebook"],
)
def test_every_layout_gives_picture_and_text(tmp_path: Path, row: dict[str, Any]) -> None:
    truth = read(tmp_path, row)
    assert [(s.filename, s.text, s.page, s.hand, s.row) for s in truth.records] == [("a.jpg", "Ёж", "", "", 1)]
    assert truth.source == "JSON lines from lines.jsonl"


@pytest.mark.parametrize("row", [{"image": "a.jpg", "text": "Ёж"}, {"images": ["a.jpg"], "messages": [answer("Ёж")]}])
def test_page_and_hand_may_stand_beside_in_every_layout(tmp_path: Path, row: dict[str, Any]) -> None:
    (sample,) = read(tmp_path, {**row, "page": "p1", "hand": "Аня"}).records
    assert (sample.page, sample.hand) == ("p1", "Аня")


def test_lines_are_numbered_as_in_the_file_and_blank_ones_are_no_rows(tmp_path: Path) -> None:
    truth = read(tmp_path, {"image": "a.jpg", "text": "раз"}, "", {"image": "b.jpg", "text": "два\nтри"})
    assert [(sample.row, sample.text) for sample in truth.records] == [(1, "раз"), (3, "два\nтри")]
    assert truth.rows == 2


def test_separators_inside_a_text_do_not_end_a_row(tmp_path: Path) -> None:
    assert read(tmp_path, {"image": "a.jpg", "text": "раз\u2028два\x85три"}).records[0].text == "раз\u2028два\x85три"


def test_names_count_from_the_file_or_from_the_folder_of_all(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for name in ("set/a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    rows = '{"image": "a.jpg", "text": "раз"}\n{"image": "b.jpg", "text": "два"}\n'
    (tmp_path / "set/x.jsonl").write_text(rows, encoding="utf-8")
    assert [sample.filename for sample in read_ground_truth(tmp_path, "utf-8").records] == ["set/a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"image": "a.jpg", "text": "раз"', "no valid JSON"),
        ('{"image": "a.jpg", "text": "\\ud83d"}', "half a character"),
        ('{"image": ' + "[" * 100_000, "no valid JSON"),
        ('["a.jpg", "раз"]', "a JSON object is expected, this is list"),
        ({"image": 7, "text": "раз"}, "a picture must be given by its file name"),
        ({"image": "a.jpg", "text": 7}, "text must be text in double quotes, it is int (7)"),
        ({"image": "a.jpg", "text": None}, "it is NoneType (null)"),
        ({"image": "a.jpg"}, "no key 'text'"),
        ({"image": "a.jpg", "gt": "раз", "label": "два"}, "gt, label all mean 'text'"),
        ({"image": {"bytes": "iVBORw0="}, "text": "раз"}, "pictures inside JSON are not read"),
        ({"images": [{"bytes": "iVBORw0="}], "messages": [answer("раз")]}, "pictures inside JSON are not read"),
        (
            {"images": ["a.jpg", "b.jpg"], "messages": [answer("раз")]},
            "one picture per row is expected, this row has 2",
        ),
        ({"images": ["a.jpg"], "messages": [answer("раз"), CHAT, answer("два")]}, "one answer per row"),
        ({"images": ["a.jpg"], "messages": [answer([{"type": "audio"}])]}, "seen: 'audio'"),
        ({"images": ["a.jpg"], "messages": "раз"}, "messages must be a list, it is str"),
        ({"images": ["a.jpg"], "messages": ["раз"]}, "a message must be an object"),
    ],
)
def test_a_row_that_is_not_one_picture_with_one_text_is_rejected_and_the_others_kept(
    tmp_path: Path, row: Any, reason: str
) -> None:
    truth = read(tmp_path, row, {"image": "b.jpg", "text": "два"})
    assert [sample.filename for sample in truth.records] == ["b.jpg"]
    rejection = truth.rejections[0]
    assert (rejection.row, rejection.kind, rejection.counted) == (1, "broken row", True)
    assert reason in rejection.reason


def test_two_files_are_an_error_because_one_of_them_may_be_predictions(tmp_path: Path) -> None:
    (tmp_path / "val.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(GroundTruthError, match=r"one file of the format JSON lines; seen: lines\.jsonl, val\.jsonl"):
        read(tmp_path, {"image": "a.jpg", "text": "раз"})
