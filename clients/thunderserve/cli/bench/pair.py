"""Two real sidecars at the ends of a link, with a prefill engine and decode engines."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from thunderserve.cli.bench.decode import Delivery, Job
from thunderserve.cli.bench.namespaces import (
    DECODE_HOST,
    PREFILL_HOST,
    Namespace,
    Workshop,
    wait_until,
)
from thunderserve.cli.supervisor import last_lines
from thunderserve.core.errors import TransferError
from thunderserve.core.identity import Role
from thunderserve.core.kv import KvLayout
from thunderserve.runtime.identity.pki import issue_local

if TYPE_CHECKING:
    from thunderserve.core.request import WireMode

__all__ = ["Pair", "Sending", "start_pair"]

_PORT = 7400
_PKI_FOLDER = "pki"
_SENDERS = 4
_JOB_ROOMS = 100_000


@dataclass(frozen=True, slots=True)
class Sending:
    """What the prefill engine saw of a room.

    Attributes:
        sending_s: From the first layer handed over to the word that all have arrived.
        exposed_s: The part of it after the last layer was computed.
    """

    room: int
    sending_s: float
    exposed_s: float


@dataclass(slots=True)
class Pair:
    """Both sides, ready."""

    workshop: Workshop
    layout: KvLayout
    folders: tuple[Path, Path]
    prefill_log: Path
    jobs: int = 0

    async def fetch(
        self,
        mode: WireMode,
        tokens: int,
        *,
        seconds: float = 0.0,
        least_rooms: int = 1,
        in_flight: int = 1,
    ) -> Delivery:
        """Rooms of `tokens` tokens for `seconds`, by a decode engine that is made for it.

        Raises:
            TransferError: One did not arrive.
        """
        self.jobs += 1
        job = Job(
            socket=str(self.folders[1] / "engine"),
            sidecars=tuple(f"unix:{folder}/local" for folder in self.folders),
            peer=f"{PREFILL_HOST}:{_PORT}",
            layout=asdict(self.layout),
            mode=mode,
            seconds=seconds,
            least_rooms=least_rooms,
            in_flight=in_flight,
            page_count=tokens // self.layout.page_size_tokens,
            first_room=self.jobs * _JOB_ROOMS,
        )
        output = await self.workshop.run("decode", *_python("decode", json.dumps(asdict(job))))
        return Delivery(**json.loads(output.splitlines()[-1]))

    def sendings(self) -> list[Sending]:
        """What the prefill engine has written of its rooms."""
        found = []
        for line in last_lines(self.prefill_log, _JOB_ROOMS):
            if line.startswith("{"):
                fields = json.loads(line)
                if failure := fields.pop("failure"):
                    raise TransferError(failure)
                found.append(Sending(**fields))
        return found


async def start_pair(
    workshop: Workshop,
    ends: tuple[Namespace, Namespace],
    folder: Path,
    layout: KvLayout,
    *,
    model: bool = False,
) -> Pair:
    """Start both sidecars and the prefill engine, and wait until they are ready.

    Args:
        workshop: Ends them.
        ends: The prefill and the decode side's namespace.
        folder: For sockets.
        layout: Of the cache.
        model: The demo model computes it; it is random otherwise.
    """
    folders = (folder / "prefill", folder / "decode")
    issue_local(folder / _PKI_FOLDER, Role.KVLINK, (p.name for p in folders), datetime.now(UTC))
    for side, host, place in zip(ends, (PREFILL_HOST, DECODE_HOST), folders, strict=True):
        place.mkdir()
        await workshop.start("kvlink", *side.command(*_sidecar(host, place)))
    for place in folders:
        await wait_until((place / "local").exists, f"the {place.name} side's sidecar")
    given = {
        "socket": str(folders[0] / "engine"),
        "layout": asdict(layout),
        "model": model,
        "threads": 1 if model else _SENDERS,
    }
    log = await workshop.start("prefill", *_python("prefill", json.dumps(given)))
    await wait_until(lambda: "ready" in last_lines(log), "the prefill engine", log)
    return Pair(workshop, layout, folders, log)


def _sidecar(host: str, folder: Path) -> tuple[str, ...]:
    settings = (
        f"address={host}:{_PORT}",
        f"identity={folder.parent / _PKI_FOLDER / folder.name}",
        f"local_address=unix:{folder}/local",
        f"engine_socket={folder}/engine",
    )
    words = (word for setting in settings for word in ("--set", setting))
    return (sys.executable, "-m", "thunderserve.kvlink", "--log-level", "warning", *words)


def _python(module: str, argument: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"thunderserve.cli.bench.{module}", argument)
