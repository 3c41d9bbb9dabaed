"""Reading through a server: pictures go to an engine that serves the trained model, and predictions come back.

    ownhand read-served PHOTO... | FOLDER  --out FILE  [--server URL] [--model NAME] [--engine vllm|sglang|llama.cpp]

Reads   the given pictures, or with --validation those of data/processed/; parameters `prepare` (limits), `transcribe`.
Writes  FILE, one JSON object a picture as its answer comes: image_id (the path; with --validation the sample's id),
        prediction, runaway, and confidence where the server gives log-probabilities. `ownhand compare` takes it.
Refuses to go on when the server is gone; a picture that cannot be read or is not answered is named on standard error
        and left out, the exit code is then 1.

The same command goes on where it stopped: what FILE has is not asked again. The server speaks OpenAI's chat protocol,
as those of vLLM, SGLang, llama.cpp and Ollama do. Pictures are made upright and reduced as in training, and sent
without loss; cutting them into tiles is the server's work. docs/serving.md says how to start one, and what differs.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import math
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from ownhand.errors import Refusal
from ownhand.files import AppendedLines
from ownhand.images import ImageLimits, UnreadableImage, open_image
from ownhand.model.decoding import is_loop
from ownhand.model.families import FAMILIES, OFFICIAL_MODEL_TYPE
from ownhand.pages.lines import name_of
from ownhand.params import Params
from ownhand.progress import track
from ownhand.read import Outcome, expand
from ownhand.samples import read_metadata

# What must stand before the prompt: SGLang wants the picture's place in the text, the others put it there themselves.
PREFIXES = {"vllm": "", "sglang": "<image>\n", "llama.cpp": ""}
RETRIES = 5
FIRST_PAUSE_SECONDS = 1.0  # before the first retry; doubled each time
FAILURES_IN_A_ROW = 20  # of the server; then it is broken, and not the pictures
ANSWER_SHOWN = 300  # characters of a server's error
BUSY, UNFIT = {429, 500, 502, 503, 504}, {400, 413, 422}

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class Unanswered(Exception):
    """The server has no answer for one picture; the message says why."""


@dataclass(frozen=True)
class Server:
    """A server and what is asked of it. url: up to and with /v1; timeout_seconds: for one answer."""

    url: str
    model: str
    engine: str
    max_new_tokens: int
    no_repeat_ngram_size: int
    timeout_seconds: float = 600.0

    def read(self, image: Image.Image) -> dict[str, Any]:
        """Prediction, runaway and, where the server gives log-probabilities, confidence of one upright RGB picture.

        Waits and asks again while the server is busy. Raises Unanswered when it refuses this picture, Refusal when it
        cannot be reached or does not serve the model.
        """
        body = json.dumps(self.question(image)).encode()
        for attempt in range(RETRIES + 1):
            try:
                return _prediction(self._post("/chat/completions", body))
            except urllib.error.HTTPError as error:
                said = error.read(ANSWER_SHOWN).decode("utf-8", "replace")
                if error.code not in BUSY | UNFIT:
                    raise Refusal(f"{self.url} refuses (HTTP {error.code}): {said}") from None
                if error.code in UNFIT or attempt == RETRIES:
                    raise Unanswered(f"the server answers HTTP {error.code}: {said}") from None
            except (OSError, http.client.HTTPException) as error:  # a URLError is an OSError
                if attempt == RETRIES:
                    raise Refusal(
                        f"{self.url} does not answer ({getattr(error, 'reason', error)}). Start the server and run the "
                        "same command again: what was read is kept"
                    ) from None
            time.sleep(FIRST_PAUSE_SECONDS * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def question(self, image: Image.Image) -> dict[str, Any]:
        """The body of a request: picture first, then the prompt that the model was trained with; greedy."""
        file = io.BytesIO()
        image.save(file, "PNG", compress_level=1)
        url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
        prompt = PREFIXES[self.engine] + FAMILIES[OFFICIAL_MODEL_TYPE].prompt.strip()
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": prompt}],
                }
            ],
            "temperature": 0,
            "max_tokens": self.max_new_tokens,
            "logprobs": True,
        }
        if self.engine == "vllm" and self.no_repeat_ngram_size:  # its guard looks back over `window_size` tokens
            guard = {"ngram_size": self.no_repeat_ngram_size, "window_size": self.max_new_tokens}
            body["vllm_xargs"] = guard
        return body

    def _post(self, path: str, body: bytes) -> Any:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.url.rstrip("/") + path, body, headers)
        with _OPENER.open(request, timeout=self.timeout_seconds) as answer:
            return json.loads(answer.read())


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the server is one's own: no proxy between


def _prediction(answer: Any) -> dict[str, Any]:
    try:
        choice = answer["choices"][0]
        text = choice["message"]["content"] or ""
        tokens = (choice.get("logprobs") or {}).get("content") or []
        chosen = [token["logprob"] for token in tokens]
        repeated = is_loop([token["token"] for token in tokens])
        runaway = choice.get("finish_reason") == "length" or repeated
    except (KeyError, IndexError, TypeError, AttributeError):
        raise Unanswered(f"no answer of OpenAI's chat protocol: {json.dumps(answer)[:ANSWER_SHOWN]}") from None
    row = {"prediction": text, "runaway": runaway}
    return row | ({"confidence": round(math.exp(sum(chosen) / len(chosen)), 6)} if chosen else {})


def read_by_server(
    pictures: Iterable[tuple[str, Path]], total: int, server: Server, limits: ImageLimits, out: Path, concurrency: int
) -> int:
    """Have the server read (image id, file) pairs into `out`, in order of the answers; how many have no answer.

    `concurrency` requests are open at a time, so that memory does not grow with `total`, which the progress bar shows.
    Refusal when the server is gone, or has failed 20 pictures in a row.
    """

    def ask(picture: tuple[str, Path]) -> dict[str, Any]:
        return server.read(open_image(picture[1], limits))

    failed = in_a_row = 0
    with (
        AppendedLines(out, key="image_id") as lines,
        track(pictures, total=total, what="reading", unit="picture") as progress,
    ):
        known = {row["image_id"] for row in lines.kept}
        lines.kept.clear()  # a million texts
        progress.update(len(known))
        for (image_id, _), future in in_parallel(ask, (p for p in pictures if p[0] not in known), concurrency):
            try:
                reading = future.result()
            except (UnreadableImage, Unanswered, OSError) as error:
                failed += 1
                in_a_row += isinstance(error, Unanswered)
                print(f"{image_id}: {getattr(error, 'reason', error)}", file=sys.stderr)
                if in_a_row == FAILURES_IN_A_ROW:
                    raise Refusal(
                        f"{server.url} has failed {in_a_row} pictures in a row, last {image_id}: {error}. Mend the "
                        "server and run the same command again: what was read is kept"
                    ) from None
            else:
                lines.append({"image_id": image_id} | reading)
                in_a_row = 0
            progress.update()
    return failed


def in_parallel(
    function: Callable[[Argument], Result], arguments: Iterable[Argument], workers: int
) -> Iterator[tuple[Argument, Future[Result]]]:
    """Each argument with its finished future, in order of finishing; the arguments are drawn as threads get free."""
    pool = ThreadPoolExecutor(workers)
    pending: dict[Future[Result], Argument] = {}
    try:
        for argument in arguments:
            pending[pool.submit(function, argument)] = argument
            if len(pending) == workers:
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    yield pending.pop(future), future
        while pending:
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                yield pending.pop(future), future
    finally:
        pool.shutdown(cancel_futures=True)


def read_served(
    pictures: Sequence[str],
    params: Params,
    *,
    url: str,
    model: str,
    out: Path,
    engine: str = "vllm",
    concurrency: int = 32,
    validation: bool = False,
) -> int:
    """Read files and folders, or the validation pictures, through a server; the exit code: 1 when any was refused.

    engine: one of PREFIXES. Refusal when there is nothing to read, or both are asked for.
    """
    if engine not in PREFIXES:
        raise Refusal(f"--engine {engine} is not known; choose {', '.join(PREFIXES)}")
    if validation == bool(pictures):
        raise Refusal("name photographs or folders, or say --validation, and not both")
    found, unreadable = _validation() if validation else _named(pictures)
    for outcome in unreadable:
        print(f"{name_of(outcome.photo)}: {outcome.problem}", file=sys.stderr)
    if not found:
        raise Refusal("no picture given, and none in the given folder")
    server = Server(url, model, engine, params.transcribe.max_new_tokens, params.transcribe.no_repeat_ngram_size)
    failed = read_by_server(found, len(found), server, ImageLimits.of(params.prepare), out, concurrency)
    failed += len(unreadable)
    print(f"{out.as_posix()}: {len(found) + len(unreadable) - failed} pictures read, {failed} refused", file=sys.stderr)
    return 1 if failed else 0


def _named(pictures: Sequence[str]) -> tuple[list[tuple[str, Path]], list[Outcome]]:
    photos, unreadable = expand(pictures)
    return [(name_of(path), path) for _, path in photos], unreadable


def _validation() -> tuple[list[tuple[str, Path]], list[Outcome]]:
    return [(sample.image_id, Path(sample.image_path)) for sample in read_metadata() if sample.split == "val"], []
