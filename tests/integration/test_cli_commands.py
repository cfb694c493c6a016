"""The commands that talk to a relay, against a running one."""

import re

import pytest

from tests.dev_process import Running
from tests.integration.cli_harness import BATCH_ID, JOB_ID, Cli, fixture_cli, fixture_dev, when
from tests.processes import free_port

__all__ = ["fixture_cli", "fixture_dev"]

#: Where nobody listens.
NOBODY = f"http://127.0.0.1:{free_port()}/x"


def test_submit_prints_the_id_only(cli: Cli) -> None:
    """A script gets the id, and nothing else, on standard output."""
    done = cli("submit", "Why?", "--scraper", "chatgpt")
    assert done.code == 0
    assert JOB_ID.fullmatch(done.out.strip())
    assert done.err == ""


def test_submit_waits_for_the_result(cli: Cli) -> None:
    """With --wait the text of the result is the output."""
    done = cli("submit", "Why wait?", "-s", "perplexity", "--wait")
    assert done.code == 0
    assert done.out.strip().endswith("You asked perplexity: Why wait?")


def test_submit_tells_a_failure_by_its_exit_code(cli: Cli) -> None:
    """1 and the reason, nothing on standard output."""
    done = cli("submit", "[fail]", "-s", "grok", "--wait")
    assert (done.code, done.out) == (1, "")
    assert "upstream_failed: execution failed" in done.err


def test_submit_tells_a_deadline_by_its_exit_code(cli: Cli) -> None:
    """A job that times out has failed, too."""
    done = cli("submit", "[never]", "-s", "grok", "--deadline", "1", "--wait", "--json")
    assert done.code == 1
    assert done.document["status"] == "timed_out"


def test_submit_sends_every_option(cli: Cli) -> None:
    """What is given arrives in the job, with the type that the API wants."""
    done = cli(
        *("submit", "-", "-s", "grok", "--country", "DE", "--timeout", "20", "--deadline", "90.5", "--bypass-cache"),
        *("--param", "mode=MODEL_MODE_FAST", "--metadata", '{"row": 1}', "--callback-header", "X-Token: secret"),
        *("--callback-event", "job.failed", "--callback-format", "cloudevents", "--thin"),
        *("--callback-url", NOBODY, "--json"),
        stdin=b"from standard input\n",
    )
    assert done.code == 0, done.err
    job = done.document
    expected = {
        "prompt": "from standard input",
        "country": "DE",
        "timeout": 20,
        "bypass_cache": True,
        "params": {"mode": "MODEL_MODE_FAST"},
        "metadata": {"row": 1},
        "callback_events": ["job.failed"],
        "callback_format": "cloudevents",
        "callback_payload": "thin",
    }
    assert {name: job[name] for name in expected} == expected
    assert job["delivery"]["callback_url"] == NOBODY
    assert "secret" not in done.out


def test_the_same_idempotency_key_gives_the_same_job(cli: Cli) -> None:
    """A script that is run again does not pay again."""
    arguments = ("submit", "once", "-s", "chatgpt", "--idempotency-key", "my-key")
    assert cli(*arguments).out == cli(*arguments).out
    reused = cli("submit", "twice", "-s", "chatgpt", "--idempotency-key", "my-key")
    assert reused.code == 2
    assert "Idempotency-Key" in reused.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("submit", "x", "-s", "nosuch"), "/scraper"),
        (("submit", "", "-s", "chatgpt"), "/prompt"),
        (("submit", "x", "-s", "grok", "--country", "JP"), "/country"),
        (("submit", "x", "-s", "grok", "--timeout", "5"), "/timeout"),
        (("submit", "x", "-s", "grok", "--callback-url", "http://10.0.0.1/"), "/callback_url"),
        (("submit", "x", "-s", "grok", "--metadata", "{"), "--metadata"),
        (("submit", "x", "-s", "grok", "--param", "mode"), "--param"),
        (("submit", "x", "-s", "grok", "--idempotency-key", "a b"), "--idempotency-key"),
        (("submit", "x", "-s", "grok", "--api-key", "wrong"), "RELAY_API_KEY"),
        (("submit", "x", "-s", "grok", "--url", "nowhere"), "--url"),
        (("submit", "a\udcffb", "-s", "grok"), "UTF-8"),
        (("jobs", "--status", "done", "job_0"), "not both"),
        (("redeliver",), "--all"),
        (("redeliver", "--exhausted", "--delivery", "gone"), "--exhausted"),
        (("redeliver", "--all", "job_0"), "--all"),
        (("redeliver", "job_0", "--since", "2026-01-01T00:00:00Z"), "--since goes with --all"),
        (("redeliver", "--all", "--since", "yesterday"), "/since"),
        (("batch", "nosuch.txt", "-s", "grok"), "nosuch.txt"),
        (("batch", "-", "-s", "grok"), "--format"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(cli: Cli, arguments: tuple[str, ...], said: str) -> None:
    """The line names the option or the field; no trace, nothing on standard output."""
    done = cli(*arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [("nosuch",), ("submit",), ("jobs", "--status", "odd"), ("jobs", "--limit", "0")])
def test_wrong_usage_ends_with_2(cli: Cli, arguments: tuple[str, ...]) -> None:
    """As for any command line; the usage is shown."""
    done = cli(*arguments)
    assert done.code == 2
    assert "Usage" in done.err


@pytest.mark.parametrize(
    "job_id", ["job_01jzzzzzzzzzzzzzzzzzzzzzzz", "batch_01jzzzzzzzzzzzzzzzzzzzzzzz", "..", "a/b", "?"]
)
@pytest.mark.parametrize("command", ["jobs", "redeliver"])
def test_what_does_not_exist_ends_with_1(cli: Cli, command: str, job_id: str) -> None:
    """An id that names nothing is no mistake of usage, whatever characters are in it."""
    done = cli(command, job_id)
    assert (done.code, done.out) == (1, "")
    assert "no such thing" in done.err


def test_no_relay_ends_with_3(cli: Cli) -> None:
    """The line says where nobody answered."""
    url = f"http://127.0.0.1:{free_port()}"
    done = cli("jobs", "--url", url, "--api-key", "k")
    assert (done.code, done.out) == (3, "")
    assert done.err == f"scrapellm-relay: no relay at {url}: connection refused; start one, or give --url\n"


def test_something_else_than_a_relay_is_told(cli: Cli, dev: Running) -> None:
    """A port that something else listens on: an answer, but no relay's."""
    done = cli(
        "submit", "x", "-s", "grok", "--callback-url", "http://127.0.0.1:9/", "--url", dev.announced()["inbox_url"]
    )
    assert done.code == 1
    assert "not the relay's API" in done.err


def test_jobs_lists_and_filters(cli: Cli) -> None:
    """The newest first, as many as asked for, only those that match."""
    ids = [cli("submit", f"list {n}", "-s", "gemini", "--wait", "--json").document["id"] for n in range(3)]
    rows = [line.split("\t") for line in cli("jobs", "--limit", "2").out.splitlines()]
    assert rows[0][0] == "job"
    assert [row[0] for row in rows[1:]] == [ids[2], ids[1]]
    assert cli("jobs", "--status", "queued", "--status", "cancelled", "--json").document == {"data": []}
    done = cli("jobs", "--status", "done", "--json", "--limit", "1000").document["data"]
    assert {job["status"] for job in done} == {"done"}
    assert set(ids) <= {job["id"] for job in done}


def test_jobs_shows_one_with_its_attempts(cli: Cli) -> None:
    """What became of a job, and of its callback."""
    job_id = cli("submit", "show me", "-s", "gemini", "--callback-url", NOBODY).out.strip()
    document = when(cli, job_id, "exhausted", attempts=1)
    assert document["id"] == job_id
    assert [attempt["outcome"] for attempt in document["attempts"]] == ["connection_error"]
    shown = cli("jobs", job_id).out
    for word in (job_id, "show me", "done", "exhausted", NOBODY, "connection_error"):
        assert word in shown


def test_redeliver_repeats_a_callback(cli: Cli) -> None:
    """The receiver gets the same event once more, as the next attempt."""
    job_id = cli("submit", "again please", "-s", "gemini").out.strip()
    when(cli, job_id, "delivered", attempts=1)
    done = cli("redeliver", job_id)
    assert (done.code, done.out) == (0, f"{job_id}\n")
    when(cli, job_id, "delivered", attempts=2)


def test_redeliver_goes_on_after_a_refusal(cli: Cli) -> None:
    """One id that is wrong does not keep the others from being repeated, and is told."""
    job_id = cli("submit", "one of two", "-s", "gemini").out.strip()
    when(cli, job_id, "delivered", attempts=1)
    done = cli("redeliver", "job_01jzzzzzzzzzzzzzzzzzzzzzzz", job_id)
    assert (done.code, done.out) == (1, f"{job_id}\n")
    assert "job_01jzzzzzzzzzzzzzzzzzzzzzzz: " in done.err


def test_cancel(cli: Cli) -> None:
    """Jobs that have no outcome are cancelled; one that has, and one that is not there, are told."""
    running = cli("submit", "[never]", "-s", "grok").out.strip()
    ended = cli("submit", "short", "-s", "grok", "--wait", "--json").document["id"]
    done = cli("cancel", ended, running, "job_01jzzzzzzzzzzzzzzzzzzzzzzz")
    assert (done.code, done.out) == (1, f"{running}\n")
    assert f"{ended}: The job has ended" in done.err
    assert "job_01jzzzzzzzzzzzzzzzzzzzzzzz: " in done.err
    again = cli("cancel", running, "--json")
    assert (again.code, again.document["data"][0]["status"]) == (0, "cancelled")


def test_redeliver_exhausted(cli: Cli) -> None:
    """What did not get through lately is sent again, by one short command."""
    job_id = cli("submit", "lost", "-s", "gemini", "--callback-url", NOBODY.replace("/x", "/lost")).out.strip()
    when(cli, job_id, "exhausted", attempts=1)
    assert cli("redeliver", "--exhausted", "--until", "1h").out == "0 to be delivered again\n"
    done = cli("redeliver", "--exhausted", "--since", "1h", "--json")
    assert done.document["count"] >= 1
    when(cli, job_id, "exhausted", attempts=2)


def test_redeliver_all_counts(cli: Cli) -> None:
    """The selection goes to the relay, which says how many."""
    done = cli("redeliver", "--all", "--delivery", "gone", "--callback-host", "nosuch.example", "--json")
    assert done.document == {"count": 0}


def test_batch_waits_and_sums_up(cli: Cli, dev: Running) -> None:
    """Every prompt goes to every scraper; the summary counts the outcomes."""
    (dev.folder / "prompts.txt").write_text("first\n\nsecond\n")
    done = cli("batch", "prompts.txt", "-s", "chatgpt", "-s", "grok")
    assert done.code == 0, done.err
    assert re.search(r"^jobs +4$", done.out, re.MULTILINE)
    assert re.search(r"^status +4 done$", done.out, re.MULTILINE)
    batch_id = BATCH_ID.search(done.out)
    assert batch_id is not None
    listed = cli("jobs", "--batch", batch_id[0], "--json").document["data"]
    assert sorted((job["prompt"], job["scraper"]) for job in listed) == [
        ("first", "chatgpt"),
        ("first", "grok"),
        ("second", "chatgpt"),
        ("second", "grok"),
    ]
    assert cli("jobs", batch_id[0], "--json").document["count"] == 4
    dev.wait_for("batch.completed")


def test_a_batch_with_a_failure_ends_with_1(cli: Cli) -> None:
    """A csv row can name its own scraper and country; a job that fails is counted."""
    rows = b"prompt,scraper,country\nfine,,DE\n[fail] this,copilot,\n"
    done = cli("batch", "-", "--format", "csv", "-s", "gemini", "--json", stdin=rows)
    assert done.code == 1
    assert {state: n for state, n in done.document["status"].items() if n} == {"done": 1, "failed": 1}


def test_a_batch_need_not_be_waited_for(cli: Cli) -> None:
    """With --no-wait the id is the output."""
    rows = b'{"prompt": "x", "scraper": "grok"}\n'
    done = cli("batch", "-", "--format", "jsonl", "--no-wait", stdin=rows)
    assert done.code == 0
    assert BATCH_ID.fullmatch(done.out.strip())
    accepted = cli("batch", "-", "--format", "jsonl", "--no-wait", "--json", stdin=rows).document
    assert accepted["count"] == 1


def test_what_is_wrong_with_a_batch_is_named_by_its_line(cli: Cli, dev: Running) -> None:
    """The relay speaks of the seventeenth job, the person has a file."""
    (dev.folder / "jobs.csv").write_text('prompt,country\n"spans\ntwo lines",US\nwrong,ZZ\n')
    done = cli("batch", "jobs.csv", "-s", "grok")
    assert (done.code, done.out) == (2, "")
    assert "jobs.csv, line 4, country: " in done.err
    (dev.folder / "long.txt").write_text(f"fine\n{'x' * 4001}\n")
    assert "long.txt, line 2: " in cli("batch", "long.txt", "-s", "grok").err


def test_destinations(cli: Cli, dev: Running) -> None:
    """Receivers are listed with their state, and can be resumed; an unknown one is a no."""
    job_id = cli("submit", "hello", "-s", "chatgpt").out.strip()
    when(cli, job_id, "delivered", attempts=1)
    [found] = [d for d in cli("destinations", "--json").document["data"] if d["state"] == "healthy"]
    assert re.fullmatch(r"127\.0\.0\.1:[0-9]+", found["destination"])
    table = cli("destinations").out.splitlines()
    assert table[0].split("\t")[:2] == ["destination", "state"]
    assert found["destination"] in [line.split("\t")[0] for line in table]
    resumed = cli("destinations", "--resume", found["destination"], "--json")
    assert (resumed.code, resumed.document["data"][0]["state"]) == (0, "healthy")
    refused = cli("destinations", "--resume", "nowhere.example:443")
    assert (refused.code, refused.out, len(refused.err.splitlines())) == (1, "", 1)
    assert cli("destinations", "--state", "paused").err.strip() == "no destinations"
