"""How much of a body is read, and what is kept of it. Alone knows these limits."""

import asyncio
import codecs
import contextlib
import re

import aiohttp

#: What an attempt keeps of a receiver's answer (docs/api.md, "Reading and changing jobs").
EXCERPT_BYTES = 1024
#: Bodies up to this are read to their end, so that the connection can be used again; longer ones are cut off.
_READ_AT_MOST_BYTES = 16 * 1024
#: The status has decided the attempt already; a body that drips is not waited for longer.
_READ_WITHIN_S = 1.0

#: Controls but tab and line feed, and what reverses or hides text on a screen (bidirectional and zero-width controls).
_HARMFUL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


class AnswerTooLarge(aiohttp.ClientPayloadError):
    """The upstream's answer is larger than is read."""


async def read_bounded(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """The whole body, decompressed, of at most `max_bytes`. Raises AnswerTooLarge, and closes the connection then."""
    # Most bodies come whole: one piece.
    pieces: list[bytes] = []
    size = 0
    while not response.content.at_eof():
        pieces.append(await response.content.readany())
        size += len(pieces[-1])
        if size > max_bytes:
            response.close()
            raise AnswerTooLarge(f"the answer is larger than {max_bytes} bytes")
    return b"".join(pieces)


async def read_excerpt(response: aiohttp.ClientResponse, ends_at: float) -> str:
    """The beginning of the body as harmless text of at most 1 KiB in UTF-8; gives the connection back or closes it.

    Waits for 1 s, and not beyond `ends_at` (on the loop's clock). A body that stalls, breaks or never ends yields
    what came of it.
    """
    until = min(ends_at, asyncio.get_running_loop().time() + _READ_WITHIN_S)
    kept, read, ended = bytearray(), 0, False
    try:
        # Most answers come whole, head and body at once: nothing is waited for then.
        async with contextlib.nullcontext() if response.content.is_eof() else asyncio.timeout_at(until):
            while read <= _READ_AT_MOST_BYTES and not ended:
                chunk = await response.content.read(_READ_AT_MOST_BYTES)
                kept += chunk[: EXCERPT_BYTES - len(kept)]
                read += len(chunk)
                ended = not chunk
    except (aiohttp.ClientError, OSError):  # TimeoutError included
        ended = False
    finally:
        if not ended:
            response.close()
    if ended:
        response.release()
    return harmless(bytes(kept), cut=read > len(kept) or not ended)


def harmless(body: bytes, *, cut: bool) -> str:
    """`body` as text that can be shown anywhere: at most 1 KiB in UTF-8, undecodable and control characters replaced.

    With `cut` a last character that is incomplete is dropped rather than replaced.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(body, final=not cut).replace("\r\n", "\n")
    encoded = _HARMFUL.sub("\ufffd", text).encode()
    return encoded[:EXCERPT_BYTES].decode("utf-8", "ignore")
