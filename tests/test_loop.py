"""The loop, as a new user goes round it: from photographed pages without any transcription to fewer errors on the next.

The demo's writer has written some pages. Their lines are found, some are transcribed in a real browser, `dvc repro`
trains on them, and pages that nobody has touched are read before and after.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FONT, ROOT
from PIL import Image, ImageDraw
from test_correction_browser import Tab, driver  # noqa: F401 # a fixture
from test_pipeline import copy_of_the_repository, edit_params, run

from demo.pages import DrawnPage, draw_page, random_conditions, read_texts
from ownhand.evaluation.metrics import count_character_errors
from ownhand.pages.known_lines import PageFiles

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("rapidocr") is None or importlib.util.find_spec("onnxruntime") is None,
        reason="rapidocr and onnxruntime, the extra ownhand[lines], are not installed",
    ),
]

PAGES, LINES, UNTOUCHED = 9, 8, 3  # the last pages are never corrected
HELD = 0.9  # of a line's ink in one polygon: the line is found
PATIENCE_S = 600  # until the first proposal: a slow machine opens the model meanwhile


@dataclass(frozen=True)
class Notebook:
    """Photographed pages in data/raw of a copy of the repository, and what is written on them."""

    folder: Path
    pages: dict[str, DrawnPage]

    def polygons(self, name: str) -> list[tuple[str, np.ndarray]]:
        """(id, mask of the photograph) of the lines that were found, in the order of the file."""
        raw = self.folder / "data/raw"
        known = PageFiles(raw).of(raw / name)
        assert known is not None, f"no lines were found on {name}"
        masks = []
        for line in known.page.lines:
            mask = Image.new("1", self.pages[name].picture.size)
            ImageDraw.Draw(mask).polygon([tuple(point) for point in line.polygon], fill=1)
            masks.append((line.line_id, np.asarray(mask)))
        return masks

    def written(self, name: str) -> list[tuple[str, str]]:
        """(id, text) of each line that was found: of the written line whose ink it holds most of, "" for none."""
        found = []
        for line, mask in self.polygons(name):
            held = [self._held(mask, one.ink) for one in self.pages[name].lines]
            best = int(np.argmax(held))
            found.append((line, self.pages[name].lines[best].text if held[best] >= HELD else ""))
        return found

    @staticmethod
    def _held(mask: np.ndarray, ink: np.ndarray) -> float:
        x, y = np.rint(ink).astype(int).T
        return float(mask[y.clip(0, mask.shape[0] - 1), x.clip(0, mask.shape[1] - 1)].mean())

    def errors(self, names: list[str], *options: str) -> tuple[int, int]:
        """(wrong characters, characters) of the found lines of some pages, as `ownhand read` reads them."""
        photos = [f"data/raw/{name}" for name in names]
        said = run(self.folder, sys.executable, "-m", "ownhand", "read", *photos, "--format", "jsonl", *options)
        records = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        counts = []
        for name, record in zip(names, records, strict=True):
            read = {line["line"]: line["text"] for line in record["lines"]}
            counts += [count_character_errors(text, read[line]) for line, text in self.written(name) if text]
        return sum(errors for errors, _ in counts), sum(n for _, n in counts)


@pytest.fixture
def notebook(tmp_path: Path) -> Notebook:
    folder = copy_of_the_repository(tmp_path)
    shutil.rmtree(folder / "data/raw")
    (folder / "data/raw").mkdir()
    rng, texts = np.random.default_rng(4), read_texts(ROOT / "demo/texts/hand.tsv")
    pages = {}
    for number in range(PAGES):
        own = texts[number * LINES : (number + 1) * LINES]
        drawn = draw_page(own, FONT, random_conditions(rng), rng)
        name = f"page-{number + 1}.jpg"
        drawn.picture.save(folder / "data/raw" / name, quality=85)
        pages[name] = replace(drawn, picture=Image.new("L", drawn.picture.size))
    edit_params(
        folder, encode={"copies": 4}, train={"cer_lines": 0}, transcribe={"max_new_tokens": 64}, runtime={"threads": 1}
    )
    return Notebook(folder, pages)


def test_pages_without_a_transcription_teach_the_model_to_read_the_next(
    notebook: Notebook,
    driver: Any,  # noqa: F811
) -> None:
    began = time.monotonic()
    names = list(notebook.pages)
    corrected, untouched = names[:-UNTOUCHED], names[-UNTOUCHED:]
    run(notebook.folder, sys.executable, "-m", "ownhand", "lines", "data/raw")
    found = [text for name in names for _, text in notebook.written(name) if text]
    assert len(found) == len(set(found)), "no line is found twice"
    assert len(found) >= 0.95 * PAGES * LINES

    command = [sys.executable, "-m", "ownhand", "correct", "--no-browser", "--order", "page"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(notebook.folder)}
    program = subprocess.Popen(command, cwd=notebook.folder, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        done, proposed = correct(program, driver, notebook, corrected)
        program.send_signal(signal.SIGINT)
        said, _ = program.communicate(timeout=PATIENCE_S)
    finally:
        program.kill()
    assert program.returncode == 0
    assert f"correct: {done} lines transcribed" in said and "`dvc repro` trains with it" in said
    assert proposed > done / 2, "the model proposed"

    output = run(notebook.folder, "dvc", "repro")
    assert "lines without a transcription" in output  # those of the untouched pages wait
    assert json.loads((notebook.folder / "metrics/train.json").read_bytes())["train_lines"] < done
    report = (notebook.folder / "metrics/report/index.html").read_text(encoding="utf-8")
    assert "Not transcribed yet" in report
    before, n = notebook.errors(untouched, "--base")
    after, _ = notebook.errors(untouched)
    summary = next(line for line in said.splitlines() if "transcribed" in line)
    print(
        f"\nfound {len(found)} of {PAGES * LINES} lines; {summary}; untouched pages: CER {before / n:.3f} -> ", end=""
    )
    print(f"{after / n:.3f} on {n} characters; {time.monotonic() - began:.0f} s in all")
    assert after < 0.9 * before


def correct(program: subprocess.Popen[str], driver: Any, notebook: Notebook, names: list[str]) -> tuple[int, int]:  # noqa: F811
    """Transcribe the found lines of some pages in the browser; (how many, how many of them had a proposal)."""
    from selenium.webdriver.support.ui import WebDriverWait

    assert program.stdout
    seen = ""
    while not (address := re.search(r"http://\S+", seen)):
        line = program.stdout.readline()
        assert line, f"the program ended: {seen}"
        seen += line
    written = {name: [text for _, text in notebook.written(name)] for name in names}
    tab = Tab(driver, address[0])
    WebDriverWait(driver, PATIENCE_S, 0.5).until(lambda _: tab.text("reading"))
    done = proposed = 0
    while True:
        name, _, place = tab.text("label").partition(", line ")
        if name not in names:
            return done, proposed
        text = written[name][int(place.split()[0]) - 1]
        proposed += bool(tab.text("reading"))
        if not text:
            before = tab.text("label")
            tab.alt("KeyN", "n")  # not a line
            tab.wait(lambda before=before: tab.text("label") != before)
            continue
        if tab.field != text:
            tab.write(text)
        tab.enter()
        done += 1
