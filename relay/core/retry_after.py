"""The `Retry-After` header (RFC 9110, section 10.2.3): seconds, or a date."""

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

#: Nobody waits for longer; callers have closer limits of their own.
LONGEST_S = 30 * 86_400.0
#: A longer value is no header that anybody meant.
_LONGEST_CHARACTERS = 100
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def parse_retry_after(value: str | None, now_s: float) -> float | None:
    """Seconds to wait from `now_s` (Unix time): 0 to LONGEST_S; None where the header is missing or makes no sense.

    Fractions are taken although the standard knows none; a date without a zone is in UTC.
    """
    if value is None:
        return None
    text = value.strip()
    if len(text) > _LONGEST_CHARACTERS:
        return None
    if _SECONDS.fullmatch(text):
        return min(float(text), LONGEST_S)
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            # RFC 5322's "-0000": the time is UTC, the sender's zone unknown.
            moment = moment.replace(tzinfo=UTC)
        wait_s = moment.timestamp() - now_s
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(0.0, wait_s), LONGEST_S)
