"""Pipeline stages end a transfer alike, whatever each of them saw first."""

from __future__ import annotations

from functools import reduce

from hypothesis import given, settings
from hypothesis import strategies as st

from thunderserve.kvlink.sglang_plugin.consensus import RequestIds, agreed

WELL, BADLY, GOING_ON = "well", "badly", "going on"
SEEN = st.dictionaries(st.sampled_from("abcde"), st.sampled_from([WELL, BADLY, GOING_ON]))


@settings(deadline=None, derandomize=True)
@given(st.lists(SEEN, min_size=1, max_size=4))
def test_stages_agree_when_each_saw_something_else(stages: list[dict[str, str]]) -> None:
    """Ended on all; failed where any saw a failure; the stages' order does not matter."""

    def consensus(seen: list[dict[str, str]]) -> RequestIds:
        ids = [
            ([r for r in one if one[r] == WELL], [r for r in one if one[r] == BADLY])
            for one in seen
        ]
        first = agreed(*ids[0], None)
        return reduce(lambda before, own: agreed(*own, before), ids[1:], first)

    ended, failed = consensus(stages)

    assert ended == [r for r in "abcde" if all(s.get(r) in {WELL, BADLY} for s in stages)]
    assert failed == [r for r in ended if any(s[r] == BADLY for s in stages)]
    assert consensus(stages[::-1]) == [ended, failed]
