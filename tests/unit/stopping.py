"""How long services take to stop, which whoever ends them must give them."""

from relay.api.context import Limits

#: Between the last step's end and the process' end: saving, closing connections.
CLOSING_S = 5
#: How long a stopping worker waits for batches that had just begun, before its grace.
BATCHES_S = 3
#: How long a stopping relay gives running requests, and then those whose client has gone.
REQUESTS_S = 2 * Limits().shutdown_s
