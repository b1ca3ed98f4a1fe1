"""What the store holds of a fleet, taken out whole and put back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from thunderserve.control.records import (
    Keys,
    flip_from_value,
    flip_to_value,
    plan_from_value,
    standing_from_value,
)
from thunderserve.core.errors import ConflictError, InvalidArgumentError, PreconditionError
from thunderserve.core.events import Event, EventKind
from thunderserve.core.fleet import FlipStep
from thunderserve.runtime.store.base import Put

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from thunderserve.control.flips import Flips
    from thunderserve.control.journal import Journal
    from thunderserve.control.leadership import Leadership
    from thunderserve.control.observer import Observer
    from thunderserve.control.standing import Standing
    from thunderserve.control.steward import Steward
    from thunderserve.runtime.store.base import Store

__all__ = ["Dumps", "Restored"]

CURRENT, PLANS, FLIPS = "plan/current", "plan/history/", "flips/"
WRITES_AT_ONCE = 100  # etcd takes 128 in a transaction


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did, or would do; `epoch` is 0 when it was only checked."""

    epoch: int
    records: int


class Dumps:
    """Dumps and restores; leases (members, the leader) and events are in no dump.

    A restore writes the dump's old plans and flips where the store has none of that name, and then
    publishes what the dump's plan comes to with the workers that are alive, under a new epoch.
    """

    def __init__(
        self,
        model: str,
        store: Store,
        keys: Keys,
        *,
        observer: Observer,
        steward: Steward,
        flips: Flips,
        leadership: Leadership,
        journal: Journal,
    ) -> None:
        self._model = model
        self._store = store
        self._keys = keys
        self._observer = observer
        self._steward = steward
        self._flips = flips
        self._leadership = leadership
        self._journal = journal

    @property
    def fleet(self) -> str:
        """The fleet's name."""
        return self._keys.fleet

    async def dump(self) -> dict[str, bytes]:
        """Every lasting record but events by its key under the fleet's prefix."""
        root, events = self._keys.root, self._keys.events
        listing = await self._store.list(root)
        return {
            entry.key.removeprefix(root): entry.value
            for entry in listing.entries
            if not (entry.lease_id or entry.key.startswith(events))
        }

    async def restore(
        self, records: Mapping[str, bytes], *, allow_older: bool, validate_only: bool
    ) -> Restored:
        """Put a dump's records back.

        Args:
            records: As `dump` gave them.
            allow_older: Restore also where the standing plan is newer than the dump's.
            validate_only: Check everything and write nothing.

        Raises:
            InvalidArgumentError: These are not a dump's records, or another model's.
            ConflictError: The standing plan is newer.
            PreconditionError: A flip is under way, or the records are of a newer format.
            UnavailableError: This replica does not lead, or the store does not answer.
        """
        self._leadership.fence()
        self._flips.check_idle()
        dumped = _checked(records, self._model)
        now = self._observer.standing.plan.epoch if self._observer.standing else 0
        if now > dumped.plan.epoch and not allow_older:
            raise ConflictError(
                f"epoch {now} is published, and the dump's plan is of epoch {dumped.plan.epoch}; "
                "allow an older one (--allow-older) to restore it all the same"
            )
        missing = await self._missing(records)
        if validate_only:
            return Restored(0, len(missing) + 1)
        for start in range(0, len(missing), WRITES_AT_ONCE):
            some = missing[start : start + WRITES_AT_ONCE]
            await self._journal.commit(
                [],
                some,
                Event(EventKind.RESTORE, str(dumped.plan.epoch), f"{len(some)} records of a dump"),
            )
        standing = await self._steward.advance(
            lambda intent: replace(intent, flipping=""),
            reason=f"restored from a dump of epoch {dumped.plan.epoch}",
            restored=dumped,
        )
        return Restored(standing.plan.epoch, len(missing) + 1)

    async def _missing(self, records: Mapping[str, bytes]) -> Sequence[Put]:
        """What the store lacks; a plan that was published under an epoch stays what it is."""
        present = await self.dump()
        return [
            Put(self._keys.root + key, _settled(key, value))
            for key, value in records.items()
            if key not in present and key != CURRENT
        ]


def _checked(records: Mapping[str, bytes], model: str) -> Standing:
    """The dump's standing plan; raises where a record is none of ours."""
    if CURRENT not in records:
        raise InvalidArgumentError(f"the dump has no {CURRENT}", param="records")
    for key, value in records.items():
        try:
            _read(key, value)
        except PreconditionError:
            raise
        except (InvalidArgumentError, ValueError, KeyError, TypeError) as error:
            message = f"{key!r} is not a record of a dump: {error}"
            raise InvalidArgumentError(message, param="records") from error
    standing = standing_from_value(records[CURRENT])
    if standing.plan.model != model:
        raise InvalidArgumentError(
            f"the dump's fleet serves {standing.plan.model!r}, and this one {model!r}",
            param="records",
        )
    return standing


def _read(key: str, value: bytes) -> object:
    if key == CURRENT:
        return standing_from_value(value)
    if key.startswith(PLANS):
        return plan_from_value(value)
    if key.startswith(FLIPS):
        return flip_from_value(value)
    raise InvalidArgumentError(f"only {CURRENT}, {PLANS}* and {FLIPS}* are")


def _settled(key: str, value: bytes) -> bytes:
    """The record as it is restored: nobody goes on with a flip from a dump."""
    if not key.startswith(FLIPS):
        return value
    flip = flip_from_value(value)
    if flip.ended:
        return value
    failure = f"restored from a dump at step {flip.step}"
    return flip_to_value(replace(flip, step=FlipStep.ROLLED_BACK, failure=failure))
