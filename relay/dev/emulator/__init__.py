"""An emulator of ScrapeLLM's asynchronous API, as a real HTTP server. Goes by docs/upstream.md; breaks on request."""

from relay.dev.emulator.app import build_app, run, start
from relay.dev.emulator.settings import EmulatorSettings, Fault

__all__ = ["EmulatorSettings", "Fault", "build_app", "run", "start"]
