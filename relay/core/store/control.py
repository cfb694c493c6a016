"""What a client may do to what it has: cancel and redeliver."""

from relay.core.errors import Conflict, NotFound, NotRedeliverable
from relay.core.model import Batch, BatchId, ClientName, DeliveryStatus, Destination, Job, JobId
from relay.core.store.connection import Connection
from relay.core.store.intake import Intake
from relay.core.store.queries import COMBINATIONS

_CHUNK = 500
_MISSING, _NOT_ENDED = -1, -2


class Control(Intake):
    """Cancelling and redelivering."""

    def __init__(
        self, db: Connection, submit_window_ms: int, events_kept: int, result_ttl_ms: int, first_delay_ms: int
    ) -> None:
        super().__init__(db, submit_window_ms, events_kept)
        self._result_ttl_ms = result_ttl_ms
        self._first_delay_ms = first_delay_ms

    async def cancel(self, client: ClientName, job_id: JobId) -> Job:
        """Cancel a job that has no outcome; again is fine. Raises NotFound, Conflict, StoreUnavailable."""
        await self.job(client, job_id, with_result=False)
        answer = await self._db.run(
            "cancel", client, job_id, self._events_kept, self._result_ttl_ms, self._first_delay_ms
        )
        if answer == b"missing":
            raise NotFound(job_id)
        if answer == b"conflict":
            raise Conflict("the job has its outcome already")
        return await self.job(client, job_id)

    async def redeliver(self, client: ClientName, job_id: JobId) -> Job:
        """Send a job's callback once more, on a fresh schedule. Raises NotFound, NotRedeliverable, StoreUnavailable."""
        await self._redeliver_one(client, job_id)
        return await self.job(client, job_id)

    async def redeliver_batch(self, client: ClientName, batch_id: BatchId) -> Batch:
        """The same for a batch's own callback. Raises NotFound, NotRedeliverable, StoreUnavailable."""
        await self._redeliver_one(client, batch_id)
        return await self.batch(client, batch_id)

    async def _redeliver_one(self, client: ClientName, thing_id: str) -> None:
        # A repeat after a lost reply would find the delivery pending and refuse, so it is not repeated.
        answer = await self._db.run(
            "redeliver", client, self._events_kept, self._first_delay_ms, "", "", "", "", thing_id, repeat=False
        )
        if answer == _MISSING:
            raise NotFound(thing_id)
        if answer == _NOT_ENDED:
            raise NotRedeliverable("there is no ended delivery to repeat")

    async def resume_destination(self, client: ClientName, name: str) -> Destination:
        """Send what waits for a destination, as if it had never failed. Raises NotFound, StoreUnavailable."""
        if not await self._db.run("resume", client, name):
            raise NotFound(name)
        return await self.destination(client, name)

    async def redeliver_many(
        self,
        client: ClientName,
        *,
        delivery: DeliveryStatus = DeliveryStatus.EXHAUSTED,
        since_ms: int | None = None,
        until_ms: int | None = None,
        callback_host: str | None = None,
    ) -> int:
        """Redeliver every job of a client whose delivery ended as `delivery`, and that ended in [since, until).

        `callback_host` is lower-case, without port and brackets. Returns how many. Each job is changed once, though
        the store may become unavailable half-way. Raises StoreUnavailable.
        """
        count = 0
        window = (since_ms if since_ms is not None else "", until_ms if until_ms is not None else "")
        for status, combined in COMBINATIONS:
            if combined is not delivery or status.value == "cancelled":
                continue
            index, low = self._db.key(f"ix:{client}:{status}:{delivery}"), "-"
            while True:
                ids = await self._db.call(lambda i=index, x=low: self._db.redis.zrangebylex(i, x, "+", 0, _CHUNK))  # type: ignore[misc]  # bound early on purpose
                if not ids:
                    break
                count += await self._db.run(
                    "redeliver",
                    *(client, self._events_kept, self._first_delay_ms, delivery.value, *window, callback_host or ""),
                    *ids,
                )
                low = f"({ids[-1].decode()}"
        return count
