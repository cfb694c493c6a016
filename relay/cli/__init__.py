"""The command line. `relay.cli:main` is what `scrapellm-relay` runs."""

from relay.cli.app import main

__all__ = ["main"]
