"""The parameters against samples, model and device: every finding provoked."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ownhand.checks.configuration import ConfigurationFacts, ModelLimits, check_configuration
from ownhand.checks.findings import Finding
from ownhand.checks.lengths import Lengths, SampleLength, TrainedLines, measure_lengths, read_trained_lines
from ownhand.model.fit import SequenceLimit
from ownhand.params import Params, read_params
from ownhand.samples import Sample

ROOT = Path(__file__).parent.parent
LINE = Sample("00001", "a.jpg", "текст", "a.jpg", "p", "", 600, 60, "train", "")
LENGTHS = Lengths(each=(), longest=900, sample=LINE, vision=700, labels=40, answer=60, prompt=710, aspect=5.0)
EACH = replace(LENGTHS, each=tuple(SampleLength(LINE, 900 if i < 10 else 300, 200, 40) for i in range(150)))
LIMITS = ModelLimits(("base", "gundam"), 9, 8192, ("sdpa", "eager"), {"attention": 48, "experts": 22})


def params(**groups: dict[str, Any]) -> Params:
    whole = read_params(ROOT / "params.yaml")
    groups["train"] = {"epochs": 3.0, "batch_size": 16, "accumulation": 1} | groups.get("train", {})
    changed = {name: getattr(whole, name).model_copy(update=values) for name, values in groups.items()}
    return whole.model_copy(update=changed)


def facts(**changes: Any) -> ConfigurationFacts:
    groups = {name: changes.pop(name) for name in tuple(changes) if name in Params.model_fields}
    good = ConfigurationFacts(params(**groups), "cuda", True, lines=150, lengths=LENGTHS, limits=LIMITS)
    return replace(good, **changes)


def found(case: ConfigurationFacts) -> dict[str, Finding]:
    return {finding.code: finding for finding in check_configuration(case) if finding.level != "ready"}


def test_the_demos_parameters_have_nothing_to_mend() -> None:
    assert found(facts()) == {}


@pytest.mark.parametrize(
    ("changes", "code", "level"),
    [
        ({"train": {"batch_size": 2000}, "encode": {"copies": 9}}, "CONF-002", "blocker"),
        ({"runtime": {"processes": 3}}, "CONF-002", "blocker"),  # 16 sequences cannot be shared by three
        ({"train": {"batch_size": 64, "accumulation": 40, "epochs": 50.0}}, "CONF-003", "warning"),
        ({"train": {"warmup_steps": 300}}, "CONF-004", "blocker"),
        ({"train": {"warmup_steps": 255, "warmup_share": 0.0}}, "CONF-004", "blocker"),
        ({"runtime": {"checkpoint_steps": 500}}, "CONF-005", "warning"),
        ({"train": {"evaluations": 1}}, "CONF-006", "warning"),
        ({"train": {"evaluations": 999}}, "CONF-006", "warning"),
        ({"model": {"dtype": "float16"}}, "CONF-007", "blocker"),
        ({"model": {"dtype": "float16"}, "bf16": False}, "CONF-007", "warning"),
        ({"model": {"dtype": "bfloat16"}, "bf16": False}, "CONF-008", "blocker"),
        ({"encode": {"mode": "large"}}, "CONF-009", "blocker"),
        ({"encode": {"max_tiles": 12}}, "CONF-010", "warning"),
        ({"lengths": replace(LENGTHS, longest=9000), "train": {"max_tokens": 9999}}, "CONF-011", "blocker"),
        ({"train": {"max_tokens": 9999}}, "CONF-011", "warning"),
        ({"lengths": replace(LENGTHS, prompt=8000)}, "CONF-011", "warning"),
        ({"limits": replace(LIMITS, matched={"attention": 48, "experts": 0})}, "CONF-012", "blocker"),
        ({"limits": replace(LIMITS, attention=("eager",))}, "CONF-013", "blocker"),
        ({"lengths": replace(LENGTHS, answer=400)}, "CONF-015", "warning"),
        ({"encode": {"mode": "small"}, "limits": replace(LIMITS, modes=("small",))}, "CONF-016", "warning"),
        ({"train": {"batch_tokens": 899}, "lengths": EACH}, "CONF-017", "blocker"),
    ],
)
def test_each_fault_is_found(changes: dict[str, Any], code: str, level: str) -> None:
    findings = found(facts(**changes))
    assert findings[code].level == level
    assert findings[code].seen and findings[code].remedy
    if code != "CONF-002":  # a batch that the set cannot fill has consequences of its own
        assert findings.keys() == {code}


def test_a_run_of_few_steps_is_named() -> None:
    case = facts(
        lines=20, encode={"copies": 0}, train={"epochs": 5.0, "evaluations": 2}, runtime={"checkpoint_steps": 3}
    )
    assert found(case).keys() == {"CONF-014"}
    assert "2 an epoch x 5 epochs = 10" in found(case)["CONF-014"].seen


def test_arithmetic_is_shown() -> None:
    seen = {finding.code: finding.seen for finding in check_configuration(facts(encode={"copies": 1}))}
    assert seen["CONF-014"] == "19 an epoch x 3 epochs = 57"
    assert seen["CONF-003"] == "16 x 1 = 16 sequences a step, of 300"
    assert seen["CONF-004"] == "6 of 57 optimizer steps (11%)"
    assert "every 15 of 57 optimizer steps: 4 in all" in seen["CONF-006"]


def test_steps_within_a_token_budget_are_told_beforehand() -> None:
    case = facts(train={"batch_tokens": 1800}, encode={"copies": 0}, lengths=EACH)
    seen = {finding.code: finding.seen for finding in check_configuration(case)}
    assert seen["CONF-014"] == "29 an epoch x 3 epochs = 87"  # 10 / 2 batches of long lines, 140 / 6 of short ones
    assert seen["CONF-003"] == "5.2 x 1 = 6 sequences a step, of 150"
    assert seen["CONF-017"].endswith("29 batches an epoch")
    assert "CONF-002" not in found(replace(case, params=params(train={"batch_tokens": 1800, "batch_size": 2000})))
    unknown = replace(case, lengths=None, limits=None)
    assert "CONF-014" not in {finding.code for finding in check_configuration(unknown)}


def test_without_samples_or_model_the_rest_is_still_checked() -> None:
    case = ConfigurationFacts(params(model={"dtype": "float16"}), "cpu", True)
    assert found(case).keys() == {"CONF-007"}
    assert found(replace(case, limits=replace(LIMITS, modes=("base",)))).keys() == {"CONF-007", "CONF-009"}


def test_squashing_does_not_matter_for_square_pictures() -> None:
    square = replace(LENGTHS, aspect=1.2)
    assert found(facts(encode={"mode": "small"}, lengths=square, limits=replace(LIMITS, modes=("small",)))) == {}


def notebook(characters: int, shown: float, vision: int) -> Lengths:
    line = replace(LINE, text="а" * characters)
    return replace(LENGTHS, each=(SampleLength(line, 300, vision, characters, shown),) * 40)


def test_lines_shown_smaller_than_the_base_model_knows_them_are_named_with_the_numbers_and_the_remedy() -> None:
    limits = replace(LIMITS, trained=TrainedLines(pixels=15.4, vision=1.38, longest=28))
    small = found(facts(lengths=notebook(60, 512, 41), limits=limits))["CONF-018"]
    assert small.level == "warning"
    assert "at most 8.5 pixels and 0.68 vision tokens a character" in small.seen
    assert "trained on 15.4 and 1.38 at least, in lines of up to 28 characters" in small.seen
    assert "40 of 40 lines have less than two thirds of that, 40 are longer" in small.seen
    assert "set encode.max_tiles to 9" in small.remedy and "base model" in small.remedy
    squashed = found(facts(encode={"mode": "base"}, lengths=notebook(60, 128, 41), limits=limits))["CONF-018"]
    assert "set encode.mode to gundam" in squashed.remedy
    long = found(facts(lengths=notebook(40, 1024, 60), limits=limits))["CONF-018"]
    assert "0 of 40 lines have less" in long.seen and "max_tiles" not in long.remedy
    few_tokens = found(facts(lengths=notebook(20, 512, 18), limits=limits))
    assert few_tokens.keys() == {"CONF-018"}
    few_pixels = found(facts(lengths=notebook(20, 200, 60), limits=limits))
    assert few_pixels.keys() == {"CONF-018"} and "40 of 40 lines have less" in few_pixels["CONF-018"].seen
    assert found(facts(lengths=notebook(20, 512, 30), limits=limits)) == {}
    assert found(facts(lengths=notebook(60, 5760, 700))) == {}, "what DeepSeek-OCR is shown of such a line"


def test_the_demos_lines_are_as_large_as_its_base_model_knows_them() -> None:
    demo = read_params(ROOT / "params.yaml")
    demo = demo.model_copy(
        update={"model": demo.model.model_copy(update={"name_or_path": str(ROOT / demo.model.name_or_path)})}
    )
    limit = SequenceLimit.of(demo)
    with (ROOT / "data/raw/annotations.csv").open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    samples = []
    for name, text, *_ in rows:
        with Image.open(ROOT / "data/raw" / name) as image:
            samples.append(replace(LINE, text=text, width=image.width, height=image.height))
    limits = replace(LIMITS, trained=read_trained_lines(limit.base.folder))
    assert "CONF-018" not in found(facts(lengths=measure_lengths(samples, limit), limits=limits))
