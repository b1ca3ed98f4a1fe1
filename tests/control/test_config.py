"""Settings that cannot be right are refused before anything starts."""

from __future__ import annotations

import pytest

from thunderserve.control.config import ControlConfig, StoreKind
from thunderserve.core.errors import ConfigError
from thunderserve.runtime.config import build_config

NEEDED = {"address": "127.0.0.1:0", "model_name": "m"}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"store": "zookeeper"}, "choose one of memory, etcd"),
        ({"store": "etcd"}, "etcd_endpoints is empty"),
        ({"lease_ttl_s": "0.1"}, "heartbeat_interval_s"),
        ({"heartbeat_interval_s": "0"}, "heartbeat_interval_s"),
        ({"expected_workers": "0"}, "expected_workers"),
        ({"planned_rate_rps": "-1"}, "planned_rate_rps"),
        ({"fleet": "a/b"}, "fleet"),
    ],
)
def test_config_is_refused_when_a_value_cannot_work(values: dict[str, str], says: str) -> None:
    """The message names the key."""
    with pytest.raises(ConfigError, match=says):
        build_config(ControlConfig, NEEDED | values)


def test_config_reads_command_line_values_when_they_are_strings() -> None:
    """Numbers, lists and choices come as text."""
    values = NEEDED | {"store": "etcd", "etcd_endpoints": "a:1,b:2", "expected_workers": "4"}
    config = build_config(ControlConfig, values)
    assert config.store is StoreKind.ETCD
    assert config.etcd_endpoints == ("a:1", "b:2")
    assert config.expected_workers == 4
