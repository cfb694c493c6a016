"""`dev`, as somebody uses it who builds against the relay."""

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dev_process import Running, run, wait_until_gone
from tests.processes import free_port

pytestmark = [pytest.mark.acceptance]

READY = "Ctrl-C stops"


@pytest.fixture(name="dev")
def fixture_dev(tmp_path: Path) -> Iterator[Running]:
    """A `dev` that is not started, on ports that it keeps."""
    ports = [f"--{name}={free_port()}" for name in ("port", "inbox-port", "emulator-port")]
    # Quick polls, and a killed worker's jobs are taken up soon.
    dev = Running(
        ["dev", "--fast", *ports],
        tmp_path,
        {"RELAY_LEASE_S": "3", "RELAY_POLL_INTERVAL_S": "1", "EMULATOR_FAILURE_RATE": "0"},
    )
    yield dev
    dev.bury()


def submit(dev: Running, prompt: str, *more: str) -> str:
    """Submit a prompt from the folder of `dev`; returns the job's id."""
    done = run("submit", prompt, "--scraper", "chatgpt", *more, folder=dev.folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_curl_of_the_banner_works(dev: Running) -> None:
    """What the banner says to paste into a shell submits a job, whose callback is shown; the secret is there, too."""
    banner = dev.start().wait_for(READY)
    assert f"  {dev.announced()['signing_secret']}  " in banner
    command = re.search(r"^curl(?:.*\\\n)*.*$", banner, re.MULTILINE)
    assert command is not None
    done = subprocess.run(["bash", "-c", command[0]], capture_output=True, text=True, timeout=30, check=True)  # noqa: S603, S607 - as a user would
    assert '"status":"queued"' in done.stdout
    said = dev.wait_for("✓ verified  job.completed")
    assert "UNVERIFIED" not in said


def test_the_link_of_the_banner_logs_in(dev: Running) -> None:
    """It leads to the dashboard, with compose and inbox, without a key; the link has none in it."""
    banner = dev.start().wait_for(READY)
    link = re.search(r"http://\S+/dashboard/login\?token=\S+", banner)
    assert link is not None
    assert dev.announced()["api_key"] not in link[0]
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with browser.open(link[0], timeout=10) as page:
        assert page.url.endswith("/dashboard")
        shown = page.read().decode()
    assert "/dashboard/compose" in shown
    with browser.open(f"{dev.announced()['url']}/dashboard/inbox", timeout=10) as page:
        assert "No callbacks yet" in page.read().decode()


def test_a_stopped_dev_goes_on_where_it_was(dev: Running) -> None:
    """A job that is under way when `dev` is stopped is finished by the next one, without a second submit."""
    dev.start().wait_for(READY)
    key = dev.announced()["api_key"]
    job_id = submit(dev, "[latency=10] later")
    run_until_pending(dev, job_id)
    assert dev.stop(signal.SIGINT) == 0
    assert "stopped; the next `dev` goes on from here" in dev.output.read_text()
    assert not (dev.folder / ".scrapellm-relay" / "running.json").exists()

    dev.start().wait_for(READY, times=2)
    assert dev.announced()["api_key"] == key, "the key is kept"
    dev.wait_for("✓ verified  job.completed")
    assert '"status": "done"' in run("jobs", job_id, "--json", folder=dev.folder).stdout.replace('":"', '": "')


def run_until_pending(dev: Running, job_id: str) -> None:
    """Wait until the upstream has the job. The interface says so sooner than a command could be started."""
    request = urllib.request.Request(  # noqa: S310 - our own address
        f"{dev.announced()['url']}/v1/jobs/{job_id}", headers={"X-API-Key": dev.announced()["api_key"]}
    )
    status = "queued"
    while status == "queued":
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own address
            status = json.load(answer)["status"]
    assert status == "pending", "it took longer to get here than the job takes"


def test_a_killed_dev_leaves_no_process_and_loses_no_job(dev: Running) -> None:
    """SIGKILL ends store, relay and worker too; the next `dev` on the same folder and ports goes on."""
    dev.start().wait_for(READY)
    job_id = submit(dev, "[latency=10] later")
    run_until_pending(dev, job_id)
    children = dev.children()
    assert set(children) == {"store", "relay", "worker"}
    dev.stop(signal.SIGKILL)
    wait_until_gone(list(children.values()), 5)

    dev.start().wait_for(READY, times=2)
    dev.wait_for("✓ verified  job.completed")


def test_sigterm_ends_everything_with_0(dev: Running) -> None:
    """A service manager's signal ends it like Ctrl-C: all children gone, exit code 0."""
    dev.start().wait_for(READY)
    children = dev.children()
    assert dev.stop(signal.SIGTERM) == 0
    wait_until_gone(list(children.values()), 1)


@pytest.mark.parametrize("name", ["relay", "worker", "store"])
def test_a_child_that_dies_is_started_again(dev: Running, name: str) -> None:
    """The death of a part is told, and the system works again soon afterwards, with all its data."""
    dev.start().wait_for(READY)
    before = submit(dev, "before")
    os.kill(dev.children()[name], signal.SIGKILL)
    dev.wait_for(f"{name} was ended by SIGKILL")
    dev.wait_for("✓ verified  job.completed")
    for _ in range(40):
        # The relay may be the one that starts again.
        done = run("submit", "after", "--scraper", "grok", "--wait", folder=dev.folder)
        if done.returncode != 3:
            break
    assert done.returncode == 0, done.stderr
    assert before in run("jobs", "--status", "done", folder=dev.folder).stdout


def test_a_child_that_keeps_dying_stops_everything(dev: Running) -> None:
    """After the third death within half a minute the whole ends with 1, a line that says why, and no process left."""
    dev.start().wait_for(READY)
    assert dev.process is not None
    others = [pid for name, pid in dev.children().items() if name != "worker"]
    for times in (1, 2, 3):
        os.kill(dev.children()["worker"], signal.SIGKILL)
        if times < 3:
            dev.wait_for("worker was ended by SIGKILL", times=times)
            until_there(dev, "worker")
    assert dev.process.wait(30) == 1
    assert "scrapellm-relay: worker was ended by SIGKILL" in dev.output.read_text()
    wait_until_gone(others, 1)


def until_there(dev: Running, name: str) -> None:
    """Wait until a child runs."""
    give_up = time.monotonic() + 10
    while name not in dev.children():
        assert time.monotonic() < give_up, dev.children()
        time.sleep(0.02)


def test_it_can_be_stopped_while_it_starts(dev: Running) -> None:
    """Ctrl-C before the banner ends it with 0, too, and what had been started is gone."""
    dev.start().wait_for("is starting")
    until_there(dev, "store")
    children = dev.children()
    assert dev.stop(signal.SIGINT) == 0
    wait_until_gone(list(children.values()), 1)


def test_a_second_signal_does_not_wait(dev: Running) -> None:
    """A callback that hangs holds up the peaceful end; who presses Ctrl-C again need not wait for it."""
    dev.start().wait_for(READY)
    with socket.socket() as hung:
        hung.bind(("127.0.0.1", 0))
        hung.listen()
        submit(dev, "[latency=0]", "--callback-url", f"http://127.0.0.1:{hung.getsockname()[1]}/")
        hung.settimeout(20)
        # Whoever connects there is the callback, which then gets no answer.
        connection, _ = hung.accept()
        with connection:
            assert dev.process is not None
            dev.process.send_signal(signal.SIGINT)
            dev.wait_for("Ctrl-C again")
            began_s = time.monotonic()
            assert dev.stop(signal.SIGINT) == 0
            assert time.monotonic() - began_s < 5


def test_a_second_dev_on_the_same_folder_is_told_so_in_one_line(dev: Running) -> None:
    """Two of them would ruin each other's data; the second names the first and the cure."""
    dev.start().wait_for(READY)
    second = run("dev", "--port=0", "--inbox-port=0", "--emulator-port=0", folder=dev.folder)
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert "in use by another `dev`" in second.stderr
    assert "--data" in second.stderr
    assert dev.process is not None
    assert dev.process.poll() is None, "the first one goes on"


@pytest.mark.parametrize("option", ["--port", "--inbox-port", "--emulator-port"])
def test_a_port_in_use_is_told_in_one_line(tmp_path: Path, option: str) -> None:
    """The line names the port and the option that chooses another, and nothing is left running."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = dict.fromkeys(("--port", "--inbox-port", "--emulator-port"), "0")
        ports[option] = str(taken.getsockname()[1])
        done = run("dev", *(f"{name}={port}" for name, port in ports.items()), folder=tmp_path)
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert f"port {ports[option]} is in use" in line
    assert option in line
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RELAY_POLL_INTERVAL_S", "often"),
        ("RELAY_SIGNING_SECRET", "secret"),
        ("RELAY_CLIENTS_FILE", "clients.toml"),
        ("EMULATOR_FAILURE_RATE", "2"),
    ],
)
def test_a_wrong_setting_is_named_before_anything_starts(tmp_path: Path, name: str, value: str) -> None:
    """One line that names the setting, exit code 2."""
    (tmp_path / ".env").write_text(f"{name}={value}\n")
    environment = {name: value} if name.startswith("EMULATOR_") else {}
    done = run("dev", "--port=0", "--inbox-port=0", "--emulator-port=0", folder=tmp_path, environment=environment)
    assert done.returncode == 2
    assert name in done.stderr
    assert done.stderr.count("\n") == 1


def test_it_listens_on_this_machine_only(dev: Running) -> None:
    """Every socket that it and its children listen on is bound to 127.0.0.1."""
    dev.start().wait_for(READY)
    assert dev.process is not None
    addresses = {address for pid in (dev.process.pid, *dev.children().values()) for address in _listening(pid)}
    assert addresses == {"0100007F"}


def _listening(pid: int) -> set[str]:
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        target = str(descriptor.readlink()) if descriptor.is_symlink() else ""
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
    ]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}


def test_names_of_the_users_own_do_not_stand_in_for_ours(dev: Running) -> None:
    """A project that has a `worker` package of its own still gets our worker."""
    for name in ("worker", "relay"):
        package = dev.folder / name
        package.mkdir()
        (package / "__init__.py").write_text("raise SystemExit('the wrong one')")
    dev.start().wait_for(READY)
