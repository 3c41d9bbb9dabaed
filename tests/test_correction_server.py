"""The server: for this computer's own page alone; what is accepted is on the disk before the answer."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from ownhand.correction.proposals import Proposal, Proposals
from ownhand.correction.queue import OpenLines, Queue
from ownhand.correction.server import HEADERS, MOST_BYTES, Correction, build_app, mark_doubtful
from ownhand.correction.store import Store
from ownhand.images import ImageLimits
from ownhand.params import PrepareParams

PORT, TOKEN = 8123, "token"
ORIGIN = {"origin": f"http://127.0.0.1:{PORT}"}


class Page:
    """A tab of the page, as the browser would speak to the server."""

    def __init__(self, raw: Path, review: bool = False) -> None:
        self.stopped: list[bool] = []
        folder = raw.parent / "kept"
        lines = OpenLines(raw, "utf-8")
        self.proposals = Proposals(folder, PrepareParams())
        self.proposals.seeds = {"b.jpg": ("", Proposal("вторая строка", 0.4, (0.9,) * 8 + (0.2,) * 5))}
        queue = Queue(lines, review, lambda line: -(p.confidence if (p := self.proposals.of(line)) else math.inf))
        self.correction = Correction(
            queue,
            Store(lines, folder),
            self.proposals,
            ImageLimits.of(PrepareParams()),
            lambda: self.stopped.append(True),
        )
        app = build_app(self.correction, TOKEN, PORT)
        self.client = TestClient(app, base_url=f"http://127.0.0.1:{PORT}")

    def get(self, path: str, **options: Any) -> Any:
        return self.client.get(f"/{TOKEN}/{path}", **options)

    def post(self, path: str, content: dict[str, Any], headers: dict[str, str] = ORIGIN) -> Any:
        return self.client.post(f"/{TOKEN}/{path}", json={"tab": "t", **content}, headers=headers)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    for name in "abc":
        Image.new("RGB", (90, 40), "white").save(folder / f"{name}.jpg")
    return folder


@pytest.fixture
def page(raw: Path) -> Iterator[Page]:
    yield Page(raw)


@pytest.mark.parametrize("path", ["", "wrong/", "token2/next", "next?tab=t", f"../{TOKEN}x/"])
def test_without_the_token_nothing_is_found(page: Page, path: str) -> None:
    assert page.client.get(f"/{path}").status_code == 404


@pytest.mark.parametrize(
    "host", ["example.org", "127.0.0.1", f"127.0.0.1.example.org:{PORT}", f"127.0.0.1:{PORT + 1}", ""]
)
def test_another_host_name_is_refused(page: Page, host: str) -> None:
    answer = page.get("next?tab=t", headers={"host": host})
    assert (answer.status_code, answer.headers["x-frame-options"]) == (403, "DENY")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://example.org"},
        {"origin": "null"},
        {"origin": f"https://127.0.0.1:{PORT}"},
        {**ORIGIN, "sec-fetch-site": "cross-site"},
        {**ORIGIN, "content-length": "99999999"},
    ],
)
def test_another_site_can_change_nothing(page: Page, raw: Path, headers: dict[str, str]) -> None:
    sent = {"number": 0, "seen": "", "text": "чужой"}
    assert page.post("accept", sent, headers).status_code == 403
    assert not (raw / "annotations.csv").exists()
    assert page.get("next?tab=t", headers={"origin": "http://example.org"}).status_code == 403


def test_the_name_localhost_will_do_as_well(page: Page) -> None:
    local = {"host": f"localhost:{PORT}", "origin": f"http://localhost:{PORT}"}
    assert page.get("next?tab=t", headers=local).status_code == 200


def test_every_answer_has_the_security_headers_and_loads_nothing_from_elsewhere(page: Page) -> None:
    for path in ("", "page.js", "page.css", "next?tab=t", "picture/0/0", "page.html", "line/77"):
        answer = page.get(path)
        assert HEADERS.items() - {("cache-control", "no-store")} <= dict(answer.headers).items(), path
        assert b"http://" not in answer.content and b"https://" not in answer.content, path
    assert page.get("page.html").status_code == 422
    assert page.get("picture/0/0").headers["content-type"] == "image/jpeg"


def test_a_line_goes_its_way(page: Page, raw: Path) -> None:
    first = page.get("next?tab=t").json()
    line = first["line"]
    assert (line["name"], first["counts"]["left"]) == ("b.jpg", 3)  # the one that the model is least sure of
    assert line["proposal"]["marked"] == [["вторая", False], [" ", False], ["строка", True]]
    assert [line["before"], line["after"]] == [0, 2]
    sent = {"number": line["number"], "seen": line["text"], "text": "вторая строка!", "seconds": 3.14, "proposed": True}
    answer = page.post("accept", sent).json()
    assert (raw / "annotations.csv").read_text(encoding="utf-8") == "filename,text\nb.jpg,вторая строка!\n"
    assert answer["line"]["name"] == "c.jpg"  # of the unknown ones that which follows
    assert answer["counts"]["left"] == 2
    assert answer["counts"]["gains"]["seconds"] == 3.1
    answer = page.post("set-aside", {"number": 2, "why": "not a line"}).json()
    assert answer["line"]["name"] == "a.jpg"
    answer = page.post("skip", {"number": 0}).json()
    assert (answer["line"], answer["counts"]["left"], answer["counts"]["skipped"]) == (None, 1, 1)
    assert page.post("skip", {}).json()["line"]["name"] == "a.jpg"
    answer = page.post("undo", {}).json()
    assert (answer["line"]["name"], answer["draft"]) == ("c.jpg", "")
    answer = page.post("undo", {}).json()
    assert (answer["line"]["name"], answer["draft"]) == ("b.jpg", "вторая строка!")
    assert (raw / "annotations.csv").read_text(encoding="utf-8") == "filename,text\n"
    assert page.post("undo", {}).json() == {"problem": "there is nothing to undo"}


def test_a_change_elsewhere_is_said_and_not_overwritten(page: Page, raw: Path) -> None:
    number = page.get("next?tab=t").json()["line"]["number"]
    (raw / "annotations.csv").write_text("filename,text\nb.jpg,чужая\n", encoding="utf-8")
    answer = page.post("accept", {"number": number, "seen": "", "text": "моя"})
    assert (answer.status_code, answer.json()) == (409, {"elsewhere": {"text": "чужая", "why": "", "gone": False}})
    assert page.get(f"status/{number}").json()["text"] == "чужая"
    (raw / "annotations.csv").write_text("filename,text\nb.jpg,новая\n", encoding="utf-8")
    assert page.get(f"status/{number}").json()["text"] == "новая"


@pytest.mark.parametrize(
    "content", [{"number": 99, "text": "a"}, {"number": -1, "text": "a"}, {"text": "a"}, {"number": 0}]
)
def test_what_cannot_be_kept_is_refused_with_a_sentence(page: Page, content: dict[str, Any]) -> None:
    answer = page.post("accept", content)
    assert answer.status_code == 422
    assert answer.json()["problem"]


def test_what_the_page_never_sends_is_refused(page: Page) -> None:
    assert page.post("accept", {"number": "first"}).status_code == 400
    answer = page.client.post(f"/{TOKEN}/accept", content=b"{", headers=ORIGIN)
    assert answer.status_code == 400


@pytest.mark.parametrize("seconds", ["NaN", "Infinity", "1e999", "-1"])
def test_a_time_that_cannot_be_is_refused_and_the_page_goes_on(page: Page, raw: Path, seconds: str) -> None:
    sent = f'{{"tab": "t", "number": 0, "text": "да", "seconds": {seconds}}}'
    assert page.client.post(f"/{TOKEN}/accept", content=sent, headers=ORIGIN).status_code == 400
    assert not (raw / "annotations.csv").exists()
    assert page.get("next?tab=t").json()["counts"]["left"] == 3


def test_a_body_without_a_length_is_read_to_the_limit_and_no_further(page: Page) -> None:
    sent = []

    def endless() -> Iterator[bytes]:
        for _ in range(100):
            sent.append(MOST_BYTES // 10)
            yield b" " * sent[-1]

    scope = {
        "type": "http",
        "method": "POST",
        "path": f"/{TOKEN}/skip",
        "raw_path": f"/{TOKEN}/skip".encode(),
        "query_string": b"",
        "headers": [(b"host", f"127.0.0.1:{PORT}".encode()), (b"origin", ORIGIN["origin"].encode())],
    }
    body, answers = endless(), []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": next(body), "more_body": True}

    async def send(message: Any) -> None:
        answers.append(message)

    asyncio.run(page.client.app(scope, receive, send))
    assert answers[0]["status"] == 413
    assert MOST_BYTES < sum(sent) <= 1.2 * MOST_BYTES


@pytest.mark.parametrize("path", ["line/{}", "status/{}", "picture/{}/0", "picture/0/{}"])
@pytest.mark.parametrize("digits", [30, 400, 5000])
def test_a_number_of_many_digits_is_no_fault_of_ours(page: Page, path: str, digits: int) -> None:
    assert page.get(path.format("9" * digits)).status_code in (200, 403, 422)


def test_pictures_that_came_later_are_there_after_a_reload(page: Page, raw: Path) -> None:
    assert page.get("").status_code == 200
    Image.new("RGB", (90, 40), "white").save(raw / "d.jpg")
    page.get("")
    assert page.get("next?tab=t").json()["counts"]["left"] == 4


def test_a_picture_that_cannot_be_shown_is_not_found(page: Page, raw: Path) -> None:
    (raw / "a.jpg").write_bytes(b"no picture")
    answer = page.get("picture/0/0")
    assert (answer.status_code, "not a readable picture" in answer.text) == (404, True)


def test_names_and_texts_are_no_markup(raw: Path) -> None:
    (raw / "annotations.csv").write_text('filename,text\na.jpg,"‹ „ <b>«</b>"\n', encoding="utf-8")
    page = Page(raw)
    assert "<b>" not in page.get("").text
    assert 'data-insert="«"' in page.get("").text


def test_review_marks_what_is_read_otherwise(raw: Path) -> None:
    (raw / "annotations.csv").write_text("filename,text\na.jpg,первая\nb.jpg,вторая строка\n", encoding="utf-8")
    page = Page(raw, review=True)
    page.proposals.seeds = {"b.jpg": ("вторая строка", Proposal("вторая отрока", 0.9))}
    line = page.get("next?tab=t").json()["line"]
    assert (line["name"], line["text"]) == ("b.jpg", "вторая строка")
    assert line["proposal"]["cer"] == 1 / 13
    assert line["proposal"]["marked"] == [["вторая", False], [" ", False], ["строка", True]]
    answer = page.post("accept", {"number": line["number"], "seen": line["text"], "text": line["text"]}).json()
    assert answer["counts"]["gains"]["confirmed"] == 1
    assert answer["line"]["name"] == "a.jpg"
    assert page.post("undo", {}).json()["counts"]["left"] == 2


def test_doubt_about_a_word_also_comes_from_what_is_read_beside_it() -> None:
    assert mark_doubtful("два слова", "два слова") == [("два", False), (" ", False), ("слова", False)]
    assert mark_doubtful("два слова", "и два слова!") == [("два", True), (" ", False), ("слова", True)]
    assert mark_doubtful("два слова", "слова") == [("два", True), (" ", False), ("слова", True)]
    assert mark_doubtful("два\nслова", "слова") == []  # lines cannot be aligned


def test_the_program_stops_from_the_page(page: Page) -> None:
    assert page.post("stop", {}).status_code == 200
    time.sleep(1)  # the answer comes first
    assert page.stopped == [True]
