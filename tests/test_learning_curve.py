"""The learning curve: a planted law is found, its uncertainty covers the truth, and nothing is promised without one."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import ROOT
from validation_set import write_validation_set

from ownhand.errors import Refusal
from ownhand.evaluation.learning_curve import FILE, LearningCurve, Trained, make_curve, origin, read_curve, word_curve
from ownhand.files import write_json
from ownhand.params import EvaluateParams, read_params
from ownhand.samples import read_metadata
from stages.evaluate import evaluate

LINES = (19, 19, 38, 38, 76, 76, 152)
PAGES, CHARACTERS = 24, 120  # validation pages, and characters on each
PARAMS = EvaluateParams(bootstrap_samples=400, seed=1)


def draw(a: float, b: float, rng: np.random.Generator, scatter: float = 0.05, pages: int = PAGES) -> list[Trained]:
    """Adapters about CER = a * lines ** -b: pages are more or less hard, and every training has its own luck."""
    hard = rng.gamma(8, 1 / 8, pages)
    return [
        Trained(
            f"{'first' if i % 2 else 'last'} {n} lines",
            n,
            n // 4,
            10,
            rng.binomial(CHARACTERS, np.clip(a * n**-b * np.exp(scatter * rng.standard_normal()) * hard, 0, 1)),
        )
        for i, n in enumerate(LINES)
    ]


def curve_of(trained: list[Trained], target: float, params: EvaluateParams = PARAMS) -> LearningCurve:
    pages = len(trained[0].errors)
    return make_curve(trained, np.full(pages, 60), np.full(pages, CHARACTERS), "", params, target)


def test_a_law_without_noise_is_found_exactly() -> None:
    a, b, n = 2.0, 0.5, 10_000_000
    trained = [Trained("", lines, 1, 1, np.full(6, round(n * a * lines**-b))) for lines in (16, 32, 64, 128)]
    curve = make_curve(trained, np.full(6, n), np.full(6, n), "", PARAMS, a * 199.9**-b)
    assert curve.law is not None
    assert (curve.law.a, curve.law.b) == pytest.approx((a, b), rel=1e-4)
    assert curve.law.twice[0] == pytest.approx(a * 256**-b, rel=1e-4)
    assert (curve.goal.outlook, curve.goal.more_lines) == ("between", 72)
    assert 71 <= curve.goal.low <= curve.goal.high <= 73  # type: ignore[operator]
    assert word_curve(curve)[-1].startswith("About 72 more lines to reach 14.1457 %, between 7")


def test_the_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """The truth is the law itself, for these pages' own hardness; 80 % intervals, so that misses can be counted."""
    params = PARAMS.model_copy(update={"confidence_level": 0.8})
    a, b, target, runs = 1.2, 0.4, 0.12, 150
    needed = (target / a) ** (-1 / b) - LINES[-1]
    slope = goal = twice = 0
    for seed in range(runs):
        curve = curve_of(draw(a, b, np.random.default_rng(seed)), target, params)
        assert curve.law is not None
        slope += curve.law.b_low <= b <= curve.law.b_high
        twice += curve.law.twice[1] <= a * (2 * LINES[-1]) ** -b <= curve.law.twice[2]
        ends = curve.goal.low, curve.goal.high
        goal += curve.goal.outlook == "at least" and ends[0] <= needed + 1  # type: ignore[operator]
        goal += curve.goal.outlook == "between" and ends[0] - 1 <= needed <= ends[1] + 1  # type: ignore[operator]
    print(f"covered: slope {slope / runs:.2f}, goal {goal / runs:.2f}, twice {twice / runs:.2f}")
    assert all(0.72 <= covered / runs <= 0.97 for covered in (slope, goal, twice))


def test_where_more_lines_do_not_help_no_number_is_promised() -> None:
    flat = [curve_of(draw(0.3, 0.0, np.random.default_rng(seed)), 0.1) for seed in range(20)]
    assert {curve.goal.outlook for curve in flat} <= {"at least", "out of reach"}
    unsure = [curve for curve in flat if curve.law and curve.law.b_low <= 0]
    assert len(unsure) >= 16  # of 20, where 95 % intervals should hold 0
    assert "is not sure on these pages" in word_curve(unsure[0])[1]


def test_a_target_that_is_reached_and_one_that_is_out_of_reach_are_said_so() -> None:
    trained = draw(1.2, 0.4, np.random.default_rng(3), scatter=0.01)
    assert word_curve(curve_of(trained, 0.5))[-1] == "50 % is reached."
    far = curve_of(trained, 0.001)
    assert far.goal.outlook == "out of reach"
    assert word_curve(far)[-1].endswith("it takes more than 1368 more lines.")


def test_too_few_pages_or_adapters_give_points_and_no_prediction() -> None:
    few = curve_of(draw(1.2, 0.4, np.random.default_rng(1), pages=4), 0.1)
    assert few.law is None and few.goal.outlook == "unknown" and few.last.cer_low is None
    assert word_curve(few)[-1].endswith("cannot be predicted: 4 validation pages are too few.")
    two = curve_of(draw(1.2, 0.4, np.random.default_rng(1))[-3:], 0.1)
    assert two.law is None and two.last.cer_low is not None
    assert word_curve(two)[-1].endswith("cannot be predicted: 3 adapters are too few.")


def test_an_adapter_without_an_error_bends_no_law() -> None:
    trained = draw(1.2, 0.4, np.random.default_rng(1))
    trained[-1] = Trained("", 152, 38, 10, np.zeros(PAGES, np.int64))
    curve = curve_of(trained, 0.0001)
    assert curve.law is not None and np.isfinite(curve.law.twice).all()
    assert curve.goal.outlook == "reached"


def test_the_report_shows_the_curve_of_its_own_samples_only(tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    root = write_validation_set(tmp_path)
    params = read_params(root / "params.yaml")
    curve = curve_of(draw(1.2, 0.4, np.random.default_rng(1)), 0.12)
    of = origin(read_metadata(root / "data/processed"), params)
    write_json(root / FILE, curve.model_copy(update={"of": of}).model_dump())
    assert read_curve(root, read_metadata(root / "data/processed"), params) == curve.model_copy(update={"of": of})
    evaluate(root, PARAMS)
    page = (root / "metrics/report/index.html").read_text(encoding="utf-8")
    assert 'id="more"' in page and page.count("<circle") == len(LINES) + 1
    for sentence in word_curve(curve):
        assert sentence in page
    text = (root / "params.yaml").read_text(encoding="utf-8")
    (root / "params.yaml").write_text(text.replace("epochs: ", "epochs: 1"), encoding="utf-8")
    capsys.readouterr()
    evaluate(root, PARAMS)
    assert 'id="more"' not in (root / "metrics/report/index.html").read_text(encoding="utf-8")
    assert "is of other samples or parameters, and is not shown" in capsys.readouterr().out
    (root / FILE).write_text("{}", encoding="utf-8")
    with pytest.raises(Refusal, match=r"curve\.json cannot be read: .*; run `ownhand curve` again, or remove it"):
        evaluate(root, PARAMS)


def test_the_folder_that_the_report_looks_into_is_in_the_repository() -> None:
    assert (ROOT / FILE).parent.is_dir()  # DVC stops at a dependency that is missing
