"""Certificates: made by an operator (`pki`), used by processes (`credentials`)."""

from __future__ import annotations

from thunderserve.runtime.identity.credentials import (
    Credentials,
    identity_of_peer,
    refusal_reason,
    require_role,
)
from thunderserve.runtime.identity.files import IdentityFiles

__all__ = [
    "Credentials",
    "IdentityFiles",
    "identity_of_peer",
    "refusal_reason",
    "require_role",
]
