"""The study's web server: a few fixed files, the pictures under random names, and a JSON interface."""

import json
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from examples.pose_morph.errors import UserError
from examples.pose_morph.study.results_page import results_page
from examples.pose_morph.study.sitting import Refusal, Sitting

BODY_LIMIT = 4096
PAGE = Path(__file__).parent / "page"
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/study.css": ("study.css", "text/css; charset=utf-8"),
    "/study.js": ("study.js", "text/javascript; charset=utf-8"),
}
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Reply:
    """A body and its kind."""

    body: bytes
    kind: str = "application/json"


class StudyServer(ThreadingHTTPServer):
    """Serves one sitting; every request has a thread of its own."""

    daemon_threads = True
    timeout = 0.5  # of handle_request, so that Ctrl-C is looked up in between

    def __init__(self, host: str, port: int, open_sitting: Callable[[], Sitting]) -> None:
        """Listen, and only then open the sitting, which begins a results file.

        Raises:
            UserError: the address is not this machine's, the port is taken, or ``open_sitting`` refuses.
        """
        self.files = {path: Reply((PAGE / name).read_bytes(), kind) for path, (name, kind) in FILES.items()}
        try:
            super().__init__((host, port), StudyHandler)
        except (OSError, OverflowError) as error:
            raise UserError(f"host, port: cannot listen on {host}:{port} ({error}); try another --port") from error
        try:
            self.sitting = open_sitting()
        except BaseException:
            self.server_close()
            raise

    def addresses(self) -> list[str]:
        """Return the addresses under which a browser finds the page, for this machine first."""
        host, port = str(self.server_address[0]), self.server_address[1]
        if host != "0.0.0.0":
            return [f"http://{host}:{port}/"]
        return [f"http://{name}:{port}/" for name in ("127.0.0.1", _lan_address()) if name is not None]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report an error, unless a browser went away in the middle of a reply."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class StudyHandler(BaseHTTPRequestHandler):
    """Answers one browser."""

    protocol_version = "HTTP/1.1"
    server_version = "study"
    sys_version = ""
    timeout = 30  # seconds that a silent connection is kept

    def do_GET(self) -> None:
        """Serve a file, a picture, or what the page of instructions says."""
        self._reply(self._get)

    def do_POST(self) -> None:
        """Take a JSON object."""
        self._reply(self._post)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not printed: the results file has what matters."""

    def _get(self) -> Reply:
        server = cast(StudyServer, self.server)
        path = self._path()
        if path in server.files:
            return server.files[path]
        if path == "/api/study":
            return _json(server.sitting.introduction())
        if path == "/results":
            if not self.client_address[0].startswith("127."):
                raise Refusal(403, "the results are shown only on the machine where the study runs")
            return Reply(results_page(server.sitting.result()).encode(), "text/html; charset=utf-8")
        folder, _, name = path.rpartition("/")
        if folder == "/picture":
            return Reply(server.sitting.picture(name), "image/png")
        examples = server.sitting.exhibition.examples
        if folder == "/example" and name in map(str, range(len(examples))):
            return Reply(examples[int(name)][1], "image/png")
        raise Refusal(404, "there is nothing at this address")

    def _post(self) -> Reply:
        sitting = cast(StudyServer, self.server).sitting
        calls: dict[str, tuple[Callable[..., dict[str, Any]], tuple[str, ...]]] = {
            "/api/join": (sitting.join, ("participant",)),
            "/api/current": (sitting.current, ("participant",)),
            "/api/shown": (sitting.shown, ("participant", "question")),
            "/api/answer": (sitting.answer, ("participant", "question", "answer")),
        }
        found = calls.get(self._path())
        if found is None:
            raise Refusal(404, "there is nothing at this address")
        call, names = found
        values = self._body()
        arguments: list[Any] = [_text(values, name) for name in names]
        if call == sitting.answer:
            arguments.append(values.get("seconds"))
        return _json(call(*arguments))

    def _path(self) -> str:
        try:
            return urlsplit(self.path).path
        except ValueError as error:
            raise Refusal(400, "this is no address") from error

    def _body(self) -> Mapping[str, Any]:
        kind = self.headers.get_content_type()
        if kind != "application/json":
            raise Refusal(415, f"expected application/json, got {kind}")
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            raise Refusal(411, "expected a Content-Length")
        if len(length) > 9 or int(length) > BODY_LIMIT:
            raise Refusal(413, f"expected at most {BODY_LIMIT} bytes, got {length}")
        try:
            values = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise Refusal(400, "expected JSON") from error
        if not isinstance(values, dict):
            raise Refusal(400, "expected a JSON object")
        return values

    def _reply(self, answer: Callable[[], Reply]) -> None:
        status = 200
        try:
            reply = answer()
        except Refusal as refusal:
            status, reply = refusal.status, _json({"error": refusal.reason})
        except OSError as error:  # the results file cannot be written
            status, reply = 503, _json({"error": f"the answer cannot be kept now ({error.strerror})"})
        if status != 200:
            self.close_connection = True  # a body may be left unread
        self.send_response(status, HTTPStatus(status).phrase)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Content-Length", str(len(reply.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(reply.body)


def _json(value: Mapping[str, Any]) -> Reply:
    return Reply(json.dumps(value).encode())


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if not isinstance(value, str) or len(value) > 64:
        raise Refusal(400, f"{name}: expected a short text")
    return value


def _lan_address() -> str | None:
    """The address that other machines see; connecting a datagram socket picks it and sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])
