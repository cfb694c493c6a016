"""Asks for known vulnerabilities of what the container runs. Fails where there are any, and says what was not asked.

Advisories come from the package index's own API. Where that cannot be reached, nothing is known, and that is said.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_LOCK = Path(__file__).parents[1] / "requirements" / "runtime.txt"
_WITHIN_S = 120


def report() -> dict[str, Any]:
    """What pip-audit says of the locked packages; empty where it could not ask at all."""
    done = subprocess.run(  # noqa: S603 - our own command
        [
            *(sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--requirement", str(_LOCK)),
            *("--format", "json", "--progress-spinner", "off", "--timeout", "10"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=_WITHIN_S,
    )
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return {}
    return found


def main() -> int:
    """Print the verdict; 1 where a vulnerability is known."""
    try:
        packages = report().get("dependencies", [])
    except subprocess.TimeoutExpired:
        packages = []
    bad = [package for package in packages if package.get("vulns")]
    for package in bad:
        for advisory in package["vulns"]:
            fixed = ", ".join(advisory["fix_versions"]) or "no version yet"
            print(f"audit: {package['name']} {package['version']}: {advisory['id']}, fixed in {fixed}")
    asked = [package for package in packages if "skip_reason" not in package]
    if not asked:
        print("audit: no advisories can be had here, so nothing was audited")
    else:
        print(f"audit: {len(asked)} of {len(packages)} packages asked for, {len(bad)} with known vulnerabilities")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
