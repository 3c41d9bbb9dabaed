"""Proposals: each line is read once by each model, and what was read is found again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from conftest import TEXTS
from PIL import Image

from ownhand.correction import proposals as module
from ownhand.correction.proposals import Proposal, ProposalReader, Proposals, open_model, read_validation
from ownhand.correction.queue import OpenLines
from ownhand.errors import Refusal
from ownhand.params import ModelParams, PrepareParams, read_params
from ownhand.samples import Reading, Sample, write_metadata


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (90 + number, 40), "white").save(folder / f"{number}.jpg")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


class Counting:
    """A reader that reads the width of a picture."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self.seen: list[int] = []

    def open(self) -> ProposalReader:
        return ProposalReader("the counter", self.fingerprint, self.read)

    def read(self, pictures: Sequence[Image.Image]) -> list[Reading]:
        self.seen += [picture.width for picture in pictures]
        return [Reading(f"w {one.width}", 2, one.width == 92, 0.5, (0.9, 0.9, 0.6, 0.9)) for one in pictures]


def wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end
        time.sleep(0.01)


def run(folder: Path, lines: OpenLines, reader: Counting) -> Proposals:
    proposals = Proposals(folder, PrepareParams())
    proposals.start(reader.open, lambda: list(lines.in_order))
    wait(lambda: proposals.state == "ready" and proposals.read == len(lines.in_order))
    proposals.stop()
    return proposals


@pytest.mark.parametrize(
    "change", [("picture", "image"), ("[0.9,", "[[],"), ('"w 90"', "90"), ("[0.9, 0.9, 0.6, 0.9]", "7")]
)
def test_a_kept_reading_that_is_none_is_read_again(raw: Path, tmp_path: Path, change: tuple[str, str]) -> None:
    lines, kept = OpenLines(raw, "utf-8"), tmp_path / "kept/proposals.jsonl"
    texts = [one and one.text for one in map(run(tmp_path / "kept", lines, Counting("one")).of, lines.in_order)]
    first, *others = kept.read_text(encoding="utf-8").splitlines(keepends=True)
    assert change[0] in first
    kept.write_text(first.replace(*change, 1) + "".join(others), encoding="utf-8")
    again = Counting("one")
    proposals = run(tmp_path / "kept", lines, again)
    assert again.seen == [90]
    assert [one and one.text for one in map(proposals.of, lines.in_order)] == texts


def test_each_line_is_read_once_by_each_model(raw: Path, tmp_path: Path) -> None:
    lines, first = OpenLines(raw, "utf-8"), Counting("one")
    proposals = run(tmp_path / "kept", lines, first)
    assert sorted(first.seen) == [90, 91, 92]
    texts = [proposals.of(line) for line in lines.in_order]
    assert [one and one.text for one in texts] == ["w 90", "w 91", "", None]  # the third ran away, the last is broken
    again = Counting("one")
    (raw / "2.jpg").rename(raw / "again.jpg")  # known by its content, whatever its name
    proposals = run(tmp_path / "kept", OpenLines(raw, "utf-8"), again)
    assert again.seen == []
    assert {one.name: proposals.of(one) for one in OpenLines(raw, "utf-8").in_order}["1.jpg"] == texts[1]
    trained = Counting("two")
    run(tmp_path / "kept", OpenLines(raw, "utf-8"), trained)
    assert sorted(trained.seen) == [90, 91, 92]
    rows = (tmp_path / "kept/proposals.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(row)["reader"] for row in rows} == {"two"}


def test_a_line_that_was_cut_off_by_a_kill_is_read_again(raw: Path, tmp_path: Path) -> None:
    run(tmp_path / "kept", OpenLines(raw, "utf-8"), Counting("one"))
    file = tmp_path / "kept/proposals.jsonl"
    file.write_bytes(file.read_bytes()[:-10])
    again = Counting("one")
    run(tmp_path / "kept", OpenLines(raw, "utf-8"), again)
    assert len(again.seen) == 1


def test_words_are_marked_by_their_least_certain_character_or_the_space_before() -> None:
    assert Proposal("ab cd", 0.9, (0.9, 0.5, 0.9, 0.9, 0.9)).words() == [("ab", True), (" ", False), ("cd", False)]
    assert Proposal("ab cd", 0.9, (0.9, 0.9, 0.5, 0.9, 0.9)).words() == [("ab", False), (" ", False), ("cd", True)]
    assert Proposal("ab cd", 0.9).words() == [("ab", False), (" ", False), ("cd", False)]


def test_without_a_model_there_is_a_sentence_and_no_proposal(raw: Path, tmp_path: Path) -> None:
    def fail() -> ProposalReader:
        raise Refusal("there is no model")

    lines, proposals = OpenLines(raw, "utf-8"), Proposals(tmp_path / "kept", PrepareParams())
    proposals.start(fail, lambda: lines.in_order)
    wait(lambda: proposals.state == "none")
    assert proposals.problem == "there is no model"
    assert proposals.of(lines.in_order[0]) is None


def test_nothing_is_downloaded_for_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    absent = ModelParams(name_or_path="nobody/no-such-model", revision="0" * 40)
    params = read_params().model_copy(update={"model": absent})
    with pytest.raises(Refusal, match="nobody/no-such-model is not on this machine yet; `dvc repro` fetches it"):
        open_model(params, tmp_path / "adapter")


def test_the_base_model_reads_until_there_is_an_adapter(
    stage_folder: Path, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stage_folder)
    params = read_params()
    params = params.model_copy(update={"transcribe": params.transcribe.model_copy(update={"max_new_tokens": 4})})
    reader = open_model(params, stage_folder / "no-adapter")
    assert reader.name == "the base model"
    (reading,) = reader.read_pictures(pictures[:1])
    assert len(reading.character_confidence) in (0, len(reading.text))
    assert open_model(params, stage_folder / "no-adapter").fingerprint == reader.fingerprint


def test_review_begins_with_what_the_last_evaluation_read(raw: Path, tmp_path: Path) -> None:
    (raw / "annotations.csv").write_text("filename,text\n0.jpg,да\n1.jpg,нет\n", encoding="utf-8")
    samples = [
        Sample(f"{number}", "", text, f"{number}.jpg", "", "", 1, 1, "val", "") for number, text in enumerate(TEXTS[:2])
    ]
    write_metadata(samples, tmp_path / "data/processed")
    (tmp_path / "metrics").mkdir()
    (tmp_path / module.LINES_CSV).write_text(
        "image_id,adapter_prediction,truth,adapter_confidence\n0,да!,да,0.9\n1,нот,another text,0.8\n", encoding="utf-8"
    )
    lines, proposals = OpenLines(raw, "utf-8"), Proposals(tmp_path / "kept", PrepareParams())
    assert read_validation(lines, raw) == {}
    proposals.seeds = read_validation(lines, tmp_path)
    assert [proposals.of(line) for line in lines.in_order[:2]] == [Proposal("да!", 0.9), None]
