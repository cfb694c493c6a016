"""Latencies in files, and what the replay says of them."""

import json
import sys
from pathlib import Path

import pytest

from bench import replay
from bench.latencies import InputError, Job, read_jobs

#: The second job is not done; the last began first.
CSV = """created_at,completed_at
1970-01-01T00:00:10Z,1970-01-01T00:00:12.5
1970-01-01T00:00:11Z,
1970-01-01T01:00:05+01:00,1970-01-01T00:00:06+00:00
"""
JSONL = """{"created_at": "1970-01-01T00:00:10Z", "completed_at": "1970-01-01T00:00:12Z", "status": "done"}

{"created_at": "1970-01-01T00:00:10Z", "completed_at": null}
"""


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    """Run the program with these arguments."""
    monkeypatch.setattr(sys, "argv", ["replay", *map(str, arguments)])
    replay.main()


@pytest.mark.parametrize(
    ("name", "text", "jobs"),
    [
        ("latencies.txt", "3.5\n\n 4 \n", [Job(0, 3.5), Job(2, 4)]),
        ("latencies", "\ufeff3.5", [Job(0, 3.5)]),
        ("jobs.csv", "id,latency_s\n1,3.5\n2,4\n", [Job(0, 3.5), Job(2, 4)]),
        (
            "jobs.csv",
            CSV,
            [Job(5, 1), Job(10, 2.5)],
        ),
        (
            "jobs.jsonl",
            JSONL,
            [Job(10, 2)],
        ),
    ],
)
def test_files_of_all_kinds_are_read(tmp_path: Path, name: str, text: str, jobs: list[Job]) -> None:
    """Finished jobs are read in the order of their starts; those without an end are left out."""
    path = tmp_path / name
    path.write_text(text)
    assert read_jobs(path, 2.0) == jobs


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("a.txt", b"3\nabc\n", "a.txt, line 2: 'abc' is not a number of seconds"),
        ("a.txt", b"-1", "a.txt, line 1: '-1' is not between 0 and 86400 seconds"),
        ("a.txt", b"nan", "a.txt, line 1: 'nan' is not between 0 and 86400 seconds"),
        ("a.txt", b"\n", "a.txt: there is no finished job in it"),
        ("a.txt", b"\xff", "a.txt: not UTF-8"),
        ("a.csv", b"", "a.csv: the first line must be a header with created_at and completed_at, or latency_s"),
        ("a.csv", b"created_at\n", "a.csv: the first line must be a header with created_at and completed_at"),
        ("a.csv", b'latency_s\n"1"2\n', "a.csv, line 2: ',' expected after '\"'"),
        ("a.jsonl", b'{"latency_s": 3}\n{"latency_s"', "a.jsonl, line 2: not JSON"),
        ("a.jsonl", b"[3]", "a.jsonl, line 1: not a JSON object"),
        ("a.jsonl", b'{"latency_s": true}', "a.jsonl, line 1: True is not between 0 and 86400 seconds"),
        ("a.jsonl", b'{"latency_s": [1]}', "a.jsonl, line 1: [1] is not a number of seconds"),
        ("a.jsonl", b'{"id": 1}', "a.jsonl, line 1: there is neither created_at nor latency_s"),
        (
            "a.jsonl",
            b'{"created_at": "soon", "completed_at": "later"}',
            "a.jsonl, line 1, created_at: 'soon' is not a time such as 2026-01-31T12:00:00Z",
        ),
        (
            "a.jsonl",
            b'{"created_at": "2026-01-01T00:00:02Z", "completed_at": "2026-01-01T00:00:01Z"}',
            "a.jsonl, line 1: completed_at is before created_at",
        ),
    ],
)
def test_faults_are_named_in_one_line(tmp_path: Path, name: str, data: bytes, fault: str) -> None:
    """A file that cannot be read is refused with the place and the reason."""
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError) as refused:
        read_jobs(path, 1.0)
    message = str(refused.value).removeprefix(f"{tmp_path}/")
    assert message.startswith(fault)
    assert "\n" not in message


def test_a_missing_file_ends_the_program_with_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program says what is wrong, and no more."""
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, tmp_path / "none.txt")
    assert ended.value.code == f"{tmp_path}/none.txt: No such file or directory"


@pytest.mark.parametrize("value", ["0", "-3", "nan", "three"])
def test_a_wrong_option_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    """An interval is a number of 0.01 or more."""
    with pytest.raises(SystemExit):
        run(monkeypatch, f"--fixed={value}")
    assert f"argument --fixed: '{value}' is not a number of 0.01 or more" in capsys.readouterr().err


def test_ways_to_poll_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each way is told with polls and lateness, as a table or as JSON; with one worth given, for that alone."""
    path = tmp_path / "latencies.txt"
    path.write_text("\n".join(f"{10 + n % 7}" for n in range(400)))
    run(monkeypatch, path, "--json", "--learn-from", "150")
    (found,) = json.loads(capsys.readouterr().out).values()
    assert found["fixed"]["polls_per_job"] == pytest.approx(4.7, abs=0.3)
    assert set(found) == {
        "fixed",
        *(f"{way}, {aim}" for way in ("learned", "online", "oracle") for aim in ("as many polls", "as late")),
    }
    assert found["learned, as many polls"]["mean_late_s"] < 0.7 * found["fixed"]["mean_late_s"]
    run(monkeypatch, path, "--lambda", "0.5", "--learn-from", "50")
    out = capsys.readouterr().out
    assert "learned, 0.5 s a poll" in out
    assert "too few" in out
