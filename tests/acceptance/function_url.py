"""A function URL of AWS Lambda on this machine: turns each request into an event of payload format 2.0.

Usage: python function_url.py HANDLER.py PORT
"""

import base64
import importlib.util
import itertools
import sys
import traceback
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

spec = importlib.util.spec_from_file_location("handler", sys.argv[1])
assert spec is not None
assert spec.loader is not None
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

#: Lambda encodes what it does not take for text; here it is every second body, so that both ways are tried.
encoded = itertools.cycle([False, True])


class FunctionUrl(BaseHTTPRequestHandler):
    """One request at a time, as an instance of a function has it."""

    def do_POST(self) -> None:
        """Call the handler, and answer what it says; 502 where it raises."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            text, is_base64 = body.decode(), next(encoded)
        except UnicodeDecodeError:
            text, is_base64 = "", True
        event: dict[str, Any] = {
            "version": "2.0",
            "rawPath": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "requestContext": {"http": {"method": self.command, "path": self.path}},
            "isBase64Encoded": is_base64,
        }
        if body:  # there is no field at all where there is no body
            event["body"] = base64.b64encode(body).decode() if is_base64 else text
        try:
            answer = module.handler(event, None)
        except Exception:  # noqa: BLE001 - whatever a handler raises
            traceback.print_exc()
            answer = {"statusCode": 502, "body": "Internal Server Error"}
        said = answer.get("body", "").encode()
        self.send_response(answer["statusCode"])
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST  # noqa: N815 - the name is http.server's

    def log_message(self, *_: object) -> None:
        """Say nothing: what the handler prints is looked at."""


HTTPServer(("127.0.0.1", int(sys.argv[2])), FunctionUrl).serve_forever()
