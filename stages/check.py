"""Check: can training start, what will happen, and what should be changed first?

Reads   params.yaml, data/processed/, metrics/rejected.csv, the base model's small files and the headers of its weights,
        this machine.
Writes  metrics/readiness.json, metrics/readiness.md; metrics/ready.txt only when there is no blocker.
Refuses (exit code 1) what cannot work: every blocker at once, with what to do. Both reports are written all the same.
Alone   python -m stages.check, or `ownhand check`

`encode` depends on metrics/ready.txt, whose content never changes: a blocker stops the pipeline before anything
expensive, and a warning that reads differently today re-runs nothing.
"""

from ownhand.checks.readiness import report_readiness
from ownhand.errors import run_stage
from ownhand.inputs import Inputs


def main() -> None:
    inputs = Inputs.of("check")
    report_readiness()
    inputs.refuse_edits()


if __name__ == "__main__":
    run_stage(main)
