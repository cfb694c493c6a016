"""Prints docs/configuration.md, made from the settings themselves."""

import sys
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from relay.core.settings import ClientConfig, Settings
from relay.dev.emulator import EmulatorSettings

HEAD = """# Configuration

Made from the settings by `.ci/configuration_page.py`; a test holds the two together.

Every setting is an environment variable (or a line of `.env` in the working directory). Lists are comma-separated. A
setting that is wrong or missing stops the process at once, with one line that names it and exit code 2. Settings are
read when a process starts.

- `RELAY_CALLBACK_REFUSED_PORTS` **replaces** the default list, so name those that you still want refused. The default
  is `REFUSED_PORTS` in `relay/core/settings.py`: the "bad ports" of the [WHATWG Fetch
  standard](https://fetch.spec.whatwg.org/#port-blocking), which browsers block, and those of Redis (6379, 6380).
- Callbacks go to public addresses, unless `RELAY_CALLBACK_ALLOWED_NETWORKS` names others. `scrapellm-relay dev` and
  `demo` allow this machine's own (127.0.0.0/8, ::1).
- The commands for clients (`submit`, `batch`, `jobs`, `cancel`, `redeliver`, `destinations`) and the Python client read
  `RELAY_API_KEY`, and for the address of the relay `RELAY_URL`: `http://127.0.0.1:8080` where it is not set.

| variable | default | |
|---|---|---|
"""

CLIENTS = """
## Clients

One client: `RELAY_API_KEY` and `RELAY_SIGNING_SECRET`; it is called `default`. `scrapellm-relay keygen` makes both.

Many: `RELAY_CLIENTS_FILE` names a TOML file with a section per client, and the two settings above don't count. API
keys are kept as their SHA-256, which `keygen` prints beside the key. How keys and secrets are changed:
[rotation.md](rotation.md).

```toml
[clients.acme]
api_key_sha256 = ["…"]            # two while a key is being replaced
signing_secrets = ["whsec_…"]     # all of them sign, so that receivers can change over in their own time
upstream_api_key = "…"            # optional: the client's own ScrapeLLM key
callback_hosts = ["*.acme.com"]   # optional: callbacks go nowhere else
max_unfinished_jobs = 20000
jobs_per_minute = 6000
```

| key | default | |
|---|---|---|
"""

EMULATOR = """
## The emulator

`scrapellm-relay emulator` and `dev` read these.

| variable | default | |
|---|---|---|
"""

CLIENT_TEXTS = {
    "api_key_sha256": "SHA-256 of each API key, in lower-case hex.",
    "signing_secrets": "What signs the callbacks; each is `whsec_` and 24 to 64 bytes in base64.",
    "upstream_api_key": "The client's own ScrapeLLM key; without it the operator's is used.",
    "callback_hosts": "Hosts that callbacks may go to; `*.acme.com` does not include `acme.com`. None named: any.",
    "max_unfinished_jobs": "Jobs without an outcome that the client may have at once.",
    "jobs_per_minute": "Requests that accept jobs, per minute; a batch is one.",
}


def page() -> str:
    """The page as it should be."""
    client_rows = [
        f"| `{name}` | {_shown(field)} | {CLIENT_TEXTS[name]} |" for name, field in ClientConfig.model_fields.items()
    ]
    parts = [HEAD, *_rows("RELAY_", Settings), CLIENTS, *client_rows, EMULATOR, *_rows("EMULATOR_", EmulatorSettings)]
    return "\n".join(part.removesuffix("\n") for part in parts) + "\n"


def _rows(prefix: str, settings: type[BaseModel]) -> list[str]:
    return [
        f"| `{prefix}{name.upper()}` | {_shown(field)} | {field.description} |"
        for name, field in settings.model_fields.items()
    ]


def _shown(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.default
    if value is None or value == () or field.default_factory is not None:
        return ""
    if isinstance(value, tuple):
        text = ",".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value)
        return f"`{text}`" if len(text) <= 100 else f"{len(value)} of them"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    sys.stdout.write(page())
