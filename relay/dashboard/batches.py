"""`/dashboard/batches`: the list, and one batch."""

from aiohttp import web

from relay.api.answers import store_of
from relay.api.context import SETTINGS
from relay.api.parameters import Query, batch_id, is_batch_id
from relay.api.problems import not_found
from relay.core.model import Batch, BatchId, ClientName
from relay.dashboard.entrance import Form, action, page
from relay.dashboard.examples import VERIFYING, curl_for_batch
from relay.dashboard.job import file, owner_of
from relay.dashboard.listing import Listed, merge, of_each
from relay.dashboard.preview import announced, preview_of
from relay.dashboard.render import given, linker, said_of, see, show
from relay.dashboard.viewer import Viewer

_LIMIT = 30
_DID = {"redelivered": "The callback is sent again, on a fresh schedule."}


@page
async def find(request: web.Request, viewer: Viewer) -> web.StreamResponse:
    """The newest batches, or those that come after `before`."""
    query = Query(given(request), {"client", "before"})
    before = query.single("before")
    if before is not None and not is_batch_id(before):
        query.fault("before", "is not the id of a batch")
    query.check()
    store = store_of(request)

    async def ask(client: ClientName) -> Listed[Batch]:
        found = await store.batches(client, _LIMIT, None if before is None else BatchId(before))
        return found.batches, found.next_before

    batches, older = merge(await of_each(viewer.scope, ask), _LIMIT)
    return show(
        request,
        viewer,
        "batches.html",
        batches=batches,
        older=older,
        before=before,
        several=len(viewer.scope) > 1,
        example=curl_for_batch(request.app[SETTINGS], request),
    )


@page
async def read(request: web.Request, viewer: Viewer) -> web.StreamResponse:
    """The page of a batch."""
    query = Query(given(request), {"client", "did"})
    said = said_of(query, _DID)
    query.check()
    store = store_of(request)
    client = await owner_of(request, viewer, batch_id(request))
    batch = await store.batch(client.name, batch_id(request))
    told = await store.subject(client.name, batch.id)
    return show(
        request,
        viewer,
        "batch.html",
        batch=batch,
        preview=preview_of(told, client, store.now_ms()),
        verifying=VERIFYING,
        said=said,
        may_redeliver=batch.delivery is not None and batch.delivery.status.is_ended,
        several=len(viewer.scope) > 1,
    )


@page
async def body(request: web.Request, viewer: Viewer) -> web.StreamResponse:
    """`…/callback`: the body of the batch's own callback, the exact bytes that are signed."""
    client = await owner_of(request, viewer, batch_id(request))
    message = announced(await store_of(request).subject(client.name, batch_id(request)))
    if message is None:
        raise not_found()
    return file(message.body, "callback.json")


@action
async def redeliver(request: web.Request, viewer: Viewer, _form: Form) -> web.StreamResponse:
    """Send `batch.completed` again."""
    client = await owner_of(request, viewer, batch_id(request))
    batch = await store_of(request).redeliver_batch(client.name, batch_id(request))
    return see(linker(viewer)(f"/batches/{batch.id}", did="redelivered"))
