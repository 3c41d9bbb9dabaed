"""Check: can training start, what will happen, and what should be changed first?

Reads   params.yaml, data/processed/, metrics/rejected.csv, the base model's small files and the headers of its weights,
        this machine.
Writes  metrics/readiness.json, metrics/readiness.md; metrics/ready.txt only when there is no blocker.
Refuses (exit code 1) what cannot work: every blocker at once, with what to do. Both reports are written all the same.
Alone   python -m stages.check [--overfit]

`encode` depends on metrics/ready.txt, whose content never changes: a blocker stops the pipeline before anything
expensive, and a warning that reads differently today re-runs nothing. Codes are explained in docs/findings.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ownhand.checks.environment import check_environment
from ownhand.checks.findings import Finding, as_json, as_markdown, as_text, blocker, is_ready, ready, verdict
from ownhand.checks.machine import gather_environment
from ownhand.errors import run_stage
from ownhand.files import write_json, write_text
from ownhand.params import ParameterError, read_params

READINESS_JSON = Path("metrics/readiness.json")
READINESS_MD = Path("metrics/readiness.md")
READY = Path("metrics/ready.txt")
READY_TEXT = "No blocker; see readiness.md. This file never changes, so that a new warning there re-runs nothing.\n"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.check", description="Can training start?")
    parser.add_argument("--overfit", action="store_true", help="train four lines by heart, for proof")
    asked = parser.parse_args(arguments)
    findings = inspect(overfit=asked.overfit)
    write_json(READINESS_JSON, as_json(findings))
    write_text(READINESS_MD, as_markdown(findings))
    if is_ready(findings):
        write_text(READY, READY_TEXT)
    else:
        READY.unlink(missing_ok=True)
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # a report on letters must not stumble
    print(as_text(findings))
    print(f"check: wrote {READINESS_JSON.as_posix()} and {READINESS_MD.as_posix()}; codes: docs/findings.md")
    print(verdict(findings))
    if not is_ready(findings):
        raise SystemExit(1)


def inspect(overfit: bool = False) -> list[Finding]:
    """All findings that can be had: what is missing or broken is itself a finding, and the rest is still looked at."""
    try:
        params = read_params()
    except ParameterError as error:
        broken = blocker("CONF-001", str(error), "mend params.yaml; presets/ holds complete files")
        return [broken, *check_environment(gather_environment(None))]
    findings = [ready("CONF-001", "every value of params.yaml is in its range")]
    environment = check_environment(gather_environment(params.runtime))
    if any(finding.code == "ENV-002" and finding.level == "blocker" for finding in environment):
        return findings + environment  # what follows imports those packages
    from ownhand.checks import run

    findings += run.inspect_run(params)
    if (overfit or params.check.overfit) and is_ready(findings):
        findings += run.prove_learning(params)
    return findings


if __name__ == "__main__":
    run_stage(main)
