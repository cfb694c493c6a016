"""Whether the tests cover enough. Alone knows how much is enough.

Lines and branches are judged apart: a rate over both hides untaken branches behind many lines.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: The least share of branches, over everything, in percent.
BRANCHES_PERCENT = 90.0
#: What decides about money and trust has no line and no branch that no test takes.
WHOLLY = ("relay/core/policy.py", "relay/core/signing.py")


def shortfalls(report: Mapping[str, Any]) -> list[str]:
    """What is covered too little in `report` (coverage's JSON), one line each; empty where all is well."""
    totals = report["totals"]
    found = []
    taken, branches = totals["covered_branches"], totals["num_branches"]
    if taken * 100 < BRANCHES_PERCENT * branches:
        found.append(f"{taken} of {branches} branches are covered, which is less than {BRANCHES_PERCENT:g} %")
    for name in WHOLLY:
        file = report["files"].get(name)
        if file is None:
            found.append(f"{name} was not measured")
            continue
        lines, paths = file["missing_lines"], file["missing_branches"]
        if lines or paths:
            found.append(f"{name} must be covered wholly: lines {lines} and branches {paths} are not")
    return found


def main(path: str) -> int:
    """Print the verdict on the report at `path`; 0 where it is good."""
    report = json.loads(Path(path).read_text())
    found = shortfalls(report)
    for line in found:
        print(f"coverage: {line}", file=sys.stderr)
    if not found:
        rate = report["totals"]["percent_branches_covered"]
        print(f"coverage: {rate:.1f} % of branches; policy and signing wholly")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
