"""What a process proves itself with, and how it checks its peers: TLS 1.3, both ends known.

Rented hosts change their addresses and sit behind NAT, so no host's name is checked. Whoever dials
asks for a role's server name; whoever is dialled reads the role out of the certificate.
"""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING, Any

import grpc
from cryptography import x509

from thunderserve.core.errors import (
    ConfigError,
    InvalidArgumentError,
    PermissionDeniedError,
    ThunderServeError,
    UnauthenticatedError,
)
from thunderserve.core.identity import Identity, Role, server_name
from thunderserve.runtime.identity.files import IdentityFiles

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Credentials", "identity_of_peer", "refusal_reason", "require_role"]

_log = logging.getLogger(__name__)
_Stamp = tuple[tuple[int, int], ...]


class Credentials:
    """A process's certificate, key and authority.

    Files that are replaced while the process runs are used from the next connection on; what cannot
    be read is logged once and changes nothing.

    Args:
        folder: As `thunderctl pki issue` made it.

    Raises:
        ConfigError: A file is missing or not ours, or key and certificate do not match.
    """

    def __init__(self, folder: Path) -> None:
        self._files = IdentityFiles(folder)
        self._stamp = self._stamp_now()
        self._contexts: dict[tuple[int, tuple[str, ...]], ssl.SSLContext] = {}
        self.identity = self._read()
        self.version = 0

    def refresh(self) -> None:
        """Look whether the files have been replaced; `version` grows when they have."""
        if (stamp := self._stamp_now()) == self._stamp:
            return
        self._stamp = stamp
        try:
            self.identity = self._read()
        except ThunderServeError as error:
            _log.warning("the certificate on disk is not used: %s", error)
            return
        self._contexts.clear()
        self.version += 1
        _log.info("using the new certificate of %s", self.identity)

    def server_context(self, *protocols: str) -> ssl.SSLContext:
        """Of who is dialled: asks for a certificate; `protocols` are ALPN's, best first."""
        return self._context(ssl.PROTOCOL_TLS_SERVER, protocols)

    def client_context(self, *protocols: str) -> ssl.SSLContext:
        """Of who dials; give it `server_name` to check the peer's role."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT, protocols)

    def server_name(self, role: Role) -> str:
        """What a peer of that role in this fleet is called."""
        return server_name(self.identity.fleet, role)

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """The same for gRPC."""
        return grpc.ssl_channel_credentials(*self._pem)

    def _context(self, kind: int, protocols: tuple[str, ...]) -> ssl.SSLContext:
        self.refresh()
        if (kind, protocols) not in self._contexts:
            self._contexts[kind, protocols] = self._new_context(kind, protocols)
        return self._contexts[kind, protocols]

    def _new_context(self, kind: int, protocols: tuple[str, ...]) -> ssl.SSLContext:
        context = ssl.SSLContext(kind)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(self._files.ca)
        context.load_cert_chain(self._files.certificate, self._files.key, password=_no_password)
        if kind == ssl.PROTOCOL_TLS_SERVER:
            context.num_tickets = 0  # connections are kept, not resumed
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context

    def _read(self) -> Identity:
        """Who the files say this process is; raises ConfigError when they are of no use."""
        files = self._files
        try:
            ca, key, chain = (p.read_bytes() for p in (files.ca, files.key, files.certificate))
            identity = _identity_of(x509.load_pem_x509_certificate(chain))
            self._new_context(ssl.PROTOCOL_TLS_SERVER, ())  # raises unless key and certificate fit
        except (OSError, ValueError, InvalidArgumentError) as error:
            detail = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"identity {files.folder} is of no use: {detail}; `thunderctl pki issue` makes one",
                param="identity",
            ) from error
        self._pem = ca, key, chain
        return identity

    def _stamp_now(self) -> _Stamp:
        """Changes whenever a file is replaced; a missing one is none."""
        stamp = []
        for path in (self._files.ca, self._files.certificate, self._files.key):
            try:
                found = path.stat()
            except OSError:
                stamp.append((0, 0))
            else:
                stamp.append((found.st_mtime_ns, found.st_ino))
        return tuple(stamp)


def identity_of_peer(connection: ssl.SSLObject | ssl.SSLSocket) -> Identity:
    """Who is at the other end, once the handshake is done.

    Raises:
        UnauthenticatedError: No certificate, or one without an identity.
    """
    certificate: dict[str, Any] = connection.getpeercert() or {}
    uris = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
    if len(uris) != 1:
        raise UnauthenticatedError("its certificate names no identity")
    try:
        return Identity.from_uri(uris[0])
    except InvalidArgumentError as error:
        raise UnauthenticatedError(f"its certificate names no identity: {error}") from error


def require_role(identity: Identity, fleet: str, *roles: Role) -> None:
    """Raises PermissionDeniedError for an identity of another fleet, or of none of the roles."""
    if identity.fleet != fleet or identity.role not in roles:
        allowed = " or ".join(f"spiffe://{fleet}/{role}/..." for role in roles)
        raise PermissionDeniedError(f"it is {identity}; only {allowed} may")


def refusal_reason(error: Exception) -> str:
    """Why a handshake failed, in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return str(error) or type(error).__name__


def _identity_of(certificate: x509.Certificate) -> Identity:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise InvalidArgumentError("its certificate names no identity") from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return Identity.from_uri(uris[0] if uris else "")


def _no_password() -> str:
    """An encrypted key must fail, not ask a terminal."""
    raise InvalidArgumentError("the key is encrypted")
