"""`thunderctl pki`: certificates without a fleet."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from thunderserve.core.identity import Identity, Role
from thunderserve.runtime.identity import Credentials

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Thunderctl  # type: ignore[import-not-found]  # pytest's own path


async def test_issued_certificate_is_of_the_fleet(thunderctl: Thunderctl, tmp_path: Path) -> None:
    """`init`, then `issue`: a folder that a sidecar can use."""
    await thunderctl("pki", "init", str(tmp_path / "pki"), "--fleet", "lab")
    status, out, err = await thunderctl(
        *("pki", "issue", str(tmp_path / "pki"), "--role", "kvlink", "--name", "g1", "-o", "json")
    )

    assert (status, err) == (0, "")
    made = json.loads(out)
    assert made["identity"] == "spiffe://lab/kvlink/g1"
    assert made["folder"] == str(tmp_path / "pki" / "kvlink" / "g1")
    credentials = Credentials(tmp_path / "pki" / "kvlink" / "g1")
    assert credentials.identity == Identity("lab", Role.KVLINK, "g1")


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (("init", "{pki}"), 4, "not overwritten"),
        (("issue", "{pki}", "--role", "kvlink", "--name", "g0"), 4, "not overwritten"),
        (("init", "{new}", "--fleet", "My Fleet"), 2, "fleet is 'My Fleet'"),
        (("init", "{new}", "--days", "0"), 2, "days is 0"),
        (("issue", "{new}", "--role", "kvlink", "--name", "g0"), 3, "pki init"),
        (("issue", "{pki}", "--role", "king", "--name", "g0"), 2, "'king'"),
        (("issue", "{pki}", "--role", "kvlink", "--name", "../g0"), 2, "name is '../g0'"),
        (("issue", "{pki}", "--role", "kvlink", "--name", "g0", "--days", "-1"), 2, "days is -1"),
        (("init", "/dev/null/x"), 1, "cannot write"),
    ],
)
async def test_pki_says_what_is_wrong_in_one_line(
    thunderctl: Thunderctl, tmp_path: Path, arguments: tuple[str, ...], status: int, word: str
) -> None:
    """Bad names, bad times, no authority; nothing is written over."""
    pki = str(tmp_path / "pki")
    await thunderctl("pki", "init", pki)
    await thunderctl("pki", "issue", pki, "--role", "kvlink", "--name", "g0")

    filled = (word.format(pki=pki, new=tmp_path / "new") for word in arguments)
    ended = await thunderctl("pki", *filled)

    assert (ended[0], ended[1]) == (status, "")
    assert word in ended[2]
    assert ended[2].count("\n") == 1
