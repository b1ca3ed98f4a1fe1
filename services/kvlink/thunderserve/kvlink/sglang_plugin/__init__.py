"""SGLang's side of kvlink: a transfer backend, found by SGLang through an entry point.

SGLang calls `register` in each of its processes. The scheduler then talks to its own sidecar
alone, over the Unix socket that `THUNDERSERVE_KVLINK_ENGINE_SOCKET` names; a request's
`bootstrap_host:bootstrap_port` is the prefill group's sidecar. SGLang's own rendezvous between
engines (HTTP, and pickle over ZMQ) is not used at all.
"""

from __future__ import annotations

__all__ = ["BACKEND_NAME", "SOCKET_VARIABLE", "register"]

BACKEND_NAME = "kvlink"
SOCKET_VARIABLE = "THUNDERSERVE_KVLINK_ENGINE_SOCKET"


def register() -> None:
    """Add the backend to SGLang in this process."""
    # Not above: this module is found by entry point, also where SGLang is absent.
    from thunderserve.kvlink.sglang_plugin.backend import add_backend  # noqa: PLC0415

    add_backend()
