"""Hugging Face's imagefolder layout."""

from __future__ import annotations

from pathlib import Path

from ownhand.ground_truth.matching import GroundTruth, read_ground_truth


def read(folder: Path, files: dict[str, str]) -> GroundTruth:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8", newline="\n")
    return read_ground_truth(folder, "utf-8")


def test_metadata_csv_is_read(tmp_path: Path) -> None:
    truth = read(tmp_path, {"a.jpg": "", "metadata.csv": 'file_name,text\na.jpg,"раз, два"\n'})
    assert [(s.filename, s.text, s.row) for s in truth.records] == [("a.jpg", "раз, два", "metadata.csv:2")]
    assert truth.source == "imagefolder (metadata.csv or .jsonl) from metadata.csv"


def test_metadata_jsonl_is_read(tmp_path: Path) -> None:
    row = '{"file_name": "lines/a.jpg", "text": "007", "page": "p1"}\n'
    (sample,) = read(tmp_path, {"lines/a.jpg": "", "metadata.jsonl": row}).records
    assert (sample.filename, sample.text, sample.page, sample.row) == ("lines/a.jpg", "007", "p1", "metadata.jsonl:1")


def test_each_split_folder_has_its_own_and_names_count_from_there(tmp_path: Path) -> None:
    truth = read(
        tmp_path,
        {
            "train/a.jpg": "",
            "train/metadata.csv": "file_name,text,score\na.jpg,раз,5\nlost.jpg,нет,1\n",
            "test/sub/a.jpg": "",
            "test/metadata.jsonl": '{"file_name": "sub/a.jpg", "text": "два"}\n{"file_name": 3}\n',
        },
    )
    assert {s.filename: s.text for s in truth.records} == {"train/a.jpg": "раз", "test/sub/a.jpg": "два"}
    assert {(r.file, r.row, r.kind) for r in truth.rejections} == {
        ("train/lost.jpg", "train/metadata.csv:3", "image not found"),
        ("", "test/metadata.jsonl:2", "broken row"),
    }
    assert truth.rows == 4
    assert truth.notes[0] == "metadata.csv: columns that are not used: score"
