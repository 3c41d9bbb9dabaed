"""The report's part on cross-validation: what it says, when it goes in front, and that nothing in it is run."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from validation_set import PARAMS, write, write_cross_validation, write_validation_set

from ownhand.evaluation.cross_validation import Fold
from ownhand.report import verdict
from ownhand.report.crossed import describe_losses, judge, numbers_in_front
from stages.evaluate import evaluate

EVIL = "<script>alert('x')</script>"
MANY = [(f"p{number}", "мама мыла раму", "мома мыла рану", "мама мыла рану") for number in range(6)]


def page_of(root: Path, folds: int, **changes: Any) -> str:
    evaluate(root, PARAMS.model_copy(update={"folds": folds, **changes}))
    return (root / "metrics/report/index.html").read_text(encoding="utf-8")


def words(page: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.partition("</style>")[2])).replace("\u00a0", " ")


def section(page: str) -> str:
    return page.partition('<section aria-labelledby="folds">')[2].partition("</section>")[0]


def summary_of(root: Path, folds: int, **changes: Any) -> dict[str, Any]:
    return evaluate(root, PARAMS.model_copy(update={"folds": folds, **changes}))


def test_without_folds_there_is_no_section_and_no_way_to_it(tmp_path: Path) -> None:
    page = page_of(write_validation_set(tmp_path), 0)
    assert section(page) == "" and 'href="#folds"' not in page


def test_the_section_gives_rate_interval_folds_and_worst_lines_with_their_pictures(tmp_path: Path) -> None:
    root = write_cross_validation(write_validation_set(tmp_path), 3, read_in_training="train lime")
    page = page_of(root, 3)
    part = section(page)
    assert 'href="#folds"' in page
    said = words("</style>" + part)
    assert "Each of the 4 pages was read once, by one of 3 adapters that were trained without it." in said
    assert "reads 3.7 % of the characters of unseen pages wrong (95 % interval 0.0–" in said
    assert "The adapter in models/adapter is none of these" in said
    assert "the loss per token is higher by 3.75: the adapters read" in said, "of the fold with two lines"
    table = part.partition("<tbody>")[2].partition("</tbody>")[0]
    assert re.findall(r'<th scope="row">(\d)</th>', table) == ["1", "2", "3"]
    worst = re.findall(r'<li class="example">.*?</li>', part, re.DOTALL)
    assert len(worst) == 2, "the two lines with an error"
    assert "16.7 %" in words("</style>" + worst[0]) and "p1/" in worst[0] and "<u>6</u>" in worst[0]
    assert "p9/" in worst[1] and all('src="data:image/jpeg;base64,' in one for one in worst)


def record(fold: int, held_out: int, loss: float, swapped: float) -> Fold:
    return Fold(
        fold=fold,
        trained=["t"],
        held_out=[f"{fold}/{number}" for number in range(held_out)],
        optimizer_steps=5,
        val_loss_before=3.0,
        val_loss=loss,
        val_loss_swapped_pictures=swapped,
    )


def test_a_fold_that_other_pictures_do_not_disturb_is_named_and_one_of_a_single_line_tells_nothing() -> None:
    reads, recites, single = record(1, 2, 1.0, 3.5), record(2, 2, 1.0, 1.05), record(3, 1, 1.0, 1.0)
    assert "higher by 2.50: the adapters read" in str(describe_losses([reads, single]))
    assert "higher by 2.00 to 2.50: the adapters read" in str(describe_losses([reads, record(2, 3, 1.0, 3.0)]))
    assert str(describe_losses([reads, recites, single])).startswith("In fold 2 the pictures of other lines hardly")
    assert describe_losses([single]) is None


def test_text_from_outside_is_shown_and_never_run(tmp_path: Path) -> None:
    root = write_validation_set(tmp_path, [("p1", EVIL, EVIL, EVIL + "x"), ("p2", EVIL, "", EVIL)])
    page = page_of(write_cross_validation(root, 2, read_in_training=EVIL), 2)
    assert "alert(" in section(page) and "<script>alert" not in page and page.count("<script>") == 1


def test_it_goes_in_front_only_where_it_alone_has_an_interval(tmp_path: Path) -> None:
    root = write_cross_validation(write_validation_set(tmp_path, MANY[:3]), 2)
    front = page_of(root, 2, min_pages=4)
    header = front.partition("<main>")[0]
    head = words(header)
    assert "An adapter trained like this one reads 5.8 % of the characters of unseen pages wrong" in head
    assert "By cross-validation over 4 pages" in head
    figures = dict(re.findall(r'<span class="name">(.*?)</span>.*?<span class="value">(.*?)</span>', header, re.DOTALL))
    assert figures["With adapter"].startswith("5.8")
    assert "3 validation lines from 3 pages only, which is too little to tell" in words(front)
    assert "Too few to say" not in words(front)
    plain = page_of(root, 2, min_pages=3)
    assert "The adapter reads 7.1 %" in words(plain.partition("<main>")[0])
    few = words(page_of(root, 2, min_pages=5))
    assert "Too few to say: 3 validation lines from 3 pages." in few
    assert "By cross-validation 5.8 % of all characters were wrong" in few
    assert "4 pages are too few for an interval." in few


def test_the_verdict_in_front_is_judged_by_the_rates_of_all_pages(tmp_path: Path) -> None:
    root = write_cross_validation(write_validation_set(tmp_path, MANY), 3, read_in_training="train line")
    summary = summary_of(root, 3, min_pages=7)
    assert numbers_in_front(summary) is summary["cross_validation"]
    found = judge(summary, 0.95, 7)
    assert found.state == verdict.judge(summary | summary["cross_validation"], 0.95, 7).state == "improved"
    assert verdict.judge(summary, 0.95, 7).state == "too few"
    alone = {name: value for name, value in summary.items() if name != "cross_validation"}
    assert "evaluate.folds" in judge(alone, 0.95, 7).limits[-1]
    enough = summary_of(root, 3, min_pages=6)
    assert judge(enough, 0.95, 6) == verdict.judge(enough, 0.95, 6)


def test_validation_pages_that_are_unusual_are_noted(tmp_path: Path) -> None:
    root = write_cross_validation(write_validation_set(tmp_path), 3)
    assert "Note:" not in words("</style>" + section(page_of(root, 3)))
    path = root / "data/cross_validation/adapter.jsonl"
    write(path, re.sub(r'"prediction": ".*?"', '"prediction": ""', path.read_text(encoding="utf-8")))
    part = words("</style>" + section(page_of(root, 3)))
    assert "Note: the validation pages seem easier than most: their CER is 2.3%" in part
    assert part.count("nothing read") == 5
