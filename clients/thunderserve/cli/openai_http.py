"""A small streaming client of the OpenAI API, so that the demo needs no client library."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any

from thunderserve.core.errors import ThunderServeError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["get_json", "stream_events"]

ANSWER_TIMEOUT_S = 120.0


def stream_events(address: str, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The events of one streamed answer, as they arrive.

    Args:
        address: `host:port`.
        path: For example `/v1/chat/completions`.
        body: The request; `stream` is added.

    Raises:
        UnreachableError: Nobody answers there.
        ThunderServeError: The server refused, failed, or ended the stream without saying so.
    """
    connection = http.client.HTTPConnection(address, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.request(
            "POST", path, json.dumps(body | {"stream": True}), {"content-type": "application/json"}
        )
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise ThunderServeError(f"HTTP {response.status}: {_message(response.read())}")
        for raw in response:
            line = raw.decode().strip()
            if line == "data: [DONE]":
                return
            if line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                if "error" in event:
                    raise ThunderServeError(event["error"]["message"])
                yield event
    except OSError as error:
        raise UnreachableError(f"cannot reach http://{address}: {error}") from error
    finally:
        connection.close()
    raise ThunderServeError("the stream ended without [DONE]")


def get_json(address: str, path: str) -> dict[str, Any]:
    """What a GET of `path` answers.

    Raises:
        UnreachableError: Nobody answers there.
        ThunderServeError: The server refused.
    """
    connection = http.client.HTTPConnection(address, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        if response.status != http.client.OK:
            raise ThunderServeError(f"HTTP {response.status}: {_message(body)}")
        answer: dict[str, Any] = json.loads(body)
    except OSError as error:
        raise UnreachableError(f"cannot reach http://{address}: {error}") from error
    finally:
        connection.close()
    return answer


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")[:200]
