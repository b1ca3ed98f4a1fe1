"""What is wrong with a request is said by name, with the right status."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import openai
import pytest
from openai_calls import CHAT, COMPLETION

if TYPE_CHECKING:
    import httpx
    from conftest import RouterUnderTest


BAD_CHATS = [
    ({"model": "gpt-9"}, 404, "model", "'gpt-9' is not served here; this router serves 'demo'"),
    ({"model": None}, 400, "model", "model is missing"),
    ({"max_tokens": -1}, 400, "max_tokens", "max_tokens is -1; it must be at least 1"),
    ({"max_tokens": 0}, 400, "max_tokens", "max_tokens is 0"),
    ({"max_tokens": 10**30}, 400, "max_tokens", "max_tokens is 1000"),
    ({"max_tokens": "8"}, 400, "max_tokens", 'max_tokens is "8"; it must be a whole number'),
    ({"max_tokens": True}, 400, "max_tokens", "max_tokens is true"),
    ({"max_tokens": 5000}, 400, "max_tokens", "max_tokens is 5000"),
    ({"max_completion_tokens": 9}, 400, "max_completion_tokens", "max_completion_tokens is 9"),
    ({"messages": []}, 400, "messages", "messages is []"),
    ({"messages": None}, 400, "messages", "messages is null"),
    ({"messages": ["hi"]}, 400, "messages[0]", 'messages[0] is "hi"'),
    ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0].role", '"tool"'),
    ({"messages": [{"role": "user"}]}, 400, "messages[0].content", "null"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        400,
        "messages[0].content[0].type",
        "image_url",
    ),
    (
        {"messages": [{"role": "user", "content": "\ud800"}]},
        400,
        "messages[0].content",
        "surrogate",
    ),
    ({"messages": [{"role": "user", "content": "x " * 5000}]}, 400, "prompt", "context is 2048"),
    ({"temperature": 3}, 400, "temperature", "temperature is 3"),
    ({"temperature": "hot"}, 400, "temperature", '"hot"'),
    ({"top_p": 0}, 400, "top_p", "top_p is 0"),
    ({"n": 2}, 400, "n", "n is 2"),
    ({"n": True}, 400, "n", "n is true"),
    ({"logprobs": True}, 400, "logprobs", "logprobs is true"),
    ({"tools": [{"type": "function"}]}, 400, "tools", "does not support it"),
    ({"response_format": {"type": "json_object"}}, 400, "response_format", "json_object"),
    ({"frequency_penalty": 0.5}, 400, "frequency_penalty", "0.5"),
    ({"presence_penalty": 1}, 400, "presence_penalty", "is 1"),
    ({"logit_bias": {"1": 2}}, 400, "logit_bias", "does not support it"),
    ({"temprature": 1}, 400, "temprature", "did you mean 'temperature'?"),
    ({"stop": [""]}, 400, "stop", "non-empty"),
    ({"stop": ["x"] * 10_000}, 400, "stop", "10000 strings"),
    ({"stop": 7}, 400, "stop", "stop is 7"),
    ({"stream": "yes"}, 400, "stream", "true or false"),
    ({"stream_options": {"include_usage": True}}, 400, "stream_options", "stream=true"),
    ({"seed": 2**64}, 400, "seed", "in ["),
    ({"top_k": -2}, 400, "top_k", "top_k is -2"),
    ({"kv_wire_mode": "zip"}, 400, "kv_wire_mode", '"zip"; it must be "raw16", "int4" or "auto"'),
]


@pytest.mark.parametrize("case", BAD_CHATS, ids=lambda case: str(case[0])[:40])
async def test_chat_is_refused_when_a_field_is_wrong(
    router: RouterUnderTest, asgi: httpx.AsyncClient, case: tuple[dict, int, str, str]
) -> None:
    """With the status, the parameter, the value and the way out; nothing reaches a worker."""
    change, status, param, words = case

    response = await asgi.post(
        "/v1/chat/completions",
        content=json.dumps(CHAT | change),
        headers={"content-type": "application/json"},
    )

    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param), error
    assert words in error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["code"]
    assert not router.fleet.workers["p0"].prefill_legs
    assert router.admission.in_flight == 0


BAD_COMPLETIONS = [
    ({"prompt": ""}, "prompt", "non-empty"),
    ({"prompt": None}, "prompt", "null"),
    ({"prompt": []}, "prompt", "[]"),
    ({"prompt": ["a", "b"]}, "prompt", "2 prompts"),
    ({"prompt": [1, -1]}, "prompt", "-1"),
    ({"prompt": [1, 5000]}, "prompt", "5000 is not in [0, 4096)"),
    ({"prompt": [1, True]}, "prompt", "true"),
    ({"prompt": [5] * 2048}, "prompt", "2048"),
    ({"prompt": [5] * 2000, "max_tokens": 49}, "max_tokens", "together 2049"),
    ({"best_of": 2}, "best_of", "best_of is 2"),
    ({"echo": True}, "echo", "echo is true"),
    ({"suffix": "x"}, "suffix", '"x"'),
    ({"logprobs": 3}, "logprobs", "logprobs is 3"),
    ({"messages": []}, "messages", "unknown parameter"),
    ({"stop_token_ids": ["a"]}, "stop_token_ids", '"a"'),
]


@pytest.mark.parametrize(("change", "param", "words"), BAD_COMPLETIONS)
async def test_completion_is_refused_when_a_field_is_wrong(
    asgi: httpx.AsyncClient, change: dict, param: str, words: str
) -> None:
    """As for chats."""
    response = await asgi.post("/v1/completions", json=COMPLETION | change)

    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param), error
    assert words in error["message"]


async def test_context_error_has_its_own_code(
    served: RouterUnderTest,  # noqa: ARG001 - the router that answers
    sdk: openai.AsyncOpenAI,
) -> None:
    """Clients look for it by its code."""
    with pytest.raises(openai.BadRequestError) as caught:
        await sdk.completions.create(model="demo", prompt=[5] * 3000)

    assert caught.value.code == "context_length_exceeded"
    assert "3000" in str(caught.value)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"[1]", "must be a JSON object"),
        (b'{"temperature": NaN}', "NaN is not a JSON number"),
        (b'{"x": "\xff"}', "not UTF-8"),
        (b"[" * 90_000, "nested too deeply"),
        (b'{"max_tokens": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)
async def test_body_is_refused_when_it_is_no_json_object(
    asgi: httpx.AsyncClient, body: bytes, words: str
) -> None:
    """Broken JSON of every kind is the client's error, said in OpenAI's way."""
    response = await asgi.post(
        "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
    )

    assert response.status_code == 400
    assert words in response.json()["error"]["message"]
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_http_errors_have_openai_bodies(
    served: RouterUnderTest,  # noqa: ARG001 - the router that answers
    http: httpx.AsyncClient,
) -> None:
    """Wrong path, method, content type and length."""
    responses = {
        404: await http.get("/v2/nothing"),
        405: await http.get("/v1/chat/completions"),
        415: await http.post(
            "/v1/completions", content="x", headers={"content-type": "text/plain"}
        ),
        413: await http.post("/v1/completions", json={"prompt": "x" * 200_000}),
    }

    for status, response in responses.items():
        assert response.status_code == status
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
        assert response.headers["x-request-id"]
    assert (await http.get("/v1/models/gpt-9")).json()["error"]["code"] == "model_not_found"
