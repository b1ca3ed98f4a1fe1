"""Where certificates and keys lie."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from thunderserve.core.errors import ConflictError, ThunderServeError

__all__ = ["AuthorityFiles", "IdentityFiles", "write_new"]


@dataclass(frozen=True, slots=True)
class IdentityFiles:
    """One process's folder, which `thunderctl pki issue` makes; the names are Kubernetes' own."""

    folder: Path

    @property
    def ca(self) -> Path:
        """Certificates of the authorities whose word counts; several while one is replaced."""
        return self.folder / "ca.crt"

    @property
    def certificate(self) -> Path:
        """The process's certificate."""
        return self.folder / "tls.crt"

    @property
    def key(self) -> Path:
        """Its private key; readable by its owner alone."""
        return self.folder / "tls.key"


@dataclass(frozen=True, slots=True)
class AuthorityFiles:
    """The authority's folder, which `thunderctl pki init` makes; it belongs on no serving host."""

    folder: Path

    @property
    def certificate(self) -> Path:
        """The authority's certificate."""
        return self.folder / "ca.crt"

    @property
    def key(self) -> Path:
        """Its private key; whoever has it can be anybody."""
        return self.folder / "ca.key"


def write_new(path: Path, data: bytes, *, secret: bool = False) -> None:
    """Write a file that is not there yet, in a folder that may have to be made.

    Args:
        path: Where.
        data: What.
        secret: Nobody but its owner may read it.

    Raises:
        ConflictError: It is there.
        ThunderServeError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(path, flags, 0o600 if secret else 0o644), "wb") as file:
            file.write(data)
    except FileExistsError as error:
        raise ConflictError(
            f"{path} exists and is not overwritten; choose another place"
        ) from error
    except OSError as error:
        raise ThunderServeError(f"cannot write {path}: {error.strerror}") from error
