"""The commands and their exit codes. Alone knows which failure ends with which.

0  done
1  it was done, and the answer is no: a job failed or timed out, there is no such job, a process does not stay up
2  the command, a setting or the request is wrong
3  no relay answers, or it cannot work now
130  Ctrl-C
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from io import TextIOWrapper
from typing import Annotated

import typer

from relay import __version__
from relay.cli import actions, batch, demo, destinations, dev, jobs, listen, services, submit
from relay.cli.inputs import InputError
from relay.cli.render import clean
from relay.client import (
    ClientError,
    Conflict,
    Gone,
    Misconfigured,
    NotFound,
    RateLimited,
    Refused,
    Unauthorized,
    Unreachable,
)
from relay.core.errors import ConfigurationError, RelayError

_EXAMPLES = """\b
Examples:
  scrapellm-relay demo                      see it work, in a few seconds
  scrapellm-relay dev                       everything on this machine, to build against
  scrapellm-relay submit "Why is the sky blue?" --scraper chatgpt \\
      --callback-url https://example.com/hook --wait
  scrapellm-relay batch prompts.csv --scraper chatgpt --scraper grok \\
      --callback-url https://example.com/hook
  scrapellm-relay jobs --status failed      then: scrapellm-relay jobs JOB_ID
  scrapellm-relay jobs --watch              as they change
  scrapellm-relay redeliver --exhausted     what did not get through, once more

\b
Exit codes:
  0  done
  1  it was done, and the answer is no: a job failed, there is no such thing, its state does not allow this
  2  the command, a setting or the request is wrong
  3  no relay answers, or it cannot work now
  130  Ctrl-C
"""

app = typer.Typer(
    name="scrapellm-relay",
    help="Push notifications for ScrapeLLM: submit a prompt with a callback URL, get the signed result delivered.",
    epilog=_EXAMPLES,
    no_args_is_help=True,
    # Plain: help is read in pipes and pagers too, and examples stay as they are written.
    rich_markup_mode=None,
    # Locals in a trace would show keys.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

#: Each command with its place in the list of them, and what follows its options.
_COMMANDS: Sequence[tuple[Callable[..., None], str, str]] = (
    (dev.dev, "Run everything on this machine, to build against.", dev.MORE),
    (demo.demo, "See it work, in a few seconds.", demo.MORE),
    (submit.submit, "Submit one prompt.", submit.MORE),
    (batch.batch, "Submit a file of prompts, and follow it.", batch.MORE),
    (jobs.jobs, "See what became of jobs, or watch them change.", jobs.MORE),
    (actions.cancel, "Cancel jobs.", actions.MORE_CANCEL),
    (actions.redeliver, "Send callbacks once more.", actions.MORE_REDELIVER),
    (destinations.destinations, "See how receivers fare.", destinations.MORE),
    (listen.listen, "Receive callbacks here, or pass them on.", listen.MORE),
    (services.serve, "Run the relay.", services.MORE_SERVE),
    (services.worker, "Run a worker.", services.MORE_WORKER),
    (services.emulator, "Run an emulated ScrapeLLM.", services.MORE_EMULATOR),
    (services.keygen, "Make an API key and a signing secret.", services.MORE_KEYGEN),
)
for _command, _short, _more in _COMMANDS:
    app.command(short_help=_short, epilog=_more)(_command)


def _print_version(asked: bool) -> None:  # noqa: FBT001 - typer calls it with the option's value
    if asked:
        typer.echo(f"scrapellm-relay {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends with SystemExit, whose code is one of those above."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A terminal that lacks a character is no reason to fail.
            stream.reconfigure(errors="replace")
    with _one_line():
        app(args=None if arguments is None else list(arguments), prog_name="scrapellm-relay")


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Turn expected failures into a line on standard error and an exit code."""
    try:
        yield
    except (ConfigurationError, InputError, Misconfigured) as error:
        code, message = 2, str(error)
    except Unreachable as error:
        code, message = 3, str(error) if error.is_sent else f"{error}; start one, or give --url"
    except (NotFound, Conflict, Gone, RateLimited) as error:
        code, message = 1, str(error)
    except Unauthorized as error:
        code, message = 2, f"{error} Give another with --api-key, or set RELAY_API_KEY."
    except Refused as error:
        code, message = 2, str(error)
    except (ClientError, RelayError) as error:
        code, message = 1, str(error)
    else:
        return
    # What a relay or a child says is not ours.
    sys.stderr.write(f"scrapellm-relay: {' '.join(clean(message).split())}\n")
    raise SystemExit(code)
