"""A receiver of callbacks: verifies each, drops repeats, answers at once.

pip install aiohttp standardwebhooks
SIGNING_SECRET=whsec_… PORT=9001 python examples/receiver.py
"""

import json
import os
from collections import OrderedDict

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["SIGNING_SECRET"])
#: What was seen. Delivery is at least once; a real receiver keeps this where its data is.
seen: OrderedDict[str, None] = OrderedDict()


async def hook(request: web.Request) -> web.Response:
    """Take one callback."""
    body = await request.read()
    try:
        webhook.verify(body, dict(request.headers))
    except WebhookVerificationError as error:
        return web.Response(status=401, text=str(error))
    webhook_id = request.headers["webhook-id"]
    if webhook_id not in seen:
        seen[webhook_id] = None
        while len(seen) > 10_000:
            seen.popitem(last=False)
        event = json.loads(body)
        # Long work belongs into a queue of yours: the relay waits 15 s for the answer.
        print(event["type"], event["data"]["id"], flush=True)
    return web.Response(status=204)


app = web.Application(client_max_size=32 * 1024**2)
app.router.add_post("/hook", hook)

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(os.environ.get("PORT", "9001")))
