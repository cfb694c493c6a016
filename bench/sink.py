"""`python -m bench.sink PORT`: a receiver of callbacks that costs next to nothing.

It notes when the first byte of each prompt's callback came, and what came twice. Whether signatures are good is not
judged here: the tests do that.
"""

import re
import sys

from bench.lean import Request, answer, json_answer, serve

_PROMPT = re.compile(rb'"prompt": ?"([^"]*)"')
_TAKEN = answer(204)


class Sink:
    """What it remembers."""

    def __init__(self) -> None:
        self._came: dict[str, float] = {}
        self._repeated = self._unsigned = 0

    def __call__(self, request: Request) -> bytes:
        """Answer one request."""
        match request.target:
            case b"/_bench/ready":
                return json_answer({})
            case b"/_bench/counts":
                counts = {"callbacks": len(self._came), "repeated": self._repeated, "unsigned": self._unsigned}
                return json_answer(counts)
            case b"/_bench/came":
                return json_answer(self._came)
        found = _PROMPT.search(request.body)
        prompt = found[1].decode() if found else ""
        self._repeated += prompt in self._came
        self._unsigned += b"webhook-signature" not in request.head.lower()
        self._came.setdefault(prompt, request.first_byte_s)
        return _TAKEN


if __name__ == "__main__":
    serve(Sink(), int(sys.argv[1]))
