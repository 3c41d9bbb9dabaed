"""The page in a real browser, driven by the keyboard: nothing is lost, whatever dies and whoever else writes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from PIL import Image, ImageDraw

pytestmark = pytest.mark.slow

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMEDRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
SECONDS = 30  # a slow machine
# What reads is a stand-in: two words, of which it is unsure of the second. Its number is the picture's width.
PROGRAM = """
import sys
from ownhand.correct import correct
from ownhand.correction.proposals import ProposalReader
from ownhand.errors import Refusal, run_stage
from ownhand.params import read_params
from ownhand.samples import Reading

def read(pictures):
    sure, unsure = (0.9,) * 6, (0.2,) * 3
    return [Reading(f"Строка{p.width:>4}"[:10], 9, False, 0.6, sure + (0.9,) + unsure) for p in pictures]

def open_reader():
    if "--no-reader" in sys.argv:
        raise Refusal("no model here")
    return ProposalReader("the stand-in", "1", read)

run_stage(lambda: correct(read_params(), order="page", review="--review" in sys.argv, browser=False,
                          open_reader=open_reader), resumes=False)
"""


class Program:
    """`ownhand correct` in a process of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-c", PROGRAM, *options]
        self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        seen = ""
        while not (found := re.search(r"http://\S+", seen)):
            line = self.process.stdout.readline()
            assert line, f"the program ended: {seen}"
            seen += line
        self.address = found[0]

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def interrupt(self) -> str:
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> str:
        said, _ = self.process.communicate(timeout=SECONDS)
        return said


class Tab:
    """One tab of the browser, in the words of this test."""

    def __init__(self, driver: Any, address: str) -> None:
        from selenium.webdriver.common.by import By

        self.driver, self.by = driver, By.ID
        if driver.current_url.startswith("http"):
            driver.switch_to.new_window("tab")
        self.handle = driver.current_window_handle
        self.open(address)

    def open(self, address: str) -> None:
        self.here()
        self.driver.get(address)
        self.wait(lambda: self.text("label"))

    def here(self) -> None:
        self.driver.switch_to.window(self.handle)

    def wait(self, until: Callable[[], Any]) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        self.here()
        return WebDriverWait(self.driver, SECONDS, 0.05).until(lambda _: until())

    def find(self, name: str) -> Any:
        return self.driver.find_element(self.by, name)

    def text(self, name: str) -> str:
        return str(self.find(name).text)

    @property
    def field(self) -> str:
        return str(self.find("text").get_property("value"))

    def type(self, keys: str) -> None:
        self.here()
        self.find("text").send_keys(keys)

    def write(self, text: str) -> None:
        """Replace what stands in the field."""
        from selenium.webdriver.common.keys import Keys

        self.type(Keys.CONTROL + "a" + Keys.NULL + Keys.DELETE)
        self.type(text)

    def enter(self) -> None:
        """Accept, and wait for the next line."""
        from selenium.webdriver.common.keys import Keys

        before = self.text("label")
        self.type(Keys.ENTER)
        self.wait(lambda: not self.find("work").is_displayed() or self.text("label") != before)

    def alt(self, code: str, key: str) -> None:
        """A key with Alt, by its place on the keyboard and the letter of the layout."""
        self.here()
        for kind in ("rawKeyDown", "keyUp"):
            self.driver.execute_cdp_cmd(
                "Input.dispatchKeyEvent", {"type": kind, "modifiers": 1, "code": code, "key": key}
            )

    def run(self, script: str) -> Any:
        self.here()
        return self.driver.execute_script(f"return {script}")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if CHROMIUM is None or CHROMEDRIVER is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--window-size=1280,800"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options, webdriver.ChromeService(CHROMEDRIVER))
    yield browser
    browser.quit()


@pytest.fixture
def folder(tmp_path: Path, driver: Any) -> Iterator[Path]:
    (tmp_path / "data/raw").mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    for number in range(1, 6):
        picture = Image.new("RGB", (200 + number, 40), "white")
        ImageDraw.Draw(picture).text((9, 9), f"line {number}", fill="black")
        picture.save(tmp_path / f"data/raw/{number}.jpg")
    yield tmp_path
    for handle in driver.window_handles[1:]:
        driver.switch_to.window(handle)
        driver.close()
    driver.switch_to.window(driver.window_handles[0])
    driver.get("about:blank")


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., Program]]:
    programs: list[Program] = []

    def start_program(*options: str) -> Program:
        programs.append(Program(folder, *options))
        return programs[-1]

    yield start_program
    for program in programs:
        if program.process.poll() is None:
            program.kill()


def table(folder: Path) -> str:
    return (folder / "data/raw/annotations.csv").read_text(encoding="utf-8")


def test_what_was_accepted_survives_the_program_and_can_be_undone(
    folder: Path, driver: Any, start: Callable[..., Program]
) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    program = start()
    tab = Tab(driver, program.address)
    assert tab.text("label") == "1.jpg"
    tab.wait(lambda: tab.field == "Строка 201")
    tab.wait(lambda: tab.run("document.querySelector('#marks mark')?.textContent") == "201")
    ActionChains(driver).send_keys(Keys.TAB).perform()  # an element's own send_keys puts the caret at its end first
    assert tab.run("getSelection().toString()") == "201"
    tab.type("один")
    assert tab.field == "Строка один"
    assert tab.run("document.querySelectorAll('#marks mark').length") == 0
    tab.enter()
    assert table(folder) == "filename,text\n1.jpg,Строка один\n"
    # Another program adds a row and a column while the page is open.
    (folder / "data/raw/annotations.csv").write_text(
        "note,filename,text\n,1.jpg,Строка один\nнаша,5.jpg,пять\n", encoding="utf-8"
    )
    tab.write("два")
    tab.enter()
    written = "note,filename,text\n,1.jpg,Строка один\nнаша,5.jpg,пять\n,2.jpg,два\n"
    assert table(folder) == written
    tab.type(" не принято")
    program.kill()
    tab.type(Keys.ENTER)
    tab.wait(lambda: tab.find("offline").is_displayed())
    assert " не принято" in tab.field
    assert table(folder) == written
    program = start()
    tab.open(program.address)
    assert tab.text("label") == "3.jpg"
    assert tab.text("counts").startswith("2 left")
    tab.alt("KeyZ", "я")
    tab.wait(lambda: tab.text("label") == "2.jpg")
    assert tab.field == "два"
    assert table(folder) == written.replace(",2.jpg,два\n", "")
    tab.type("!")
    tab.enter()
    assert table(folder) == written.replace("два", "два!")
    said = program.interrupt()
    assert "1 line transcribed" in said and "`dvc repro`" in said
    assert program.process.returncode == 0


def test_two_tabs_do_not_overwrite_each_other(folder: Path, driver: Any, start: Callable[..., Program]) -> None:
    from selenium.webdriver.common.keys import Keys

    program = start("--no-reader")
    one = Tab(driver, program.address)
    one.write("раз")
    one.enter()
    one.type(Keys.ARROW_UP)
    one.wait(lambda: one.text("label") == "1.jpg")
    one.type(", моё")
    two = Tab(driver, program.address)
    assert two.text("label") not in ("1.jpg", "")
    two.alt("KeyZ", "z")
    two.wait(lambda: two.text("label") == "1.jpg")
    two.write("чужое")
    two.enter()
    assert table(folder) == "filename,text\n1.jpg,чужое\n"
    one.type(Keys.ENTER)
    one.wait(lambda: "чужое" in one.text("notice"))
    assert table(folder) == "filename,text\n1.jpg,чужое\n"
    one.find("mine").click()
    one.wait(lambda: not one.find("notice").is_displayed())
    one.enter()
    assert table(folder) == 'filename,text\n1.jpg,"раз, моё"\n'


def test_an_edit_elsewhere_is_shown_at_once(folder: Path, driver: Any, start: Callable[..., Program]) -> None:
    from selenium.webdriver.common.keys import Keys

    tab = Tab(driver, start("--no-reader").address)
    (folder / "data/raw/annotations.csv").write_text("filename,text\n1.jpg,чужое\n", encoding="utf-8")
    tab.type("моё")
    tab.type(Keys.ENTER)
    tab.wait(lambda: "чужое" in tab.text("notice"))
    tab.find("theirs").click()
    tab.wait(lambda: tab.field == "чужое")
    tab.enter()
    assert table(folder) == "filename,text\n1.jpg,чужое\n"


def test_keys_work_by_their_place_on_any_layout(folder: Path, driver: Any, start: Callable[..., Program]) -> None:
    tab = Tab(driver, start("--no-reader").address)
    for code, key, label in [("KeyU", "г", "2.jpg"), ("KeyN", "т", "3.jpg"), ("KeyS", "ы", "4.jpg")]:
        tab.alt(code, key)
        tab.wait(lambda label=label: tab.text("label") == label)
    noted = (folder / "data/raw/set_aside.csv").read_text(encoding="utf-8")
    assert noted == "filename,why\n1.jpg,unreadable\n2.jpg,not a line\n"
    assert "1 skipped" in tab.text("counts")
    width = tab.wait(lambda: tab.find("picture").size["width"])
    tab.alt("Equal", "=")
    assert tab.find("picture").size["width"] > width
    tab.alt("KeyR", "к")
    tab.wait(lambda: tab.run("document.getElementById('picture').naturalHeight") == 204)
    tab.write("четыре")
    tab.enter()
    tab.write("пять")
    tab.enter()
    assert tab.text("end-title") == "Only skipped lines are left"
    tab.find("again").click()
    tab.wait(lambda: tab.text("label") == "3.jpg")
    tab.write("три")
    tab.enter()
    assert tab.text("end-title") == "All lines are done"
    assert "dvc repro" in tab.text("end-next")
    assert "3 lines transcribed, 2 set aside; " in tab.text("end-words")


def test_the_program_is_stopped_from_the_page(folder: Path, driver: Any, start: Callable[..., Program]) -> None:
    program = start("--no-reader")
    tab = Tab(driver, program.address)
    tab.find("finish").click()
    tab.find("stop").click()
    assert "nothing was changed; 5 line(s) left" in program.end()
    assert program.process.returncode == 0


def test_one_enter_too_many_does_not_stop_the_program_and_a_signal_ends_it_with_what_was_gained(
    folder: Path, driver: Any, start: Callable[..., Program]
) -> None:
    from selenium.webdriver.common.keys import Keys

    (folder / "data/raw/annotations.csv").write_text("filename,text\n1.jpg,Строка 201\n", encoding="utf-8")
    program = start("--review")
    tab = Tab(driver, program.address)
    tab.enter()
    assert tab.text("end-title") == "All lines are done"
    for _ in range(3):
        driver.switch_to.active_element.send_keys(Keys.ENTER)
    tab.alt("KeyZ", "z")
    tab.wait(lambda: tab.text("label") == "1.jpg")  # the server still answers
    tab.enter()
    program.process.terminate()
    assert "1 line confirmed" in program.end()
    assert program.process.returncode == 0


def test_lines_of_a_page_go_into_its_page_file(folder: Path, driver: Any, start: Callable[..., Program]) -> None:
    raw = folder / "data/raw"
    for number in range(2, 6):
        (raw / f"{number}.jpg").unlink()
    lines = "".join(
        f'<TextLine id="l{n}"><Coords points="5,{5 + 10 * n} 190,{5 + 10 * n} 190,{13 + 10 * n} 5,{13 + 10 * n}"/>'
        "</TextLine>\n"
        for n in range(3)
    )
    page = (
        '<PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"><Page imageFilename="1.jpg" '
        f'imageWidth="201" imageHeight="40"><TextRegion id="r">\n{lines}</TextRegion></Page></PcGts>\n'
    )
    (raw / "1.xml").write_text(page, encoding="utf-8")
    tab = Tab(driver, start().address)
    assert tab.text("label") == "1.jpg, line 1 of 3"
    tab.wait(lambda: tab.run("document.getElementById('picture').naturalWidth") > 185)
    tab.wait(lambda: tab.field)
    tab.write("первая & <последняя>")
    tab.enter()
    assert tab.text("label") == "1.jpg, line 2 of 3"
    equiv = "<TextEquiv><Unicode>первая &amp; &lt;последняя&gt;</Unicode></TextEquiv></TextLine>"
    assert (raw / "1.xml").read_text(encoding="utf-8") == page.replace("</TextLine>", equiv, 1)


def test_review_shows_what_the_model_reads_otherwise(folder: Path, driver: Any, start: Callable[..., Program]) -> None:
    text = "filename,text\n1.jpg,Строка 201\n2.jpg,Стрoка 202\n"  # a Latin o
    (folder / "data/raw/annotations.csv").write_text(text, encoding="utf-8")
    tab = Tab(driver, start("--review").address)
    assert tab.text("label") == "1.jpg"
    tab.wait(lambda: tab.text("reading") == "The model reads the same.")
    tab.enter()
    tab.wait(lambda: tab.text("reading") == "The model reads: Строка 202 Take it")
    assert tab.run("document.querySelector('#marks mark').textContent") == "Стрoка"
    tab.driver.find_element("css selector", "#reading button").click()
    assert tab.field == "Строка 202"
    tab.enter()
    assert table(folder) == text.replace("o", "о")
    assert "1 line corrected, 1 confirmed" in tab.text("end-words")


def test_right_to_left_and_combining_characters_are_edited_as_they_are_written(
    folder: Path, driver: Any, start: Callable[..., Program]
) -> None:
    from selenium.webdriver.common.keys import Keys

    written = "filename,text\n4.jpg,за\u0301мок ѣ\n"
    (folder / "data/raw/annotations.csv").write_text(written, encoding="utf-8")
    tab = Tab(driver, start("--no-reader").address)
    tab.type("שלום, עולם")
    assert tab.run("getComputedStyle(document.getElementById('text')).direction") == "rtl"
    assert tab.run("getComputedStyle(document.getElementById('marks')).direction") == "rtl"
    tab.enter()
    assert tab.run("getComputedStyle(document.getElementById('text')).direction") == "ltr"
    tab.type("замок" + Keys.ARROW_LEFT * 3)
    special = tab.driver.find_elements("css selector", "#special button")
    assert [button.text for button in special] == ["◌\u0301", "ѣ"]
    special[0].click()
    assert tab.field == "за\u0301мок"
    tab.type(Keys.BACKSPACE + Keys.END + Keys.SHIFT + Keys.ENTER + Keys.NULL + "дом")
    assert tab.field == "замок\nдом"
    tab.enter()
    assert table(folder) == f'{written}1.jpg,"שלום, עולם"\n2.jpg,"замок\nдом"\n'
    tab.type(Keys.ARROW_UP)
    tab.wait(lambda: tab.text("label") == "2.jpg")
    tab.type(Keys.ARROW_UP)  # from the second row of the text to the first
    assert tab.text("label") == "2.jpg"
    tab.type(Keys.ARROW_UP)
    tab.wait(lambda: tab.text("label") == "1.jpg")


def test_what_was_begun_is_there_after_a_reload(folder: Path, driver: Any, start: Callable[..., Program]) -> None:
    tab = Tab(driver, start("--no-reader").address)
    tab.type("наполовину")
    tab.driver.refresh()
    tab.wait(lambda: tab.field == "наполовину")
    tab.enter()
    tab.driver.refresh()
    tab.wait(lambda: tab.text("label") == "2.jpg")
    assert tab.field == ""


def test_a_phone_shows_everything_and_nothing_comes_from_elsewhere(
    folder: Path, driver: Any, start: Callable[..., Program]
) -> None:
    program = start()
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    tab = Tab(driver, program.address)
    tab.wait(lambda: tab.field)
    assert tab.run("document.documentElement.scrollWidth") <= 390
    buttons = "[...document.querySelectorAll('.actions button')].filter((e) => e.checkVisibility())"
    assert tab.run(f"Math.max(...{buttons}.map((e) => e.getBoundingClientRect().bottom))") < 844
    loaded = tab.run("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert loaded and all(name.startswith(program.address) for name in loaded)
    shown = "[...document.querySelectorAll('button, textarea, figure')].filter((e) => e.checkVisibility())"
    assert tab.run(f"{shown}.filter((e) => !e.ariaLabel && !e.innerText.trim()).length") == 0
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
