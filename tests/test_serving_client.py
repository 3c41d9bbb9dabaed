"""The client of a serving engine, against a stand-in that speaks the engines' protocol."""

from __future__ import annotations

import base64
import io
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ownhand import serving_client
from ownhand.errors import Refusal
from ownhand.evaluation.readings import read_predictions
from ownhand.images import ImageLimits
from ownhand.params import read_params
from ownhand.serving_client import Server, in_parallel, read_by_server, read_served

ROOT = Path(__file__).parent.parent
LIMITS = ImageLimits.of(read_params(ROOT / "params.yaml").prepare)


def answer(text: str, **choice: Any) -> dict[str, Any]:
    """What a server says of one picture."""
    return {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"} | choice]}


@dataclass
class StandIn:
    """A server that reads a picture as its width; `replies` may say something else for the n-th request."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    images: list[Image.Image] = field(default_factory=list)
    replies: Callable[[int, Image.Image], tuple[int, Any] | None] = lambda number, image: None
    open_now: int = 0
    most_open: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def reply(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        assert path == "/v1/chat/completions"
        scheme, _, data = body["messages"][0]["content"][0]["image_url"]["url"].partition(",")
        assert scheme == "data:image/png;base64"
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        with self.lock:
            self.bodies.append(body)
            self.images.append(image)
            number = len(self.bodies)
            self.open_now += 1
            self.most_open = max(self.most_open, self.open_now)
        time.sleep(0.02)
        with self.lock:
            self.open_now -= 1
        return self.replies(number, image) or (200, answer(f"строка {image.width}"))


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    state = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, value = state.reply(self.path, body)
            content = json.dumps(value, ensure_ascii=False).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_client, "FIRST_PAUSE_SECONDS", 0.0)


@pytest.fixture
def photographs(tmp_path: Path) -> list[tuple[str, Path]]:
    """Twelve pictures, 100 to 111 px wide."""
    for width in range(100, 112):
        Image.new("RGB", (width, 40), (width, 0, 0)).save(tmp_path / f"{width}.png")
    return [(f"{width}", tmp_path / f"{width}.png") for width in range(100, 112)]


def server(url: str, engine: str = "vllm", ngrams: int = 35) -> Server:
    return Server(url, "hand", engine, 64, ngrams, timeout_seconds=30)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_pictures_become_a_prediction_file(
    tmp_path: Path, stand_in: StandIn, photographs: list[tuple[str, Path]]
) -> None:
    out = tmp_path / "out.jsonl"
    assert read_by_server(photographs, 12, server(stand_in.url), LIMITS, out, 3) == 0
    found = read_predictions(out, [image_id for image_id, _ in photographs], "")
    assert {key: row.text for key, row in found.items()} == {key: f"строка {key}" for key, _ in photographs}
    assert 1 < stand_in.most_open <= 3


def test_the_picture_is_sent_upright_reduced_and_without_loss(tmp_path: Path, stand_in: StandIn) -> None:
    photograph = Image.linear_gradient("L").convert("RGB").resize((60, 30))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    photograph.save(tmp_path / "a.png", exif=exif)
    read_by_server([("a", tmp_path / "a.png")], 1, server(stand_in.url), LIMITS, tmp_path / "out.jsonl", 1)
    upright = photograph.transpose(Image.Transpose.ROTATE_270)
    assert stand_in.images[0].size == (30, 60)
    assert stand_in.images[0].tobytes() == upright.tobytes()


def test_what_each_engine_is_asked(stand_in: StandIn) -> None:
    image = Image.new("RGB", (40, 40))
    for engine, text in {"vllm": "Free OCR.", "sglang": "<image>\nFree OCR.", "llama.cpp": "Free OCR."}.items():
        body = server(stand_in.url, engine).question(image)
        kinds = [part["type"] for part in body["messages"][0]["content"]]
        assert kinds == ["image_url", "text"] and body["messages"][0]["content"][1]["text"] == text
        assert (body["model"], body["temperature"], body["max_tokens"]) == ("hand", 0, 64)
        assert body.get("vllm_xargs") == ({"ngram_size": 35, "window_size": 64} if engine == "vllm" else None)
    assert "vllm_xargs" not in server(stand_in.url, ngrams=0).question(image)


def test_confidence_and_runaway_outputs(tmp_path: Path, stand_in: StandIn, photographs: list[tuple[str, Path]]) -> None:
    tokens = [{"token": "а", "logprob": -0.25}, {"token": "", "logprob": -0.75}]
    looping = [{"token": "у", "logprob": 0.0}] * 40
    replies = {
        100: answer("а", logprobs={"content": tokens}),
        101: answer("а", finish_reason="length"),
        102: answer("у" * 40, logprobs={"content": looping}),
    }
    stand_in.replies = lambda number, image: (200, replies[image.width])
    read_by_server(photographs[:3], 3, server(stand_in.url), LIMITS, tmp_path / "out.jsonl", 2)
    found = {row["image_id"]: row for row in rows(tmp_path / "out.jsonl")}
    assert found["100"] == {
        "image_id": "100",
        "prediction": "а",
        "runaway": False,
        "confidence": round(math.exp(-0.5), 6),
    }
    assert found["101"] == {"image_id": "101", "prediction": "а", "runaway": True}
    assert found["102"]["runaway"] is True


def test_a_run_goes_on_where_it_stopped(tmp_path: Path, stand_in: StandIn, photographs: list[tuple[str, Path]]) -> None:
    out = tmp_path / "out.jsonl"
    stand_in.replies = lambda number, image: (401, {"error": "no key"}) if number > 4 else None
    with pytest.raises(Refusal, match="HTTP 401.*no key"):
        read_by_server(photographs, 12, server(stand_in.url), LIMITS, out, 1)
    assert len(rows(out)) == 4
    out.write_bytes(out.read_bytes() + b'{"image_id": "104", "predi')  # a kill in the middle of a line
    stand_in.replies = lambda number, image: None
    asked = len(stand_in.bodies)
    assert read_by_server(photographs, 12, server(stand_in.url), LIMITS, out, 1) == 0
    assert len(stand_in.bodies) - asked == 8
    assert sorted(row["image_id"] for row in rows(out)) == [key for key, _ in photographs]


def test_a_busy_server_is_asked_again(tmp_path: Path, stand_in: StandIn, photographs: list[tuple[str, Path]]) -> None:
    stand_in.replies = lambda number, image: (503, {"error": "busy"}) if number % 2 else None
    assert read_by_server(photographs, 12, server(stand_in.url), LIMITS, tmp_path / "out.jsonl", 1) == 0
    assert len(stand_in.bodies) == 24


def test_a_picture_without_an_answer_is_named_and_left_out(
    tmp_path: Path, stand_in: StandIn, photographs: list[tuple[str, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    refusals = {101: (400, {"error": "too long"}), 102: (200, {"error": "strange"}), 103: (500, {})}
    stand_in.replies = lambda number, image: refusals.get(image.width)
    photographs[5][1].write_bytes(b"no picture")
    assert read_by_server(photographs, 12, server(stand_in.url), LIMITS, tmp_path / "out.jsonl", 2) == 4
    assert len(rows(tmp_path / "out.jsonl")) == 8
    named = capsys.readouterr().err
    for expected in ("101: the server answers HTTP 400", "too long", "102: no answer of OpenAI's", "103: ", "105: "):
        assert expected in named


def test_a_server_that_fails_every_picture_stops_the_run(
    tmp_path: Path, stand_in: StandIn, photographs: list[tuple[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_client, "FAILURES_IN_A_ROW", 3)
    stand_in.replies = lambda number, image: (400, {"error": "no template"})
    with pytest.raises(Refusal, match="3 pictures in a row.*no template"):
        read_by_server(photographs, 12, server(stand_in.url), LIMITS, tmp_path / "out.jsonl", 1)
    assert len(stand_in.bodies) <= 4


def test_no_server_is_a_sentence(tmp_path: Path, photographs: list[tuple[str, Path]]) -> None:
    with pytest.raises(Refusal, match="does not answer .*Start the server"):
        read_by_server(photographs, 12, server("http://127.0.0.1:9/v1"), LIMITS, tmp_path / "out.jsonl", 2)


def test_arguments_are_drawn_as_threads_get_free() -> None:
    drawn: list[int] = []

    def arguments() -> Iterator[int]:
        for i in range(1000):
            drawn.append(i)
            yield i

    results = in_parallel(lambda i: i, arguments(), 4)
    next(results)
    assert len(drawn) == 4
    assert {i for i, _ in results} | {0, 1, 2, 3} == set(range(1000))


def test_validation_pictures_are_read_under_their_ids(
    stage_folder: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stage_folder)
    params, out = read_params(), Path("out.jsonl")
    assert read_served([], params, url=stand_in.url, model="hand", out=out, validation=True) == 0
    assert [row["image_id"] for row in rows(out)] == ["00004"]
    assert stand_in.bodies[0]["max_tokens"] == params.transcribe.max_new_tokens
    with pytest.raises(Refusal, match="--validation, and not both"):
        read_served(["a.jpg"], params, url=stand_in.url, model="hand", out=out, validation=True)
    with pytest.raises(Refusal, match="--engine onnx"):
        read_served(["a.jpg"], params, url=stand_in.url, model="hand", out=out, engine="onnx")


def test_files_and_folders_are_read_under_their_paths(
    stage_folder: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(stage_folder)
    (stage_folder / "data/processed/torn.png").write_bytes(b"")
    out = Path("out.jsonl")
    assert read_served(["data/processed"], read_params(), url=stand_in.url, model="hand", out=out) == 1
    assert sorted(row["image_id"] for row in rows(out)) == [f"data/processed/0000{i}.png" for i in range(1, 5)]
    assert "4 pictures read, 1 refused" in capsys.readouterr().err
