"""The demo's streaming client of the OpenAI API, against a fake server."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from thunderserve.cli.demo_checks import identical_ratio
from thunderserve.cli.openai_http import stream_events
from thunderserve.core.errors import ThunderServeError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def _serving(status: int, body: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_stream_yields_events_until_done() -> None:
    """Comments and empty lines are passed over."""
    with _serving(
        200, ': hello\n\ndata: {"n": 1}\n\ndata: {"n": 2}\n\ndata: [DONE]\n\n'
    ) as address:
        assert [event["n"] for event in stream_events(address, "/", {})] == [1, 2]


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, '{"error": {"message": "no model x"}}', "HTTP 404: no model x"),
        (502, "<html>", "HTTP 502: <html>"),
        (200, 'data: {"error": {"message": "lost"}}\n\n', "lost"),
        (200, 'data: {"n": 1}\n\n', r"without \[DONE\]"),
    ],
)
def test_stream_raises_when_answer_is_an_error_or_cut(status: int, body: str, message: str) -> None:
    """A refusal, an error event and a stream that just ends are all errors."""
    with _serving(status, body) as address, pytest.raises(ThunderServeError, match=message):
        list(stream_events(address, "/", {}))


def test_stream_names_address_when_nobody_answers(nobody: str) -> None:
    """With the system's reason."""
    with pytest.raises(UnreachableError, match=f"cannot reach http://{nobody}"):
        list(stream_events(nobody, "/", {}))


@pytest.mark.parametrize(
    ("answer", "ratio"),
    [((1, 2, 3, 4), 1.0), ((1, 2, 9, 4), 0.5), ((9, 2, 3, 4), 0.0), ((1, 2), 0.5)],
)
def test_identical_ratio_counts_tokens_before_first_difference(
    answer: tuple[int, ...], ratio: float
) -> None:
    """What comes after a difference is no agreement, even if it is equal."""
    assert identical_ratio(answer, (1, 2, 3, 4)) == ratio
