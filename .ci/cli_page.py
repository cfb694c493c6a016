"""Prints docs/cli.md with the help of each command as it is now: what stands between its markers is made anew."""

import re
import sys
from pathlib import Path

from typer.main import get_command

from relay.cli.app import app

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
_HELP = re.compile(r"(<!-- help: ([a-z-]*) -->\n).*?(<!-- /help -->)", re.DOTALL)
_WIDTH = 100


def page(text: str) -> str:
    """The page as it should be."""
    return _HELP.sub(lambda match: f"{match[1]}\n```text\n{help_of(match[2])}\n```\n\n{match[3]}", text)


def commands() -> list[str]:
    """All commands, in the order of the help."""
    return list(get_command(app).commands)  # type: ignore[attr-defined]  # a group has them


def help_of(name: str) -> str:
    """What `scrapellm-relay NAME --help` says; of all of it, where there is no name."""
    root = get_command(app)
    context = root.make_context("scrapellm-relay", [], resilient_parsing=True, terminal_width=_WIDTH)
    if name:
        command = root.commands[name]  # type: ignore[attr-defined]  # a group has them
        context = command.make_context(name, [], parent=context, resilient_parsing=True, terminal_width=_WIDTH)
    return "\n".join(line.rstrip() for line in context.command.get_help(context).splitlines())


if __name__ == "__main__":
    sys.stdout.write(page(PAGE.read_text()))
