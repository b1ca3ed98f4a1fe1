"""The OpenAI API, over real sockets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import openai
import pytest
from fake_workers import RAW_BYTES, WIRE_BYTES, answer_tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from conftest import RouterUnderTest

CHAT = {
    "model": "demo",
    "messages": [{"role": "user", "content": "Write a function."}],
    "max_tokens": 8,
    "temperature": 0,
}
PROMPT = [10, 11, 12]
COMPLETION = {"model": "demo", "prompt": PROMPT, "max_tokens": 8, "temperature": 0}


@pytest.fixture
async def served(http_router: RouterUnderTest) -> RouterUnderTest:
    await http_router.serve_pairs(prefill={"p0": None}, decode={"d0": None, "d1": None})
    return http_router


@pytest.fixture
async def http(http_router: RouterUnderTest) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=http_router.url, timeout=10) as client:
        yield client


@pytest.fixture
async def sdk(http_router: RouterUnderTest) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{http_router.url}/v1", api_key="none", max_retries=0
    ) as client:
        yield client


def events(text: str) -> list[dict]:
    """The JSON of every event; the stream must end with [DONE]."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


async def test_chat_answers_when_whole(served: RouterUnderTest, http: httpx.AsyncClient) -> None:
    """A chat completion has its text, usage, finish reason and figures."""
    response = await http.post("/v1/chat/completions", json=CHAT)

    body = response.json()
    prompt = await served.tokenizer.encode("<|user|>\nWrite a function.<|end|>\n<|assistant|>\n")
    expected = served.tokenizer.tokenizer.decode(answer_tokens(prompt, 8))
    assert response.status_code == 200
    assert body["choices"][0]["message"] == {"role": "assistant", "content": expected}
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["prompt_tokens"] == len(prompt)
    assert body["usage"]["completion_tokens"] == 8
    assert body["thunderserve"]["kv_raw_bytes"] == RAW_BYTES
    assert body["thunderserve"]["kv_wire_bytes"] == WIRE_BYTES


async def test_completion_streams_the_same_text_when_streamed(
    served: RouterUnderTest, http: httpx.AsyncClient
) -> None:
    """The pieces of a stream add up to the whole answer."""
    whole = (await http.post("/v1/completions", json=COMPLETION)).json()

    response = await http.post("/v1/completions", json=COMPLETION | {"stream": True})

    pieces = events(response.text)
    assert "".join(p["choices"][0]["text"] for p in pieces) == whole["choices"][0]["text"]
    assert pieces[-1]["choices"][0]["finish_reason"] == "length"
    assert pieces[-1]["thunderserve"]["decode_group"] in {"d0", "d1"}
    assert served.admission.in_flight == 0


async def test_openai_client_streams_a_chat(
    served: RouterUnderTest, sdk: openai.AsyncOpenAI
) -> None:
    """The official client understands every chunk, and gets the usage it asked for."""
    stream = await sdk.chat.completions.create(
        **CHAT, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]

    whole = await sdk.chat.completions.create(**CHAT)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage == whole.usage
    assert served.window.requests()[0].outcome == "finished"
