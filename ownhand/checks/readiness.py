"""The readiness report: can training start, what will happen, and what should be changed first?

Needs nothing but params.yaml; what is missing or broken is itself a finding, and the rest is still looked at. Codes are
explained in docs/findings.md.
"""

from __future__ import annotations

from pathlib import Path

from ownhand.checks.environment import check_environment, check_four_bits
from ownhand.checks.findings import PAGE, Finding, as_json, as_markdown, as_text, blocker, is_ready, ready, verdict
from ownhand.checks.machine import gather_environment
from ownhand.files import write_json, write_text
from ownhand.params import ParameterError, read_params

READINESS_JSON = Path("metrics/readiness.json")
READINESS_MD = Path("metrics/readiness.md")
READY = Path("metrics/ready.txt")
READY_TEXT = "No blocker; see readiness.md. This file never changes, so that a new warning there re-runs nothing.\n"


def report_readiness(overfit: bool = False) -> None:
    """Look at everything, write both reports and print the table; `overfit` trains four lines by heart, for proof.

    metrics/ready.txt is there afterwards only when there is no blocker. SystemExit with code 1 when there is one.
    """
    findings = inspect(overfit)
    write_json(READINESS_JSON, as_json(findings))
    write_text(READINESS_MD, as_markdown(findings))
    if is_ready(findings):
        write_text(READY, READY_TEXT)
    else:
        READY.unlink(missing_ok=True)
    print(as_text(findings))
    print(f"check: wrote {READINESS_JSON.as_posix()} and {READINESS_MD.as_posix()}; codes: {PAGE}")
    print(verdict(findings))
    if not is_ready(findings):
        raise SystemExit(1)


def inspect(overfit: bool = False) -> list[Finding]:
    """All findings that can be had."""
    try:
        params = read_params()
    except ParameterError as error:
        remedy = "mend params.yaml; `ownhand preset` lists settings that work"
        return [blocker("CONF-001", str(error), remedy), *check_environment(gather_environment(None))]
    findings = [ready("CONF-001", "every value of params.yaml is in its range")]
    machine = gather_environment(params.runtime)
    environment = check_environment(machine)
    if any(finding.code == "ENV-002" and finding.level == "blocker" for finding in environment):
        return findings + environment  # what follows imports those packages
    four_bits = check_four_bits(params, machine.device)
    if not is_ready(four_bits):
        return findings + environment + four_bits  # so does the estimate of memory
    findings += four_bits
    from ownhand.checks import run

    findings += run.inspect_run(params)
    if (overfit or params.check.overfit) and is_ready(findings):
        findings += run.prove_learning(params)
    return findings
