"""A reader names the place of what is wrong."""

from typing import Any

import pytest

from thunderserve.core.errors import InvalidArgumentError
from thunderserve.core.hardware import Link
from thunderserve.core.mapping import Reader


def test_items_know_where_they_are() -> None:
    nested = Reader({"a": [{"b": [{}, {"c": "text"}]}]})
    inner = list(next(nested.items("a")).items("b"))[1]
    assert inner.at == "a[0].b[1]"
    assert inner.text("c") == "text"
    with pytest.raises(InvalidArgumentError, match=r"a\[0\]\.b\[1\]\.d: is missing") as refused:
        inner.integer("d")
    assert refused.value.param == "a[0].b[1].d"


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        ("text", 1, "text"),
        ("integer", 1.5, "whole number"),
        ("integer", True, "whole number"),
        ("number", "1", "number"),
        ("number", False, "number"),
    ],
)
def test_values_are_refused_when_of_another_type(read: str, value: Any, expected: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"k: expected .*{expected}"):
        getattr(Reader({"k": value}), read)("k")


def test_defaults_stand_in_for_what_is_missing_or_null() -> None:
    reader = Reader({"null": None})
    assert reader.integer("null", 3) == 3
    assert reader.number("missing", 1.5) == 1.5
    assert reader.inner("null") is None
    assert list(reader.items("missing")) == []


def test_only_names_the_nearest_key_when_one_is_unknown() -> None:
    with pytest.raises(InvalidArgumentError, match="weigth: unknown key; did you mean 'weight'"):
        Reader({"weigth": 1}).only("prefill", "weight")


@pytest.mark.parametrize("value", ["text", {"a": 1}, 3])
def test_items_are_refused_when_they_are_no_list(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="nodes: expected a list"):
        list(Reader({"nodes": value}).items("nodes"))


def test_a_mapping_is_expected() -> None:
    with pytest.raises(InvalidArgumentError, match=r"nodes\[0\]: expected a mapping, found 3"):
        list(Reader({"nodes": [3]}).items("nodes"))


def test_build_says_where_a_value_was_refused() -> None:
    assert Reader({}, "net").build(Link, 1.0, latency_s=2.0) == Link(1.0, 2.0)
    with pytest.raises(InvalidArgumentError, match="net: link: bytes_per_s is 0"):
        Reader({}, "net").build(Link, 0.0)
