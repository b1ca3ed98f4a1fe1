"""Certificates for processes under test; all are of one fleet unless a test asks for another."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from thunderserve.core.identity import Identity, Role, server_name
from thunderserve.kvlink.links import BULK_PROTOCOL
from thunderserve.runtime.identity import Credentials
from thunderserve.runtime.identity.pki import Authority, Validity

if TYPE_CHECKING:
    import ssl

__all__ = ["FLEET", "SERVER_NAME", "authority", "bulk_context", "issue"]

FLEET = "test"
SERVER_NAME = server_name(FLEET, Role.KVLINK)


@functools.cache
def authority(fleet: str = FLEET) -> Authority:
    """The fleet's."""
    return Authority.create(fleet, Validity.of_days(1, datetime.now(UTC)))


def issue(
    folder: Path, role: Role = Role.KVLINK, name: str = "g0", validity: Validity | None = None
) -> Path:
    """A new certificate in `folder`, for today unless it says otherwise; returns the folder."""
    valid = validity or Validity.of_days(1, datetime.now(UTC))
    authority().issue(Identity(FLEET, role, name), valid, folder)
    return folder


@functools.cache
def bulk_context() -> ssl.SSLContext:
    """What a sidecar would dial others' bulk with; ask for `SERVER_NAME`."""
    folder = issue(Path(mkdtemp(prefix="thunderserve-test-")) / "peer")
    return Credentials(folder).client_context(BULK_PROTOCOL)
