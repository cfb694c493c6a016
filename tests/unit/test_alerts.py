"""Alerts and dashboard: well-formed, and each alert fires when there is trouble and not otherwise."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from tests.promql import ROOT, RULES, alerts, dashboard_expressions, panels

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: it comes with Prometheus")

#: What series are while all is well, minute by minute.
WELL: Mapping[str, str] = {
    'build_info{service="relay",instance="r"}': "1+0x60",
    'build_info{service="worker",instance="w"}': "1+0x60",
    "workers": "2+0x60",
    'store_up{instance="r"}': "1+0x60",
    'store_up{instance="w"}': "1+0x60",
    "store_memory_used_bytes": "500+0x60",
    "store_memory_limit_bytes": "1000+0x60",
    'http_requests_total{route="/v1/jobs",status="202"}': "0+600x60",
    'http_requests_total{route="/v1/jobs",status="503"}': "0+0x60",
    "internal_errors_total": "0+0x60",
    'event_loop_lag_seconds_bucket{instance="w",le="0.5"}': "0+240x60",
    'event_loop_lag_seconds_bucket{instance="w",le="1.0"}': "0+240x60",
    'event_loop_lag_seconds_bucket{instance="w",le="+Inf"}': "0+240x60",
    'due_lag_seconds{kind="submit"}': "1+0x60",
    'due_lag_seconds{kind="purge"}': "5+0x60",
    'callback_lateness_seconds_bucket{le="10"}': "0+60x60",
    'callback_lateness_seconds_bucket{le="60"}': "0+60x60",
    'callback_lateness_seconds_bucket{le="+Inf"}': "0+60x60",
    'callback_attempts_total{outcome="delivered"}': "0+60x60",
    'callback_attempts_total{outcome="timeout"}': "0+6x60",
    'callback_attempts_total{outcome="blocked_address"}': "0+0x60",
    'destinations{state="paused"}': "0+0x60",
    "unfinished_jobs": "100+0x60",
    "unfinished_jobs_limit": "1000+0x60",
    'jobs{client="acme",status="queued",instance="r1"}': "10+0x60",
    'jobs{client="acme",status="queued",instance="r2"}': "10+0x60",
    'jobs{client="acme",status="pending",instance="r1"}': "30+0x60",
    'jobs{client="acme",status="pending",instance="r2"}': "30+0x60",
    'jobs{client="acme",status="done",instance="r1"}': "1000+0x60",
    'client_unfinished_jobs_limit{client="acme"}': "50+0x60",
    "leases_lost_total": "0+0x60",
    'refused_saves_total{kind="poll"}': "0+0x60",
    'submits_total{outcome="submitted"}': "0+60x60",
    'submits_total{outcome="unauthorized"}': "0+0x60",
    'submits_total{outcome="credits_exhausted"}': "0+0x60",
    'submits_total{outcome="rate_limited"}': "0+6x60",
    'job_outcomes_total{status="done",code=""}': "0+60x60",
    'job_outcomes_total{status="failed",code="upstream_failed"}': "0+2x60",
    'job_outcomes_total{status="timed_out",code="deadline_exceeded"}': "0+1x60",
    "ambiguous_submits_total": "0+0x60",
    "orphaned_submits_total": "0+0x60",
}
_ONE_AT_LAST = "0+0x55 1+0x10"
#: What has changed when an alert has to fire; None: the series has ended.
TROUBLE: Mapping[str, Mapping[str, str | None]] = {
    "Absent": {'build_info{service="relay",instance="r"}': None},
    "NoWorker": {"workers": "2+0x40 0+0x20"},
    "StoreDown": {'store_up{instance="w"}': "1+0x40 0+0x20"},
    "RefusesRequests": {'http_requests_total{route="/v1/jobs",status="503"}': "0+30x60"},
    "StoreFull": {"store_memory_used_bytes": "500+0x40 850+0x20"},
    "InternalErrors": {"internal_errors_total": _ONE_AT_LAST},
    "LoopLate": {'event_loop_lag_seconds_bucket{instance="w",le="0.5"}': "0+200x60"},
    "Behind": {'due_lag_seconds{kind="submit"}': "0+5x60"},
    "HousekeepingLate": {'due_lag_seconds{kind="purge"}': "0+60x60"},
    "CallbacksLate": {
        'callback_lateness_seconds_bucket{le="10"}': "0+50x60",
        'callback_lateness_seconds_bucket{le="60"}': "0+60x60",
    },
    "CallbacksFail": {'callback_attempts_total{outcome="timeout"}': "0+90x60"},
    "CallbacksBlocked": {'callback_attempts_total{outcome="blocked_address"}': _ONE_AT_LAST},
    "DestinationPaused": {'destinations{state="paused"}': _ONE_AT_LAST},
    "NearLimit": {"unfinished_jobs": "900+0x60"},
    "ClientNearLimit": {'jobs{client="acme",status="pending",instance="r1"}': "39+0x60"},
    "LeasesLost": {"leases_lost_total": "0+1x60"},
    "KeyRefused": {'submits_total{outcome="unauthorized"}': "0+0x57 1+0x10"},
    "CreditsUsedUp": {'submits_total{outcome="credits_exhausted"}': "0+0x57 1+0x10"},
    "RateLimited": {'submits_total{outcome="rate_limited"}': "0+30x60"},
    "JobsFail": {'job_outcomes_total{status="failed",code="upstream_failed"}': "0+40x60"},
    "SubmitsAmbiguous": {"ambiguous_submits_total": "0+1x60"},
    "SubmitsOrphaned": {"orphaned_submits_total": _ONE_AT_LAST},
}


def case(name: str, changes: Mapping[str, str | None], expected: list[str]) -> dict[str, object]:
    """One test as promtool takes it: these alerts, and no others, fire at the end of the hour."""
    series = {**WELL, **changes}
    return {
        "name": name,
        "interval": "1m",
        "input_series": [
            {"series": f"scrapellm_relay_{key}", "values": values}
            for key, values in series.items()
            if values is not None
        ],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": "59m",
                "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in expected],
            }
        ],
    }


@needs_promtool
def test_each_alert_fires(tmp_path: Path) -> None:
    """None while all is well; each, and only that one, on what it is there for."""
    cases = [case("well", {}, [])]
    cases += [case(name, changes, [f"ScrapellmRelay{name}"]) for name, changes in TROUBLE.items()]
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": cases}))
    promtool("test", "rules", file)


def test_no_alert_is_left_out() -> None:
    """Every alert is shown to fire."""
    assert {alert["alert"] for alert in alerts()} == {f"ScrapellmRelay{name}" for name in TROUBLE}


@needs_promtool
def test_expressions_can_be_read(tmp_path: Path) -> None:
    """Prometheus takes the rules, and whatever the dashboard asks for."""
    promtool("check", "rules", RULES)
    rules = [{"record": f"panel:{n}", "expr": text} for n, text in enumerate(dashboard_expressions())]
    file = tmp_path / "dashboard.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", file)


def promtool(*arguments: str | Path) -> None:
    """Run promtool; what it complains of fails the test."""
    assert PROMTOOL is not None
    done = subprocess.run(  # noqa: S603 - found on the PATH
        [PROMTOOL, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_says_what_to_do() -> None:
    """A severity, words, and a section of the operators' page that is there."""
    headings = re.findall(r"^#+ (.*)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for alert in alerts():
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}
        assert alert["annotations"]["summary"].endswith(".")
        assert alert["annotations"]["description"].endswith(".")
        page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert (page, anchor in anchors) == ("docs/operations.md", True), anchor


def test_the_dashboard_is_whole() -> None:
    """Each panel has a title of its own, a place of its own, and says what it shows."""
    shown = [panel for panel in panels() if panel["type"] != "row"]
    titles = [panel["title"] for panel in shown]
    assert len(set(titles)) == len(titles) > 20
    assert all(panel["description"] for panel in shown)
    assert len({panel["id"] for panel in panels()}) == len(list(panels()))
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        area = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in area) < 24
        assert not area & taken, panel["title"]
        taken |= area
