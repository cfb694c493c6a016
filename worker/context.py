"""What every step is handed: one frozen bundle instead of globals."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

import structlog

from relay.core.model import ClientName
from relay.core.policy import Rules
from relay.core.settings import Client, Settings, hash_api_key
from relay.core.store.work import Lease, WorkStore
from relay.core.tracing import Tracing
from worker.gates import Pause
from worker.learning import Learner
from worker.metrics import WorkerMetrics
from worker.runner import Kind, StepRunner
from worker.saver import Saver

log = structlog.get_logger("worker.context")


@dataclass(frozen=True, slots=True)
class Context:
    """The worker's parts, as its steps need them."""

    settings: Settings
    rules: Rules
    clients: Mapping[ClientName, Client]
    store: WorkStore
    runner: StepRunner
    saver: Saver
    learner: Learner
    metrics: WorkerMetrics
    tracing: Tracing = field(default_factory=Tracing)
    jitter: Random = field(default_factory=Random)
    #: The pauses that this worker's own submits have run into, by `pause_name`: known here before the next look.
    pauses: dict[str, Pause] = field(default_factory=dict)
    #: How often in a row each upstream key was over a limit.
    _refusals: dict[str, int] = field(default_factory=dict)

    def upstream_key(self, client: ClientName) -> str:
        """The ScrapeLLM key that a client's jobs are submitted with: its own, or the operator's."""
        own = self.clients[client].upstream_api_key
        if own is not None:
            return own
        common = self.settings.upstream_api_key
        return common.get_secret_value() if common is not None else ""

    def pause_name(self, client: ClientName) -> str:
        """What the pause of a client's upstream key is stored under: never the key itself."""
        return hash_api_key(self.upstream_key(client))[:16]

    def refusals(self, client: ClientName, now_ms: int) -> int:
        """How often in a row the client's upstream key is over a limit, the refusal that has just come included.

        Those that come while its pause lasts were sent before it, and are the same one.
        """
        name = self.pause_name(client)
        known = self.pauses.get(name)
        if known is None or known.until_ms <= now_ms:
            self._refusals[name] = self._refusals.get(name, 0) + 1
        return self._refusals.get(name, 1)

    def note_refused(self, kind: Kind, lease: Lease) -> None:
        """Count and log that a save was refused."""
        self.metrics.refused(kind.value).inc()
        log.info("save refused: another worker has it, or it was cancelled", id=lease.id, kind=kind.value)

    def note_success(self, client: ClientName) -> None:
        """The client's upstream key is not over a limit."""
        self._refusals.pop(self.pause_name(client), None)

    def note_pause(self, client: ClientName, pause: Pause) -> None:
        """Hold back this worker's submits under the client's upstream key; the later end wins."""
        name = self.pause_name(client)
        known = self.pauses.get(name)
        if known is None or known.until_ms < pause.until_ms:
            self.pauses[name] = pause

    def noted_pauses(self) -> dict[ClientName, Pause]:
        """The noted pauses, client by client; those that are over by now among them."""
        if not self.pauses:
            return {}
        noted = {client: self.pauses.get(self.pause_name(client)) for client in self.clients}
        return {client: pause for client, pause in noted.items() if pause is not None}


def rules_of(settings: Settings) -> Rules:
    """The settings that decisions depend on, in milliseconds."""
    return Rules(
        poll_interval_ms=round(settings.poll_interval_s * 1000),
        poll_min_interval_ms=round(settings.poll_min_interval_s * 1000),
        submit_window_ms=round(settings.submit_window_s * 1000),
        resubmit_ambiguous=settings.on_ambiguous_submit == "resubmit",
        schedule_ms=tuple(round(delay_s * 1000) for delay_s in settings.callback_schedule),
    )
