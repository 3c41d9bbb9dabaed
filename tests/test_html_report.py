"""The report: complete, self-contained, escaped, and usable without its script."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from validation_set import PARAMS, ROWS, read_predictions, write, write_predictions, write_validation_set

from ownhand.errors import Refusal
from ownhand.report.html_report import show_spaces
from ownhand.report.records import read_curves
from ownhand.samples import read_metadata, write_metadata
from ownhand.vision.contact_sheet import ContactRow, write_contact_sheet
from stages.evaluate import evaluate

CHROMIUM = shutil.which("chromium")
EVIL = "<script>alert('x')</script> & \"quoted\""


def write_report(root: Path, **changes: int | float) -> str:
    evaluate(root, PARAMS.model_copy(update=changes))
    return (root / "metrics/report/index.html").read_text(encoding="utf-8")


def without_markup(text: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", text))


def cards(page: str) -> list[str]:
    return re.findall(r'<li class="line".*?</li>', page, re.DOTALL)


class Structure(HTMLParser):
    """Collects ids, what refers to them, tags left open, and every address."""

    VOID = ("meta", "img", "line", "polyline", "br")

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.mismatched: list[str] = []
        self.images_without_words = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag not in self.VOID:
            self.open.append(tag)
        if "id" in values:
            self.ids.append(values["id"])
        self.references += values.get("aria-labelledby", "").split()
        for name in ("href", "src"):
            if name in values:
                self.addresses.append(values[name])
        if tag == "img" and not values.get("alt"):
            self.images_without_words += 1

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID and (not self.open or self.open.pop() != tag):
            self.mismatched.append(tag)


def test_every_line_is_there_with_picture_transcription_and_both_readings(tmp_path: Path) -> None:
    page = write_report(write_validation_set(tmp_path))
    assert len(cards(page)) == len(ROWS)
    for number, (_, truth, base, adapter) in enumerate(ROWS, start=2):
        card = next(card for card in cards(page) if f'id="line-{number:05d}"' in card)
        assert 'src="data:image/jpeg;base64,' in card
        shown = [without_markup(text).strip() for text in re.findall(r'<dd class="text".*?>(.*?)</dd>', card)]
        assert shown == [truth, adapter, base or "nothing read"]


def test_the_worst_line_of_the_adapter_comes_first(tmp_path: Path) -> None:
    first, second, *_ = cards(write_report(write_validation_set(tmp_path)))
    assert 'id="line-00003"' in first and "1 wrong, 0 missing, 0 extra" in first
    assert "no error" in second


def test_the_headline_and_the_verdict_are_those_of_the_numbers(tmp_path: Path) -> None:
    page = without_markup(write_report(write_validation_set(tmp_path))).replace("\u00a0", " ")
    assert "The adapter reads 2.3 % of the characters wrong (95 % interval 0.0–5.0 %)" in page
    assert "the base model alone 56.8 %" in page
    assert "All answers below are about" not in page


def test_words_lines_without_an_error_and_the_cost_in_print_stand_beside_the_headline(tmp_path: Path) -> None:
    page = without_markup(write_report(write_validation_set(tmp_path))).replace("\u00a0", " ")
    cost = re.search(r"Counted in words, .*", page)
    assert cost is not None and page.index(cost[0]) < page.index("Has it improved?")
    exact = sum(truth == adapter for _, truth, _, adapter in ROWS)
    assert f"; {exact} of {len(ROWS)} lines are without any error." in cost[0]


def test_one_line_says_what_it_cannot_tell(tmp_path: Path) -> None:
    page = without_markup(write_report(write_validation_set(tmp_path, ROWS[:1]))).replace("\u00a0", " ")
    assert "Too few to say: 1 validation line from 1 page." in page
    assert "percentage points above" not in page
    assert "All answers below are about 1 line only." in page


def test_nothing_in_it_leaves_the_file(tmp_path: Path) -> None:
    page = write_report(write_validation_set(tmp_path))
    structure = Structure()
    structure.feed(page)
    assert all(address.startswith(("#", "data:image/jpeg;base64,")) for address in structure.addresses)
    assert "http://" not in page and "https://" not in page and "@import" not in page and "url(" not in page
    assert "default-src 'none'" in page


def test_the_markup_is_closed_ids_are_unique_and_references_lead_somewhere(tmp_path: Path) -> None:
    structure = Structure()
    structure.feed(write_report(write_validation_set(tmp_path)))
    assert structure.open == structure.mismatched == []
    assert len(structure.ids) == len(set(structure.ids))
    targets = {address[1:] for address in structure.addresses if address.startswith("#")}
    assert targets | set(structure.references) <= set(structure.ids)
    assert structure.images_without_words == 0


def test_text_from_outside_is_shown_and_never_run(tmp_path: Path) -> None:
    root = write_validation_set(tmp_path, [(EVIL, EVIL, EVIL + "x", EVIL)])
    write(root / "metrics/rejected.csv", f'file,row,reason\n"{EVIL.replace(chr(34), chr(34) * 2)}",3,<b>bad</b>: 1\n')
    write(root / "metrics/train.json", '{"findings": {"TRAIN-001": "<i>x</i>"}, "note": "<img src=x>"}')
    page = write_report(root)
    assert "<script>alert" not in page and "<b>bad" not in page and "<i>x" not in page and "<img src=x" not in page
    assert page.count("<script>") == 1
    text = re.search(r'<dd class="text".*?>(.*?)</dd>', cards(page)[0])
    assert text is not None and without_markup(text[1]) == EVIL


def test_without_its_script_every_line_is_visible_and_the_controls_are_not(tmp_path: Path) -> None:
    page = write_report(write_validation_set(tmp_path), worst_lines=1)
    assert not any(re.match(r"<li[^>]* hidden", card) for card in cards(page))
    assert '<div class="tools" hidden>' in page
    assert 'data-first="1"' in page


def test_training_data_and_settings_are_told_where_they_are_recorded(tmp_path: Path) -> None:
    root = write_validation_set(tmp_path)
    bare = write_report(root)
    assert "No record of a training run" in bare and "<polyline" not in bare
    write(root / "metrics/train.json", '{"val_loss": 0.4, "val_loss_swapped_pictures": 5.0, "optimizer_steps": 1200}')
    write(root / "metrics/curves/val_loss.csv", "step,loss\n10,2.0\n20,1.0\n")
    write(root / "metrics/rejected.csv", "file,row,reason\na.jpg,3,too small: 1 x 1 px\nb.jpg,4,too small: 2 x 1 px\n")
    page = write_report(root)
    assert "0.40 with own pictures, 5.00" in page and "1,200" in page
    assert '<polyline class="series1" points="50.00,0.00 100.00,50.00"/>' in page
    assert "2 × too small" in page and "too small: 2 x 1 px" in page
    assert "bootstrap_samples" in page


def test_copies_are_shown_with_their_settings_where_there_are_any(tmp_path: Path) -> None:
    root = write_validation_set(tmp_path)
    assert "Augmented copies" not in write_report(root)
    pictures = [("as it is", Image.new("RGB", (300, 40), "white")), ("copy 1", Image.new("RGB", (310, 44), "grey"))]
    folder = root / "data/features/contact_sheet"
    write_contact_sheet(folder, {"copies": 1, "seed": 5, "blur": 0.012}, [ContactRow("мама <b>мыла</b>", pictures)])
    page = write_report(root)
    assert 'alt="мама &lt;b&gt;мыла&lt;/b&gt;, copy 1"' in page and 'width="310" height="44"' in page
    assert "in 1\N{NO-BREAK SPACE}changed version;" in page
    assert "copies 1, seed 5, blur 0.012" in page
    write_contact_sheet(folder, {"copies": 0, "seed": 5}, [ContactRow("мама", pictures[:1])])
    assert "Augmented copies" not in write_report(root)


def many_rows(count: int) -> list[tuple[str, str, str, str]]:
    """Lines on pages of four, the fewer errors the later: what the set says by heart is "ш" for "щ"."""
    truth = "щука, ёж и Mac № 5"
    return [(f"p{n // 4:03d}", truth, truth.replace("а", "о"), truth.replace("щ", "ш")[n % 3 :]) for n in range(count)]


def test_the_six_questions_are_answered_in_front(tmp_path: Path) -> None:
    page = without_markup(write_report(write_validation_set(tmp_path, many_rows(24)))).replace("\u00a0", " ")
    for question, answer in (
        ("Has it improved?", ("No, it has become worse", "Not shown", "Yes, it has improved")),
        ("How sure is that?", ("percentage points",)),
        ("Does it look at the pictures, or recite?", ("It looks at the pictures",)),
        ("What goes wrong?", ("“щ” read as “ш” (8 times)",)),
        ("Which lines should I check?", ("5 lines with the lowest confidence (20 % of all)",)),
        ("What should I annotate next?", ("Lines with “щ”",)),
    ):
        after = page.partition(question)[2][:400]
        assert any(words in after for words in answer), (question, after)


def test_every_reader_is_a_column_of_the_one_table(tmp_path: Path) -> None:
    root = write_validation_set(tmp_path)
    rows = [json.dumps({"image_id": f"{n:05d}", "prediction": "да"}) for n in range(2, 6)]
    write(root / "data/others/tesseract.jsonl", "\n".join(rows))
    page = write_report(root)
    heads = re.findall(r"<thead><tr>(.*?)</tr>", page)
    assert [without_markup(cell) for cell in re.findall(r"<th.*?</th>", heads[0])] == [
        *("Measure", "Base model", "With adapter", "tesseract")
    ]
    assert all("<dt>tesseract</dt>" in card for card in cards(page))
    rates = re.search(r"Runaway outputs.*?</tr>", page)
    assert rates is not None and rates[0].count("<td>") == 3 and "<td>–</td>" in rates[0]


def test_the_lenient_rules_are_visible_with_what_each_forgives(tmp_path: Path) -> None:
    page = write_report(write_validation_set(tmp_path))
    table = page.partition('id="lenient"')[2].partition("</table>")[0]
    assert [rule for rule in ("case", "ё", "quotes", "dashes", "punctuation") if f">{rule} <" in table] == [
        *("case", "ё", "quotes", "dashes", "punctuation")
    ]
    assert "<details" not in page[: page.index(table)]


def test_a_confusion_is_shown_with_the_picture_of_a_line_and_the_spot(tmp_path: Path) -> None:
    page = write_report(write_validation_set(tmp_path))
    example = re.search(r'<li class="example">.*?</li>', page, re.DOTALL)
    assert example is not None
    assert 'src="data:image/jpeg;base64,' in example[0] and 'href="#line-00003"' in example[0]
    assert re.findall("<mark>(.)</mark>", example[0]) == ["5", "6"]


def test_errors_by_length_and_script_are_tables_where_there_is_more_than_one_row(tmp_path: Path) -> None:
    page = write_report(write_validation_set(tmp_path))
    assert "By length of the line" in page and "6–10" in page and "By script" in page and "Cyrillic" in page
    assert "By hand" not in page


def test_confidence_is_drawn_and_told_in_figures_where_there_are_lines_enough(tmp_path: Path) -> None:
    few = write_report(write_validation_set(tmp_path / "few"))
    assert "Too few lines to say" in few and "calibration" not in few.partition("</style>")[2]
    page = write_report(write_validation_set(tmp_path / "many", many_rows(40)))
    figure = re.search(r'<figure class="curve calibration".*?</figure>', page, re.DOTALL)
    assert figure is not None and figure[0].count('class="mark"') == 8
    assert "What checking by hand leaves" in page


def test_warnings_stand_in_front_with_their_codes(tmp_path: Path) -> None:
    root = write_validation_set(tmp_path)
    assert 'aria-label="Warnings"' not in write_report(root)
    probes = [row for row in read_predictions(root, "probes") if row["probe"] == "printed"]
    write_predictions(root, "probes", [{**row, "prediction": row["reader"].replace("base", "Вход")} for row in probes])
    write(root / "metrics/train.json", '{"findings": {"TRAIN-001": "nothing was learned"}}')
    page = write_report(root)
    front = page.partition('aria-label="Warnings"')[2].partition("</section>")[0]
    assert "EVAL-003" in front and "TRAIN-001" in front and "nothing was learned" in front


def test_readiness_findings_are_told_with_their_remedy_and_are_absent_without_a_file(tmp_path: Path) -> None:
    root = write_validation_set(tmp_path)
    assert "Readiness" not in write_report(root)
    findings = [
        {"code": "DATA-007", "level": "warning", "seen": "+ in no training <text>", "remedy": "add lines"},
        {"code": "ENV-001", "title": "Python", "level": "ready", "seen": "3.11", "remedy": ""},
    ]
    write(root / "metrics/readiness.json", json.dumps({"findings": findings}))
    page = write_report(root)
    assert "DATA-007</strong>: + in no training &lt;text&gt;" in page and "add lines" in page
    assert page.index("DATA-007") < page.index("What was checked and is in order") < page.index("ENV-001")


@pytest.mark.parametrize("name", ["train.json", "readiness.json"])
@pytest.mark.parametrize("content", ["", '{"val_loss": 1', "[]", "7"])
def test_a_damaged_record_is_named_with_what_makes_it_anew(tmp_path: Path, name: str, content: str) -> None:
    root = write_validation_set(tmp_path)
    write(root / "metrics" / name, content)
    with pytest.raises(Refusal, match=rf"metrics/{re.escape(name)} is damaged.*dvc repro --force"):
        write_report(root)


def test_only_parameters_that_dvc_watches_are_shown(tmp_path: Path) -> None:
    page = write_report(write_validation_set(tmp_path))
    assert "train.lora_r: " in page and "evaluate.bootstrap_samples: " in page
    assert "runtime." not in page and "check.overfit" not in page


def test_the_hand_is_named_only_where_there_are_several(tmp_path: Path) -> None:
    root = write_validation_set(tmp_path)
    processed = root / "data/processed"
    samples = [replace(sample, hand="Анна") for sample in read_metadata(processed)]
    write_metadata(samples, processed)
    assert "page p1 ·" in write_report(root)
    write_metadata([*(replace(sample, hand="Пётр") for sample in samples[:2]), *samples[2:]], processed)
    page = write_report(root)
    assert "page Пётр / p1 ·" in page and "page Анна / p1 ·" in page


def test_invisible_characters_are_named() -> None:
    assert [show_spaces(text) for text in ("", " ", "ё", "\u200b", "\u0301a")] == [
        "nothing",
        "␣",
        "ё",
        "U+200B",
        "\u0301a",
    ]


def test_a_folder_without_curves_is_no_curve(tmp_path: Path) -> None:
    assert read_curves(tmp_path / "curves", "*_loss.csv", "loss") is None


@pytest.fixture(scope="module")
def thousand_lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on a thousand lines in pictures full of detail."""
    root = tmp_path_factory.mktemp("thousand")
    rows = [
        (f"p{number // 8}", "Деньги лежат в сахарнице, 40 руб.", "Дсньтн жат", "Деньги лсжат в")
        for number in range(1000)
    ]
    write_validation_set(root, rows, (600, 64))
    noise = np.random.default_rng(1).integers(200, 256, (64, 600, 3), np.uint8)
    for path in (root / "data/processed/val/images").iterdir():
        Image.fromarray(noise).save(path, quality=80)
    write_report(root, bootstrap_samples=100)
    return root / "metrics/report/index.html"


@pytest.mark.slow
def test_a_thousand_lines_stay_under_25_mb(thousand_lines: Path) -> None:
    page = thousand_lines.read_text(encoding="utf-8")
    assert len(cards(page)) == 1000
    assert 5_000_000 < len(page.encode()) < 25_000_000


def open_in_browser(path: Path, profile: Path) -> subprocess.CompletedProcess[str]:
    command = [
        str(CHROMIUM),
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--enable-logging=stderr"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        f"--user-data-dir={profile}",
        "--dump-dom",
        path.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=500)


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs the browser chromium on the PATH")


@pytest.mark.slow
@needs_chromium
def test_in_a_browser_a_thousand_lines_open_in_two_seconds_of_work(thousand_lines: Path, tmp_path: Path) -> None:
    """Processor time of all of the browser's processes beyond that of an empty page: other work does not count."""
    resource = pytest.importorskip("resource")
    write(tmp_path / "empty.html", "<p>empty</p>")

    def work_seconds(path: Path) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ended = open_in_browser(path, tmp_path / "profile")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert ended.returncode == 0
        return float(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    empty = [work_seconds(tmp_path / "empty.html") for _ in range(2)][-1]  # the first one makes the profile
    assert work_seconds(thousand_lines) - empty < 2


@needs_chromium
def test_in_a_browser_the_list_is_shortened_and_nothing_is_blocked_or_broken(tmp_path: Path) -> None:
    write_report(write_validation_set(tmp_path), worst_lines=2)
    ended = open_in_browser(tmp_path / "metrics/report/index.html", tmp_path / "profile")
    assert "2 of 4 shown" in ended.stdout
    assert sum(bool(re.match(r"<li[^>]* hidden", card)) for card in cards(ended.stdout)) == 2
    assert "CONSOLE" not in ended.stderr, ended.stderr
