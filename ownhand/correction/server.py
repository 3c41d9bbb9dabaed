"""The server: the page and what it asks for, for this computer alone.

Bound to 127.0.0.1; every address begins with a random token; requests under another host name, or from another site,
are refused; nothing is loaded from elsewhere. Whatever is accepted is on the disk before the answer is sent.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import threading
import unicodedata
import webbrowser
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvicorn
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel as Schema
from pydantic import Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ownhand.correction.pictures import share_of_line, show_line
from ownhand.correction.proposals import Proposals
from ownhand.correction.queue import Line, Queue, special_characters
from ownhand.correction.store import ChangedElsewhere, Store
from ownhand.errors import Refusal
from ownhand.evaluation.metrics import align, count_character_errors, mark_differences
from ownhand.images import ImageLimits, UnreadableImage
from ownhand.text import comparable

PAGE = Path(__file__).parent
HOST = "127.0.0.1"
MOST_BYTES = 1_000_000  # of a request
LONGEST_ADDRESS = 200  # characters; ours have a token and two short numbers
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}


class Guard:
    """Lets through what comes from this computer's browser to our own page, and puts HEADERS on every answer."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self.app = app
        self.hosts = {f"{name}:{port}".encode() for name in (HOST, "localhost")}
        self.origins = {b"http://" + host for host in self.hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *(one for one in extra if one[0] not in own)]
            await send(message)

        if scope["type"] != "http":
            return
        problem = self._problem(scope)
        answer = Response(problem, status_code=403, media_type="text/plain") if problem else self.app
        await answer(scope, receive, send_with_headers)

    def _problem(self, scope: Scope) -> str:
        sent: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            sent.setdefault(name.lower(), []).append(value)
        if len(sent.get(b"host", [])) != 1 or sent[b"host"][0] not in self.hosts:
            return "another host name than this server's"
        origins = sent.get(b"origin", [])
        if scope["method"] not in ("GET", "HEAD") and not origins:
            return "no Origin: only the page itself may change anything"
        if any(origin not in self.origins for origin in origins):
            return "another site's page may not use this server"
        if sent.get(b"sec-fetch-site", [b"none"])[0] not in (b"same-origin", b"none"):
            return "another site's page may not use this server"
        if int((sent.get(b"content-length") or [b"0"])[0]) > MOST_BYTES:
            return "the request is too long"
        if len(scope["path"]) > LONGEST_ADDRESS:
            return "the address is too long"
        return ""


class Sent(Schema):
    """What the page sends with a change; tab: which of several it comes from, seen: the transcription it showed."""

    tab: str
    number: int | None = None
    seen: str = ""
    text: str = ""
    why: str = ""
    seconds: float | None = Field(None, ge=0, allow_inf_nan=False)  # no JSON could hold these
    proposed: bool = False


class Correction:
    """What the addresses of the page do, on one queue of lines."""

    def __init__(
        self, queue: Queue, store: Store, proposals: Proposals, limits: ImageLimits, stop: Callable[[], None]
    ) -> None:
        self.queue, self.lines, self.store = queue, queue.lines, store
        self.proposals, self.limits, self.stop_server = proposals, limits, stop
        self.opened = False

    def page(self, request: Request) -> Response:
        """The page itself; the folder is looked through again, for pictures that came since."""
        if self.opened:
            self.lines.scan()
        self.opened = True
        environment = Environment(loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined)
        special = special_characters(self.lines.in_order)
        shown = [(one, f"◌{one}" if unicodedata.combining(one) else one) for one in special]
        return HTMLResponse(environment.get_template("page.html").render(review=self.queue.review, special=shown))

    def asset(self, request: Request) -> Response:
        """The page's script or style."""
        kind = request.path_params["kind"]
        if kind not in ("css", "js"):
            raise Refusal(f"there is no page.{kind}")
        content = (PAGE / f"page.{kind}").read_text(encoding="utf-8")
        return Response(content, media_type="text/css" if kind == "css" else "text/javascript")

    def next(self, request: Request) -> Response:
        """The next line for a tab."""
        return self._next(request.query_params.get("tab", ""), None)

    def line(self, request: Request) -> Response:
        """One line, whatever its state."""
        line = self._line(request.path_params["number"])
        self.lines.refresh(line)
        return self._answer({"line": self._describe(request.query_params.get("tab", ""), line)})

    def picture(self, request: Request) -> Response:
        """The picture of a line, turned clockwise by so many quarters."""
        line = self._line(request.path_params["number"])
        try:
            content = show_line(
                line, self.limits, request.path_params["turns"] % 4, small="small" in request.query_params
            )
        except (UnreadableImage, OSError) as error:
            return Response(str(error), status_code=404, media_type="text/plain")
        return Response(content, media_type="image/jpeg", headers={"cache-control": "private, max-age=600"})

    def status(self, request: Request) -> Response:
        """Counts, and what is new about the line that a tab shows."""
        line = self._line(request.path_params["number"])
        self.lines.refresh(line)
        return self._answer({"text": line.text, "why": line.why, "proposal": self._proposal(line)})

    def accept(self, sent: Sent) -> Response:
        """The transcription of a line, into the ground truth; then the next line."""
        line = self._line(sent.number)
        seconds = None if sent.seconds is None else round(sent.seconds, 1)
        self.store.accept(line, sent.seen, sent.text, seconds=seconds, proposed=sent.proposed, review=self.queue.review)
        self.queue.checked[line.name] = line.text
        self.queue.skipped.discard(line.number)
        return self._next(sent.tab, line)

    def set_aside(self, sent: Sent) -> Response:
        """A line that is no ground truth; then the next line."""
        line = self._line(sent.number)
        self.store.set_aside(line, sent.seen, sent.why)
        return self._next(sent.tab, line)

    def skip(self, sent: Sent) -> Response:
        """A line for later; then the next line. Without a number, all that were skipped are taken up again."""
        line = None if sent.number is None else self._line(sent.number)
        if line is None:
            self.queue.skipped.clear()
        else:
            self.queue.skipped.add(line.number)
        return self._next(sent.tab, line)

    def undo(self, sent: Sent) -> Response:
        """The last change taken back, and its line with what was written there."""
        line, entry = self.store.undo()
        self.queue.checked = self.store.checked()
        return self._answer({"line": self._describe(sent.tab, line), "draft": entry.text})

    def stop(self, sent: Sent) -> Response:
        """The end of the program."""
        threading.Timer(0.3, self.stop_server).start()  # the answer first
        return self._answer({})

    def _next(self, tab: str, after: Line | None) -> Response:
        lines = self.queue.next(tab, after, 2)
        if lines:
            self.lines.refresh(lines[0])
            if not self.queue.is_open(lines[0]):  # another program has changed it this moment
                lines = self.queue.next(tab, after, 2)
        return self._answer({"line": self._describe(tab, *lines) if lines else None})

    def _answer(self, content: dict[str, Any]) -> Response:
        left, skipped = self.queue.count_open()
        gains, proposals = self.store.gains(), self.proposals
        counts = {
            "left": left,
            "skipped": skipped,
            "gains": {**asdict(gains), "words": str(gains)},
            "bare_pages": self.lines.bare_pages,
            "unusable": self.lines.unusable,
            "reader": {
                "state": proposals.state,
                "name": proposals.reader_name,
                "read": proposals.read,
                "problem": proposals.problem,
            },
        }
        return JSONResponse({**content, "counts": counts})

    def _describe(self, tab: str, line: Line, upcoming: Line | None = None) -> dict[str, Any]:
        self.queue.hold(tab, line)
        order = self.lines.in_order
        places = () if line.region or line.gone else (line.place - 1, line.place + 1)
        before, after = (order[at].number if 0 <= at < len(order) else None for at in places or (-1, -1))
        return {
            "number": line.number,
            "name": line.name,
            "label": line.label,
            "text": line.text,
            "why": line.why,
            "whole": line.region is None,
            "share": share_of_line(line.region),
            "before": before,
            "after": after,
            "upcoming": upcoming.number if upcoming else None,
            "overwritten": self.store.overwritten(line),
            "proposal": self._proposal(line),
        }

    def _proposal(self, line: Line) -> dict[str, Any] | None:
        """The model's reading; marked: the words of the field, and whether each needs a look."""
        proposal = self.proposals.of(line)
        if proposal is None or not proposal.text:
            return None
        return {
            "text": proposal.text,
            "confidence": proposal.confidence,
            "marked": mark_doubtful(line.text, proposal.text) if line.text else proposal.words(),
            "differences": mark_differences(line.text, proposal.text) if line.text else [],
            "cer": cer(line, self.proposals),
        }

    def _line(self, number: int | None) -> Line:
        if number is None or not 0 <= number < len(self.lines.all):
            raise Refusal(f"there is no line {number}")
        return self.lines.all[number]


def cer(line: Line, proposals: Proposals) -> float | None:
    """The share of the line's characters that the model reads otherwise; None where that is not known."""
    proposal = proposals.of(line)
    if proposal is None or not line.text:
        return None
    errors, characters = count_character_errors(line.text, proposal.text)
    return errors / characters if characters else None


def mark_doubtful(text: str, reading: str) -> list[tuple[str, bool]]:
    """A transcription in words and the white space between them, and which words the model reads otherwise.

    What it reads otherwise between two words counts for the second.
    """
    if comparable(text) != text:  # the alignment knows single spaces only
        return []
    doubtful = [False]  # what is read before the first character
    for edit in align(text, reading):
        doubtful[-1] |= edit.kind == "insertion"  # it stands behind the last character
        doubtful += [edit.kind != "equal"] * len("".join(edit.truth))
    before, *doubtful = doubtful
    doubtful[0] |= before
    return [
        (found[0], not found[0].isspace() and any(doubtful[max(0, found.start() - 1) : found.end()]))
        for found in re.finditer(r"\s+|\S+", text)
    ]


def build_app(correction: Correction, token: str, port: int) -> ASGIApp:
    """The application under `/<token>/`; any other address is not found."""

    def get(answer: Callable[[Request], Response], path: str, *, alone: bool = True) -> Route:
        async def endpoint(request: Request) -> Response:
            return await run_in_threadpool(locked if alone else answer, request)

        def locked(request: Request) -> Response:
            with correction.store.lock:
                return answer(request)

        return Route(path, endpoint)

    def post(change: Callable[[Sent], Response]) -> Route:
        async def endpoint(request: Request) -> Response:
            body = b""
            async for part in request.stream():  # one that is sent in parts tells no length before
                body += part
                if len(body) > MOST_BYTES:
                    return JSONResponse({"problem": "the request is too long"}, status_code=413)
            return await run_in_threadpool(locked, body)

        def locked(body: bytes) -> Response:
            with correction.store.lock:
                return change(Sent.model_validate_json(body))

        return Route("/" + change.__name__.replace("_", "-"), endpoint, methods=["POST"])

    def refuse(request: Request, error: Exception) -> Response:
        return JSONResponse({"problem": str(error)}, status_code=422)

    def malformed(request: Request, error: Exception) -> Response:
        return JSONResponse({"problem": "this is nothing that the page sends"}, status_code=400)

    def conflict(request: Request, error: Exception) -> Response:
        assert isinstance(error, ChangedElsewhere)
        now = {"text": error.line.text, "why": error.line.why, "gone": error.line.gone}
        return JSONResponse({"elsewhere": now}, status_code=409)

    own = Starlette(
        routes=[
            get(correction.page, "/"),
            get(correction.asset, "/page.{kind}", alone=False),
            get(correction.next, "/next"),
            get(correction.line, "/line/{number:int}"),
            get(correction.picture, "/picture/{number:int}/{turns:int}", alone=False),
            get(correction.status, "/status/{number:int}"),
            *map(post, (correction.accept, correction.set_aside, correction.skip, correction.undo, correction.stop)),
        ],
        exception_handlers={
            Refusal: refuse,
            OSError: refuse,
            ValidationError: malformed,
            ChangedElsewhere: conflict,
        },
    )
    return Guard(Starlette(routes=[Mount("/" + token, own)]), port)


def serve(
    queue: Queue,
    store: Store,
    proposals: Proposals,
    limits: ImageLimits,
    port: int,
    announce: Callable[[str], None],
    *,
    browser: bool,
) -> None:
    """Serve the page until it is interrupted or stopped from the page; `announce` is told the address.

    port: 0 for any that is free. Refusal when the port is taken.
    """
    listening = socket.socket()
    if os.name != "nt":  # on Windows it would let two programs listen at once
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen()  # a browser that is quicker than the server waits
    except OSError as error:
        raise Refusal(f"port {port} cannot be used ({error.strerror}); name another one with --port") from None
    port = listening.getsockname()[1]
    token = secrets.token_urlsafe(24)
    address = f"http://{HOST}:{port}/{token}/"

    def stop() -> None:
        server.should_exit = True

    app = build_app(Correction(queue, store, proposals, limits, stop), token, port)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    announce(address)
    if browser:
        threading.Timer(0.5, webbrowser.open, [address]).start()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended by the system, too, it says what was gained
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
