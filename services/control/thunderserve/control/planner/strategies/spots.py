"""Where stages of equal GPUs go."""

from __future__ import annotations

__all__ = ["Spots", "take"]

Spots = dict[tuple[str, str], int]
"""GPUs by type and node."""


def take(free: Spots, types: tuple[str, ...], tp: int, stages: tuple[int, ...]) -> Spots:
    """GPUs for so many stages of every type, on as few nodes as can be.

    Args:
        free: What may be taken.
        types: GPU types.
        tp: GPUs of a stage.
        stages: Of every type; at most what the free GPUs can be cut into.
    """
    taken: Spots = {}
    for kind, count in zip(types, stages, strict=True):
        left = count
        while left:
            room = {
                spot: gpus // tp
                for spot, gpus in free.items()
                if spot[0] == kind and gpus >= tp and spot not in taken
            }
            enough = [spot for spot, cuts in room.items() if cuts >= left]
            spot = min(enough, key=room.__getitem__) if enough else max(room, key=room.__getitem__)
            taken[spot] = min(left, room[spot]) * tp
            left -= min(left, room[spot])
    return taken
