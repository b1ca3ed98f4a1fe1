"""Bad input to a running fleet: the right status and an error that names the value."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any

import pytest

from thunderserve.client import AsyncClient, InvalidArgumentError, NotFoundError
from thunderserve.demo_model import MODEL_NAME

if TYPE_CHECKING:
    from conftest import Fleet  # type: ignore[import-not-found]  # pytest's own path

# Whichever test comes first waits for the fleet.
pytestmark = [pytest.mark.sglang, pytest.mark.etcd, pytest.mark.timeout(300)]

TOO_LONG = "word " * 4000


def _post(fleet: Fleet, body: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(fleet.http.removeprefix("http://"), timeout=30)
    try:
        headers = {"content-type": "application/json"}
        connection.request("POST", "/v1/completions", body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())["error"]
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("fields", "status", "param", "named"),
    [
        ({"model": "gpt-9"}, 404, "model", "gpt-9"),
        ({"max_tokens": -3}, 400, "max_tokens", "-3"),
        ({"prompt": TOO_LONG}, 400, "prompt", "4001 tokens"),
        ({"temperature": 9}, 400, "temperature", "9"),
    ],
)
def test_http_refuses_bad_value_and_names_it(
    fleet: Fleet, fields: dict[str, Any], status: int, param: str, named: str
) -> None:
    """OpenAI's error body, with the parameter and the value."""
    body = {"model": MODEL_NAME, "prompt": "x", "max_tokens": 4} | fields

    answered, error = _post(fleet, json.dumps(body))

    assert answered == status, error
    assert error["param"] in {param, None}
    assert named in error["message"]
    assert "Traceback" not in json.dumps(error)


def test_http_refuses_broken_json(fleet: Fleet) -> None:
    """400, not 500."""
    status, error = _post(fleet, '{"model": ')

    assert status == 400
    assert "JSON" in error["message"]


async def test_sdk_raises_for_unknown_model_and_long_prompt(fleet: Fleet) -> None:
    """The classes say whose fault it is."""
    async with AsyncClient(fleet.router) as client:
        with pytest.raises(NotFoundError, match="gpt-9"):
            await client.generate("x", model="gpt-9")
        with pytest.raises(InvalidArgumentError, match="4001 tokens"):
            await client.generate(TOO_LONG)
