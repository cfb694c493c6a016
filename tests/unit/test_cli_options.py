"""Relays as targets, rows as batches: what the command line makes of its environment and of its input."""

from pathlib import Path

import pytest

from relay.cli.batch import Lines, batch_document
from relay.cli.inputs import InputError, Row
from relay.cli.options import Target, find_secrets, find_target
from relay.client import DEFAULT_URL
from relay.client.errors import refusal
from relay.core.errors import ConfigurationError
from relay.core.signing import new_secret
from relay.dev.folder import DataFolder, Running


@pytest.fixture(autouse=True, name="folder")
def fixture_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and none of our settings."""
    monkeypatch.chdir(tmp_path)
    for name in ("RELAY_URL", "RELAY_API_KEY", "RELAY_SIGNING_SECRET"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / ".scrapellm-relay"


def test_places_of_a_batch_are_lines_of_the_file() -> None:
    """`/jobs/1/timeout` is where the second job came from; what is no job keeps its name."""
    problem = refusal(
        422,
        {
            "detail": "no",
            "errors": [
                {"pointer": p, "detail": "bad"} for p in ("/jobs/1/timeout", "/prompts/0", "/jobs/9", "/country")
            ],
        },
    )
    assert str(Lines("p.csv", [2, 5]).named(problem)) == (
        "no (p.csv, line 5, timeout: bad; p.csv, line 2: bad; /jobs/9: bad; /country: bad)"
    )


def test_prompts_go_to_every_scraper() -> None:
    """Rows with nothing but a prompt become the short form."""
    rows = [Row(1, {"prompt": "a"}), Row(3, {"prompt": "b"})]
    document, lines = batch_document(rows, ["x", "y"], {"country": "DE"}, "p.txt")
    assert document == {"prompts": ["a", "b"], "scrapers": ["x", "y"], "country": "DE"}
    assert lines == [1, 3]


def test_rows_that_name_their_scraper_go_there_only() -> None:
    """The others go to every scraper that was given."""
    rows = [Row(2, {"prompt": "a", "scraper": "own"}), Row(3, {"prompt": "b", "timeout": 20})]
    document, lines = batch_document(rows, ["x", "y"], {}, "p.txt")
    assert document == {
        "jobs": [
            {"prompt": "a", "scraper": "own"},
            {"prompt": "b", "timeout": 20, "scraper": "x"},
            {"prompt": "b", "timeout": 20, "scraper": "y"},
        ]
    }
    assert lines == [2, 3, 3]


def test_a_row_without_any_scraper_is_refused() -> None:
    """The line says which row it is."""
    with pytest.raises(InputError, match="line 3"):
        batch_document([Row(2, {"prompt": "a", "scraper": "own"}), Row(3, {"prompt": "b"})], [], {}, "p.csv")


def test_options_go_before_the_environment_and_that_before_dotenv(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearest source wins."""
    (folder.parent / ".env").write_text("RELAY_URL=http://dotenv.example\nRELAY_API_KEY=of-dotenv\n")
    assert find_target(None, None) == Target("http://dotenv.example", "of-dotenv")
    monkeypatch.setenv("RELAY_URL", "http://environment.example")
    monkeypatch.setenv("RELAY_API_KEY", "of-environment")
    assert find_target(None, None) == Target("http://environment.example", "of-environment")
    assert find_target("http://option.example", "of-option") == Target("http://option.example", "of-option")


def test_a_running_dev_is_found(folder: Path) -> None:
    """In its folder nothing needs to be said: not where it is, nor the key."""
    with DataFolder(folder).announced(Running(1, "http://127.0.0.1:9", "http://127.0.0.1:10", "its-key", new_secret())):
        assert find_target(None, None) == Target("http://127.0.0.1:9", "its-key")


def test_the_key_of_a_stopped_dev_is_still_its_own(folder: Path) -> None:
    """It is kept for the next start, so it is found at the default address."""
    credentials = DataFolder(folder).credentials()
    assert find_target(None, None) == Target(DEFAULT_URL, credentials.api_key)
    assert find_secrets([]).secrets == (credentials.signing_secret,)


def test_another_machine_is_not_told_the_key_of_dev(folder: Path) -> None:
    """A relay elsewhere needs a key that was meant for it."""
    DataFolder(folder).credentials()
    with pytest.raises(ConfigurationError, match="RELAY_API_KEY"):
        find_target("https://relay.example.com", None)


def test_without_a_key_the_folder_of_dev_is_named(folder: Path) -> None:
    """Who stands in another folder than `dev`'s reads how to point at it."""
    with pytest.raises(ConfigurationError, match="--data"):
        find_target(None, None, folder / "elsewhere")


@pytest.mark.parametrize(
    "url",
    [
        "relay.example.com",
        "ftp://x",
        "http://",
        "http://x:port",
        "http://u:p@x",
        "http://x/?q",
        "http://[::1",
        "http://a b",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """One line that names the option, without what was given: it may hold a password."""
    with pytest.raises(ConfigurationError, match="--url") as caught:
        find_target(url, "key")
    assert "u:p" not in str(caught.value)


@pytest.mark.parametrize("key", ["two words", "line\n", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    """The message does not quote it."""
    with pytest.raises(ConfigurationError, match="RELAY_API_KEY") as caught:
        find_target(None, key)
    assert key not in str(caught.value)


def test_secrets_are_checked_and_not_quoted(folder: Path) -> None:
    """A secret that is none is refused; no secret at all too."""
    with pytest.raises(ConfigurationError, match="--secret"):
        find_secrets([])
    with pytest.raises(ConfigurationError, match="signing secret") as caught:
        find_secrets(["whsec_short"])
    assert "short" not in str(caught.value)
