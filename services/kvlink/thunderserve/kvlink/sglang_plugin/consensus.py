"""What the pipeline stages of a decode engine agree on."""

from __future__ import annotations

__all__ = ["RequestIds", "agreed"]

RequestIds = list[list[str]]  # those whose transfer has ended, and of these the failed ones


def agreed(well: list[str], badly: list[str], before: RequestIds | None) -> RequestIds:
    """A transfer has ended when it has on every stage; it failed when it did on any.

    Args:
        well: Requests whose transfer ended well on this stage.
        badly: Those whose transfer failed on it.
        before: What the stages before this one agree on; None on the first.
    """
    ended, failed = {*well, *badly}, set(badly)
    if before is not None:
        ended &= set(before[0])
        failed |= set(before[1])
    return [sorted(ended), sorted(failed & ended)]
