"""A study behind a server in a thread, and a client that speaks to one."""

import http.client
import json
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from examples.pose_morph.study.server import StudyServer
from examples.pose_morph.study.sitting import Sitting


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    def __init__(self, port: int) -> None:
        self.port = port

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            reply = connection.getresponse()
            return Reply(reply.status, dict(reply.headers), reply.read())
        finally:
            connection.close()

    def get(self, path: str) -> Reply:
        return self.send("GET", path)

    def post(self, path: str, values: Any, **headers: str) -> Reply:
        return self.send("POST", path, json.dumps(values).encode(), **{"Content_Type": "application/json", **headers})

    def ask(self, path: str, **values: Any) -> Any:
        reply = self.post(f"/api/{path}", values)
        assert reply.status == 200, reply.body
        return json.loads(reply.body)

    def judge(self, participant: str, state: dict[str, Any], answer: str = "real") -> Any:
        """See the picture of a question and answer it."""
        if not state["shown"]:
            assert self.get(f"/picture/{state['question']}").status == 200
            self.ask("shown", participant=participant, question=state["question"])
        return self.ask("answer", participant=participant, question=state["question"], answer=answer, seconds=1.5)


class Serving:
    """A sitting behind a server; a second call stops it and starts one on the same file."""

    def __init__(self, make_sitting: Callable[..., Sitting]) -> None:
        self._make_sitting = make_sitting
        self._running: tuple[StudyServer, Sitting, threading.Thread] | None = None

    def __call__(self, *, port: int = 0, **options: Any) -> Client:
        self.stop()
        sitting = self._make_sitting(**options)
        server = StudyServer("127.0.0.1", port, lambda: sitting)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        self._running = server, sitting, thread
        return Client(server.server_address[1])

    def stop(self) -> None:
        if self._running is not None:
            server, sitting, thread = self._running
            self._running = None
            server.shutdown()
            thread.join()
            server.server_close()
            sitting.close()
