"""Everything that leaves the relay by HTTP: alone builds outbound sessions, and decides where callbacks may go."""

from relay.core.egress.attempt import Answered, NotAnswered, OutOfResources, Reply, post_callback
from relay.core.egress.bodies import AnswerTooLarge, read_bounded
from relay.core.egress.guard import BlockedAddress, CallbackGuard
from relay.core.egress.resolver import AresResolver, HostResolver
from relay.core.egress.sessions import (
    USER_AGENT,
    CallbackSession,
    callback_session,
    inbox_session,
    upstream_session,
)
from relay.core.egress.urls import CallbackUrl, RefusedUrl, UrlPolicy, parse_callback_url

__all__ = [
    "USER_AGENT",
    "AnswerTooLarge",
    "Answered",
    "AresResolver",
    "BlockedAddress",
    "CallbackGuard",
    "CallbackSession",
    "CallbackUrl",
    "HostResolver",
    "NotAnswered",
    "OutOfResources",
    "RefusedUrl",
    "Reply",
    "UrlPolicy",
    "callback_session",
    "inbox_session",
    "parse_callback_url",
    "post_callback",
    "read_bounded",
    "upstream_session",
]
