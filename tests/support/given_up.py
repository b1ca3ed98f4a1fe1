"""Ways to give a request up, stage by stage of its life, in two engines of a fleet."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["STAGES"]

LONG_ANSWER = 1500
Fields = dict[str, Any]
Asked = tuple[int, asyncio.Future[dict[str, Any]]]


def ask_prefill(fleet: Any, legs: Fields) -> Asked:
    asked: Asked = fleet.pair[0].engine.ask("prefill", **legs)
    return asked


def ask_decode(fleet: Any, legs: Fields) -> Asked:
    asked: Asked = fleet.pair[1].engine.ask("decode", max_tokens=LONG_ANSWER, **legs)
    return asked


async def prefill_before_bootstrap(fleet: Any, legs: Fields) -> None:
    """No decode leg has come; one that comes later hears of it."""
    number, cancelled = ask_prefill(fleet, legs)
    await fleet.pair[0].engine.do("cancel", what=number)
    assert "cancelled" in (await cancelled)["error"]

    assert "TransferError" in (await ask_decode(fleet, legs)[1])["error"]


async def decode_before_bootstrap(fleet: Any, legs: Fields) -> None:
    """No prefill leg has come; one that comes later hears of it."""
    number, cancelled = ask_decode(fleet, legs)
    await fleet.pair[1].engine.do("cancel", what=number)
    assert "cancelled" in (await cancelled)["error"]

    assert "TransferError" in (await ask_prefill(fleet, legs)[1])["error"]


async def prefill_during_transfer(fleet: Any, legs: Fields) -> None:
    """Prefill has computed everything, and no frame arrives."""
    prefill, decode = fleet.pair
    with decode.gate.closed():
        _, answer = ask_decode(fleet, legs)
        number, cancelled = ask_prefill(fleet, legs)
        await prefill.engine.first_token(number)
        await prefill.engine.do("cancel", what=number)
        assert "cancelled" in (await cancelled)["error"]
        assert "TransferError" in (await answer)["error"]


async def decode_during_transfer(fleet: Any, legs: Fields) -> None:
    """The prefill leg, which has told its token, hears of it."""
    prefill, decode = fleet.pair
    with decode.gate.closed():
        number, cancelled = ask_decode(fleet, legs)
        sending, answer = ask_prefill(fleet, legs)
        await prefill.engine.first_token(sending)
        await decode.engine.do("cancel", what=number)
        assert "cancelled" in (await cancelled)["error"]
        assert "TransferError" in (await answer)["error"]


async def prefill_after_its_end(fleet: Any, legs: Fields) -> None:
    """It has nothing left to abort: decode goes on."""
    number, answer = ask_decode(fleet, legs)
    sending, sent = ask_prefill(fleet, legs)
    assert "result" in await sent
    await fleet.pair[1].engine.first_token(number)
    await fleet.pair[0].engine.do("cancel", what=sending)
    await fleet.pair[1].engine.do("cancel", what=number)
    assert "cancelled" in (await answer)["error"]


async def decode_while_it_decodes(fleet: Any, legs: Fields) -> None:
    """The cache has arrived, and tokens come."""
    number, answer = ask_decode(fleet, legs)
    _, sent = ask_prefill(fleet, legs)
    await fleet.pair[1].engine.first_token(number)
    await fleet.pair[1].engine.do("cancel", what=number)
    assert "cancelled" in (await answer)["error"]
    assert "result" in await sent


async def the_peer_is_away(fleet: Any, legs: Fields) -> None:
    """An address where no sidecar listens is an error that names it."""
    _, answer = ask_decode(fleet, legs | {"peer": "127.0.0.1:9"})
    assert "127.0.0.1:9" in (await answer)["error"]


STAGES = (
    prefill_before_bootstrap,
    decode_before_bootstrap,
    prefill_during_transfer,
    decode_during_transfer,
    prefill_after_its_end,
    decode_while_it_decodes,
    the_peer_is_away,
)
