"""Findings: sorted, shown in three forms, and explained on one page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ownhand.checks.findings import (
    CATALOGUE,
    as_json,
    as_markdown,
    as_text,
    blocker,
    gigabytes,
    is_ready,
    ready,
    sort_findings,
    verdict,
    warning,
)

PAGE = (Path(__file__).parent.parent / "docs/findings.md").read_text(encoding="utf-8")
MIXED = [
    ready("MODEL-001", "models/base"),
    warning("CONF-005", "none before the end", "set runtime.checkpoint_steps"),
    blocker("DATA-001", "0 samples", "add some"),
    blocker("CONF-002", "4 | 3", "lower it"),
]


def test_the_page_explains_exactly_the_codes_that_exist_in_their_words() -> None:
    assert re.findall(r"^### (\S+)$", PAGE, re.MULTILINE) == list(CATALOGUE)
    words = " ".join(PAGE.split())
    for code, (title, why) in CATALOGUE.items():
        assert f"### {code} **{title}.** {why} " in words, code


def test_every_code_is_used_by_a_check() -> None:
    root = Path(__file__).parent.parent
    sources = [*root.glob("ownhand/**/*.py"), *root.glob("stages/*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources if path.name != "findings.py")
    assert [one for one in CATALOGUE if f'"{one}"' not in code] == []
    assert set(re.findall(r'"((?:ENV|CONF|DATA|MODEL|LEARN)-\d+)"', code)) == set(CATALOGUE)


def test_blockers_come_first_in_files_and_last_in_the_terminal() -> None:
    assert [one.code for one in sort_findings(MIXED)] == ["CONF-002", "DATA-001", "CONF-005", "MODEL-001"]
    text = as_text(MIXED)
    assert text.index("MODEL-001") < text.index("CONF-005") < text.index("DATA-001") < text.index("CONF-002")
    assert as_text(list(reversed(MIXED))) == text


def test_the_last_line_says_ready_or_why_not() -> None:
    assert verdict(MIXED) == "NOT READY: 2 blockers (CONF-002, DATA-001); 1 warning (CONF-005)"
    assert verdict(MIXED[:2]) == "READY: 1 warning (CONF-005)"
    assert verdict(MIXED[:1]) == "READY: 1 check, nothing to mend"
    assert is_ready(MIXED[:2]) and not is_ready(MIXED)


def test_the_table_fits_the_terminal_and_holds_every_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = warning("DATA-007", "a word " * 60, "another word " * 30)
    lines = as_text([*MIXED, long]).splitlines()
    assert max(map(len, lines)) < 80
    assert any("-> add some" in line for line in lines)


def test_json_and_markdown_hold_everything_and_link_to_the_page() -> None:
    content = json.loads(json.dumps(as_json(MIXED)))
    assert content["ready"] is False and content["verdict"] == verdict(MIXED)
    assert content["findings"][0] == {
        "code": "CONF-002",
        "title": "Batch against training set",
        "level": "blocker",
        "seen": "4 | 3",
        "remedy": "lower it",
    }
    markdown = as_markdown(MIXED)
    assert "[DATA-001](../docs/findings.md#data-001)" in markdown
    assert "4 \\| 3" in markdown


def test_bytes_are_readable() -> None:
    assert (gigabytes(6_672_212_480), gigabytes(12_300_000)) == ("6.7 GB", "12 MB")
