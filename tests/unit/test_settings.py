"""Settings: read from the environment, and wrong ones named in one line."""

from pathlib import Path

import pytest

from relay.core import signing
from relay.core.errors import ConfigurationError
from relay.core.settings import Settings, hash_api_key

SECRET = signing.new_secret()


@pytest.fixture(autouse=True, name="environment")
def fixture_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without settings of the machine that the tests run on."""
    import os  # noqa: PLC0415 - only to clear it

    for name in list(os.environ):
        if name.upper().startswith(("RELAY_", "SCRAPELLM_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_defaults_are_complete() -> None:
    """Without any setting, the documented defaults hold."""
    settings = Settings.load()
    assert settings.callback_schedule[:3] == (0, 5, 300)
    assert len(settings.callback_schedule) == 10
    assert settings.scrapers[0] == "chatgpt"
    assert settings.port == 8080


def test_lists_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists come as an operator writes them, with or without spaces."""
    monkeypatch.setenv("RELAY_CALLBACK_SCHEDULE", "0, 1.5,2")
    monkeypatch.setenv("RELAY_CALLBACK_ALLOWED_NETWORKS", "127.0.0.0/8, ::1/128")
    monkeypatch.setenv("RELAY_SCRAPERS", "chatgpt,new_one")
    settings = Settings.load()
    assert settings.callback_schedule == (0, 1.5, 2)
    assert [str(n) for n in settings.callback_allowed_networks] == ["127.0.0.0/8", "::1/128"]
    assert settings.scrapers == ("chatgpt", "new_one")


def test_the_upstream_key_has_two_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """SCRAPELLM_API_KEY works where RELAY_UPSTREAM_API_KEY is not set, and is not shown."""
    monkeypatch.setenv("SCRAPELLM_API_KEY", "plain")
    settings = Settings.load()
    assert settings.upstream_api_key is not None
    assert settings.upstream_api_key.get_secret_value() == "plain"
    assert "plain" not in repr(settings)
    monkeypatch.setenv("RELAY_UPSTREAM_API_KEY", "own")
    own = Settings.load().upstream_api_key
    assert own is not None
    assert own.get_secret_value() == "own"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RELAY_PORT", "no"),
        ("RELAY_PORT", "70000"),
        ("RELAY_CALLBACK_SCHEDULE", ""),
        ("RELAY_CALLBACK_SCHEDULE", "0,-1"),
        ("RELAY_CALLBACK_ALLOWED_NETWORKS", "10.0.0.1/8"),
        ("RELAY_ON_AMBIGUOUS_SUBMIT", "maybe"),
        ("RELAY_PUBLIC_URL", "relay.example"),
        ("RELAY_PUBLIC_URL", "https://relay.example/?a=b"),
        ("RELAY_CALLBACK_REFUSED_PORTS", "22,99999"),
        ("RELAY_SCRAPERS", "chatgpt,a b"),
        ("RELAY_SCRAPERS", ","),
        ("RELAY_UPSTREAM_API_KEY", "é"),
        ("RELAY_UPSTREAM_API_KEY", "a b"),
        ("RELAY_SUBMIT_WINDOW_S", "inf"),
        ("RELAY_POLL_INTERVAL_S", "nan"),
        ("RELAY_POLL_LAMBDA", "0"),
        ("RELAY_POLL_LAMBDA", "3601"),
        ("RELAY_POLL_LAMBDA", "soon"),
        ("RELAY_POLL_STRATEGY", "guess"),
        ("RELAY_RESULT_TTL_S", "1e300"),
        ("RELAY_LEASE_S", "1"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """The operator reads which setting is wrong, on one line."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        Settings.load()
    assert str(caught.value).startswith(name)
    assert "\n" not in str(caught.value)
    assert "Value error" not in str(caught.value)


def test_what_has_no_value_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A template's blank lines leave keys, clients file and address unset, so that nothing is paid for by mistake."""
    for name in ("SCRAPELLM_API_KEY", "RELAY_UPSTREAM_API_KEY", "RELAY_CLIENTS_FILE", "RELAY_PUBLIC_URL"):
        monkeypatch.setenv(name, " ")
    settings = Settings.load()
    assert (settings.upstream_api_key, settings.clients_file, settings.public_url) == (None, None, None)


def test_a_dotenv_that_is_not_text_is_told(tmp_path: Path) -> None:
    """One line, and no trace."""
    (tmp_path / ".env").write_bytes(b"RELAY_PORT=1\xff\n")
    with pytest.raises(ConfigurationError, match=r"^\.env: is not UTF-8$"):
        Settings.load()


def test_one_client_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key and a secret make the client `default`, whose key is kept hashed."""
    monkeypatch.setenv("RELAY_API_KEY", "the-key")
    monkeypatch.setenv("RELAY_SIGNING_SECRET", SECRET)
    [client] = Settings.load().clients().values()
    assert client.name == "default"
    assert client.api_key_hashes == (hash_api_key("the-key"),)
    assert client.signing_secrets == (SECRET,)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "RELAY_API_KEY is missing"),
        ({"RELAY_API_KEY": "k"}, "RELAY_SIGNING_SECRET is missing"),
        ({"RELAY_API_KEY": "k", "RELAY_SIGNING_SECRET": "nope"}, "RELAY_SIGNING_SECRET"),
        ({"RELAY_API_KEY": "k k", "RELAY_SIGNING_SECRET": SECRET}, "RELAY_API_KEY must be ASCII"),
        ({"RELAY_CLIENTS_FILE": "missing.toml"}, "RELAY_CLIENTS_FILE"),
    ],
)
def test_missing_clients_are_named(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str) -> None:
    """What is missing to know a client is said, with the cure."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=message):
        Settings.load().clients()


def write(path: Path, text: str) -> Settings:
    """Settings with a clients file."""
    path.write_text(text)
    return Settings.load(clients_file=path)


def test_many_clients_come_from_a_file(tmp_path: Path) -> None:
    """Every documented key of the file is read."""
    settings = write(
        tmp_path / "clients.toml",
        f"""
        [clients.acme]
        api_key_sha256 = ["{hash_api_key("one")}", "{hash_api_key("two")}"]
        signing_secrets = ["{SECRET}"]
        upstream_api_key = "their-own"
        callback_hosts = ["*.acme.com"]
        max_unfinished_jobs = 5
        jobs_per_minute = 7
        [clients.other]
        api_key_sha256 = ["{hash_api_key("three")}"]
        signing_secrets = ["{SECRET}"]
        """,
    )
    acme, other = settings.clients().values()
    assert (acme.upstream_api_key, acme.max_unfinished_jobs, acme.jobs_per_minute) == ("their-own", 5, 7)
    assert acme.allows_callback_host("hooks.acme.com")
    assert not acme.allows_callback_host("acme.com")
    assert not acme.allows_callback_host("acme.com.evil.example")
    assert other.allows_callback_host("anything.example")
    assert (other.max_unfinished_jobs, other.jobs_per_minute) == (20_000, 6_000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not toml", "is not TOML"),
        ("", "must have sections"),
        ("x = 1", "must have sections"),
        ("[clients.a]\nsigning_secrets = []", "clients.a.api_key_sha256"),
        (f'[clients.a]\napi_key_sha256 = ["plain"]\nsigning_secrets = ["{SECRET}"]', "64 lower-case hex"),
        (f'[clients."a b"]\napi_key_sha256 = ["{"0" * 64}"]\nsigning_secrets = ["{SECRET}"]', "the name 'a b'"),
        (f'[clients.a]\napi_key_sha256 = ["{"0" * 64}"]\nsigning_secrets = ["x"]', "whsec_"),
        (f'[clients.a]\napi_key_sha256 = ["{"0" * 64}"]\nsigning_secrets = ["{SECRET}"]\nsurprise = 1', "surprise"),
        (
            "".join(f'[clients.{n}]\napi_key_sha256 = ["{"0" * 64}"]\nsigning_secrets = ["{SECRET}"]\n' for n in "ab"),
            "share an API key",
        ),
    ],
)
def test_a_wrong_clients_file_is_explained(tmp_path: Path, text: str, message: str) -> None:
    """The fault in the file is named on one line, and secrets are not repeated."""
    with pytest.raises(ConfigurationError) as caught:
        write(tmp_path / "clients.toml", text).clients()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
