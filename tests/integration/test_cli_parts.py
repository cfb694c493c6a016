"""The commands that run one part, and what `dev` is made of."""

import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
import redis
from standardwebhooks import Webhook

from relay.core.errors import ConfigurationError
from relay.core.settings import Settings, hash_api_key
from relay.core.signing import check_secret, new_secret
from relay.dev.folder import DataFolder, credentials_in, running_in
from relay.dev.folder import Running as Announcement
from relay.dev.process import Child, Program, ProgramFailed
from relay.dev.store import EmbeddedStore
from tests.dev_process import COMMAND, Running, clean_environment, run, wait_until_gone
from tests.processes import until

BODY = b'{"type": "job.completed", "timestamp": "2026-01-01T00:00:00Z", "data": {"id": "job_1", "scraper": "grok"}}'


def say(_line: str) -> None:
    """Say nothing."""


async def post(url: str, secret: str) -> int:
    """Post a signed callback; returns the status of the answer."""
    moment = datetime.now(UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", moment, BODY.decode()),
        "relay-attempt": "1",
        "Content-Type": "application/json",
    }
    async with (
        aiohttp.ClientSession(trust_env=False) as session,
        session.post(url, data=BODY, headers=headers) as answer,
    ):
        return answer.status


@pytest.fixture(name="folder")
def fixture_folder(tmp_path: Path) -> DataFolder:
    """A data folder."""
    return DataFolder(tmp_path / "data")


@pytest.fixture(name="listener")
def fixture_listener(tmp_path: Path) -> Iterator[Running]:
    """`listen`, not started, with a secret in the environment."""
    listener = Running(["listen", "--port", "0", "--json"], tmp_path, {"RELAY_SIGNING_SECRET": new_secret()})
    yield listener
    listener.bury()


async def test_listen_verifies_and_prints(listener: Running) -> None:
    """A callback signed with the secret is verified; one signed with another is printed, marked and refused."""
    url = listener.start().wait_for("http://").split("at ")[1].split()[0]
    assert await post(url, listener.environment["RELAY_SIGNING_SECRET"]) == 204
    assert await post(f"{url}another/path", new_secret()) == 401
    lines = [json.loads(line) for line in listener.wait_for('"type"', times=2).splitlines() if line.startswith("{")]
    assert [(line["verified"], line["path"]) for line in lines] == [(True, "/"), (False, "/another/path")]
    assert lines[0]["body"] == json.loads(BODY)
    assert listener.stop(signal.SIGINT) == 0


def test_listen_needs_a_secret_and_a_port(tmp_path: Path) -> None:
    """What is missing, or taken, is one line."""
    done = run("listen", folder=tmp_path)
    assert done.returncode == 2
    assert "--secret" in done.stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("listen", "--port", str(port), "--secret", new_secret(), folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        f"scrapellm-relay: port {port} is in use: stop what listens there, or choose another with --port\n"
    )


async def test_the_emulator_serves(tmp_path: Path) -> None:
    """It says where it listens, takes jobs there, and ends with 0."""
    emulator = Running(["emulator", "--port", "0", "--latency-scale", "0.01"], tmp_path).start()
    try:
        url = emulator.wait_for("http://").split("at ")[1].split()[0]
        async with aiohttp.ClientSession(trust_env=False) as session:
            query = {"prompt": "x"}
            async with session.post(f"{url}/scrapers/grok/jobs", params=query, headers={"X-API-Key": "any"}) as answer:
                assert answer.status == 202
        assert emulator.stop() == 0
    finally:
        emulator.bury()


async def test_the_emulator_keeps_its_jobs_in_a_journal(tmp_path: Path) -> None:
    """A restarted emulator knows the jobs of the one before, also when a line of its journal was cut off."""
    journal = tmp_path / "jobs.jsonl"
    environment = {"EMULATOR_JOURNAL": str(journal), "EMULATOR_FAILURE_RATE": "0"}
    emulator = Running(["emulator", "--port", "0"], tmp_path, environment)
    headers = {"X-API-Key": "any"}
    try:
        url = emulator.start().wait_for("http://").split("at ")[-1].split()[0]
        async with aiohttp.ClientSession(trust_env=False) as session:
            query = {"prompt": "[latency=0] é"}
            async with session.post(f"{url}/scrapers/grok/jobs", params=query, headers=headers) as answer:
                job_id = (await answer.json())["job_id"]
            emulator.stop(signal.SIGKILL)
            with journal.open("ab") as file:
                file.write(b'{"id": "cut o')
            url = emulator.start().wait_for("http://", times=2).split("at ")[-1].split()[0]
            async with session.get(f"{url}/jobs/{job_id}") as answer:
                document = await answer.json()
        assert document["status"] == "done"
        assert document["prompt"] == "[latency=0] é"
    finally:
        emulator.bury()


@pytest.mark.parametrize(("command", "named"), [("serve", "RELAY_API_KEY"), ("worker", "RELAY_API_KEY")])
def test_the_services_name_a_missing_setting(tmp_path: Path, command: str, named: str) -> None:
    """`serve` and `worker` are the services themselves: their line, their exit code."""
    done = run(command, folder=tmp_path)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_keygen_makes_settings(tmp_path: Path) -> None:
    """What it prints can be appended to .env; each time it is another key."""
    lines = run("keygen", folder=tmp_path).stdout.splitlines()
    settings = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    check_secret(settings["RELAY_SIGNING_SECRET"])
    assert f"# {hash_api_key(settings['RELAY_API_KEY'])}" in lines
    first, second = (json.loads(run("keygen", "--json", folder=tmp_path).stdout) for _ in range(2))
    assert first["api_key_sha256"] == hash_api_key(first["api_key"])
    assert first["api_key"] != second["api_key"]
    assert first["signing_secret"] != second["signing_secret"]


def test_keygen_makes_an_operator_s_key(tmp_path: Path) -> None:
    """The key itself is no setting, and its hash is one that the relay takes."""
    lines = run("keygen", "--operator", folder=tmp_path).stdout.splitlines()
    [setting] = [line for line in lines if not line.startswith("#")]
    name, _, value = setting.partition("=")
    assert name == "RELAY_OPERATOR_KEY_SHA256"
    assert any(hash_api_key(line.removeprefix("# ")) == value for line in lines)
    assert Settings.load(_env_file=None, operator_key_sha256=value).operator_key_sha256 == (value,)
    document = json.loads(run("keygen", "--operator", "--json", folder=tmp_path).stdout)
    assert document["operator_key_sha256"] == hash_api_key(document["operator_key"])


COMMANDS = ("dev", "demo", "submit", "batch", "jobs", "cancel", "redeliver", "destinations", "listen")
SERVICES = ("serve", "worker", "emulator", "keygen")


def test_help_and_version(tmp_path: Path) -> None:
    """The help has every command, wholly described in its line, examples and exit codes; both end with 0."""
    shown = run("--help", folder=tmp_path, environment={"COLUMNS": "80"})
    assert shown.returncode == 0
    lines = {line.split()[0]: line for line in shown.stdout.splitlines() if line.startswith("  ") and line.split()}
    for command in (*COMMANDS, *SERVICES):
        assert lines[command].endswith(".")
        assert "..." not in lines[command]
    assert "Examples:" in shown.stdout
    assert "Exit codes:" in shown.stdout
    assert run("--version", folder=tmp_path).stdout.startswith("scrapellm-relay ")


@pytest.mark.parametrize("command", [*COMMANDS, *SERVICES])
def test_the_help_of_a_command_needs_nothing(tmp_path: Path, command: str) -> None:
    """It has an example, is shown without a relay, a key or a store, and holds no value of the environment."""
    shown = run(command, "--help", folder=tmp_path, environment={"RELAY_API_KEY": "the-key"})
    assert shown.returncode == 0
    assert f"scrapellm-relay {command}" in shown.stdout.partition("Examples:")[2]
    assert "the-key" not in shown.stdout


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["re"], {"redeliver"}),
        (["submit", "-s", "go"], {"google_ai_mode"}),
        (["batch", "x", "--scraper", "per"], {"perplexity"}),
        (["jobs", "--status", "ti"], {"timed_out"}),
        (["redeliver", "--exh"], {"--exhausted"}),
    ],
)
def test_words_are_completed(tmp_path: Path, words: list[str], completed: set[str]) -> None:
    """Commands, options, states and scrapers, as the shell asks for them."""
    environment = {
        "_SCRAPELLM_RELAY_COMPLETE": "complete_bash",
        "COMP_WORDS": f"scrapellm-relay {' '.join(words)}",
        "COMP_CWORD": str(len(words)),
    }
    assert set(run(folder=tmp_path, environment=environment).stdout.split()) == completed


def test_completion_can_be_had(tmp_path: Path) -> None:
    """It is shown for the shell that asks, and installed in its own folder."""

    def of_bash(option: str) -> str:
        # A second command keeps the shell from becoming the first one.
        script = f"{shlex.join(COMMAND)} {option}; exit $?"
        return subprocess.run(  # noqa: S603 - our own command
            ["/bin/bash", "-c", script],
            env=clean_environment({"HOME": str(tmp_path)}),
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stdout

    assert "complete -o default -F _scrapellm_relay_completion scrapellm-relay" in of_bash("--show-completion")
    assert "bash completion installed" in of_bash("--install-completion")
    assert (tmp_path / ".bash_completions" / "scrapellm-relay.sh").exists()


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """A command whose output nobody reads any more ends without a trace."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing) as pipe:
        done = subprocess.run(  # noqa: S603 - our own command
            [*COMMAND, "keygen"], cwd=tmp_path, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False, timeout=30
        )
    assert done.returncode == 1
    assert done.stderr == ""


async def test_the_store_keeps_its_data(folder: DataFolder) -> None:
    """What was written is there after a peaceful end, and after a kill, too; the policy is the one jobs need."""
    store = EmbeddedStore(folder.store, folder.log("store"), say=say)
    await store.start()
    with redis.Redis.from_url(store.url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        client.set("a", "1")
    await store.stop()

    store = EmbeddedStore(folder.store, folder.log("store"), say=say)
    await store.start()
    assert store.child is not None
    with redis.Redis.from_url(store.url) as client:
        assert client.get("a") == b"1"
        client.set("b", "2")
    store.child.kill()
    await store.stop()

    store = EmbeddedStore(folder.store, folder.log("store"), say=say)
    await store.start()
    with redis.Redis.from_url(store.url) as client:
        assert client.get("b") == b"2"
    await store.stop()


async def test_the_store_wants_its_password(folder: DataFolder) -> None:
    """Others on the machine who find the port get nothing, and the password is in no file that they can read."""
    store = EmbeddedStore(folder.store, folder.log("store"), say=say)
    await store.start()
    try:
        with redis.Redis(port=store.port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.get("a")
        for path in folder.path.rglob("*"):
            if path.is_file() and store.url.split(":")[2].split("@")[0].encode() in path.read_bytes():
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        await store.stop()


def test_a_folder_belongs_to_one_at_a_time(folder: DataFolder) -> None:
    """The second is refused with a line that names the folder; the end of the first frees it."""
    with folder.locked(), pytest.raises(ConfigurationError, match=str(folder.path)), folder.locked():
        pass
    with folder.locked():
        pass


def test_what_a_folder_keeps_is_for_its_owner(folder: DataFolder) -> None:
    """Key and secret are made once, readable by nobody else, and kept out of repositories."""
    first = folder.credentials()
    assert DataFolder(folder.path).credentials() == first == credentials_in(folder.path)
    assert stat.S_IMODE((folder.path / "credentials.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert (folder.path / ".gitignore").read_text() == "*\n"
    assert first.api_key not in repr(first)
    with folder.announced(Announcement(1, "u", "i", "k", new_secret())):
        assert stat.S_IMODE((folder.path / "running.json").stat().st_mode) == 0o600
    assert running_in(folder.path) is None


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"api_key": "k", "signing_secret": "s"}', "\x00"])
def test_spoilt_credentials_are_told(folder: DataFolder, content: str) -> None:
    """They are not replaced silently: callbacks that are under way were signed with them."""
    (folder.path / "credentials.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"credentials\.json"):
        folder.credentials()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """The line names the option."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="--data"):
        DataFolder(tmp_path / "file" / "folder")


def program(folder: Path, code: str) -> Program:
    """A program that is ready at once."""

    async def is_ready() -> bool:
        return True

    return Program(
        name="part",
        command=[sys.executable, "-c", code],
        environment=dict(os.environ),
        log=folder / "part.log",
        is_ready=is_ready,
        gone_within_s=0.5,
    )


async def test_a_program_that_keeps_dying_is_given_up(tmp_path: Path) -> None:
    """After the third death within half a minute the line has its exit code and its last words."""
    said: list[str] = []
    child = Child(program(tmp_path, "print('out of luck'); raise SystemExit(7)"), said.append)
    await child.spawn()
    with pytest.raises(ProgramFailed, match="part ended with exit code 7: out of luck"):
        await child.watch()
    assert len(said) == 2


async def test_a_wrong_setting_is_not_tried_again(tmp_path: Path) -> None:
    """Exit code 2 says that another start would end the same way."""
    child = Child(program(tmp_path, "raise SystemExit(2)"), say)
    await child.spawn()
    with pytest.raises(ProgramFailed, match="exit code 2"):
        await child.watch()


async def test_a_program_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    """SIGTERM is answered within its time, or SIGKILL follows; that is told."""
    said: list[str] = []
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    child = Child(program(tmp_path, code), said.append)
    await child.spawn()
    await until(lambda: "deaf" in (tmp_path / "part.log").read_text(), 10, lambda: "not started")
    await child.stop()
    assert child.pid is not None
    wait_until_gone([child.pid], 1)
    assert said == ["part did not stop in time and was killed"]
