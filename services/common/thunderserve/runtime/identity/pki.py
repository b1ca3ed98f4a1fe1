"""A small certificate authority: makes itself, and certificates for the processes of a fleet."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from thunderserve.core.errors import InvalidArgumentError, NotFoundError
from thunderserve.core.identity import Identity, Role
from thunderserve.runtime.identity.files import AuthorityFiles, IdentityFiles, write_new

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Authority", "Validity", "issue_local"]

# Clocks of rented hosts differ a little.
_BACKDATED = timedelta(minutes=5)
_URI_PREFIX = "spiffe://"
_LOCAL_FLEET, _LOCAL_DAYS = "local", 365


@dataclass(frozen=True, slots=True)
class Validity:
    """From when until when a certificate counts; both know their time zone."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if not self.start < self.end:
            raise InvalidArgumentError(f"a validity from {self.start} until {self.end} is empty")

    @classmethod
    def of_days(cls, days: float, now: datetime) -> Validity:
        """From now on; raises InvalidArgumentError unless `days` is > 0."""
        if not 0 < days <= 36_500:  # noqa: PLR2004 - a century
            raise InvalidArgumentError(
                f"days is {days:g}; it must be above 0, at most 36500", param="days"
            )
        return cls(now - _BACKDATED, now + timedelta(days=days))


class Authority:
    """Whoever holds it decides who belongs to a fleet.

    Args:
        fleet: The fleet's name.
    """

    def __init__(
        self, fleet: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
    ) -> None:
        self.fleet = fleet
        self._certificate = certificate
        self._key = key

    @property
    def uri(self) -> str:
        """What it vouches for: `spiffe://<fleet>`."""
        return f"{_URI_PREFIX}{self.fleet}"

    @classmethod
    def create(cls, fleet: str, validity: Validity) -> Authority:
        """A new one; raises InvalidArgumentError for a name that no identity could have."""
        subject = _authority_name(fleet)
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(subject, subject, key.public_key(), key.public_key(), validity)
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .add_extension(_alternative_names(f"{_URI_PREFIX}{fleet}"), critical=False)
        )
        return cls(fleet, builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def load(cls, folder: Path) -> Authority:
        """The one that `save` left in a folder.

        Raises:
            NotFoundError: There is none.
            InvalidArgumentError: What is there is none of ours.
        """
        files = AuthorityFiles(folder)
        try:
            certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
            key = serialization.load_pem_private_key(files.key.read_bytes(), None)
        except OSError as error:
            raise NotFoundError(
                f"{folder} holds no certificate authority ({error.filename}: {error.strerror}); "
                "make one with `thunderctl pki init`"
            ) from error
        except (ValueError, TypeError) as error:
            raise InvalidArgumentError(f"{folder} holds no usable authority: {error}") from error
        uri = _uri_of(certificate)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not uri.startswith(_URI_PREFIX):
            raise InvalidArgumentError(
                f"{folder} holds an authority that is none of ThunderServe's"
            )
        return cls(uri.removeprefix(_URI_PREFIX), certificate, key)

    def save(self, folder: Path) -> AuthorityFiles:
        """Write certificate and key; raises ConflictError when there are some already."""
        files = AuthorityFiles(folder)
        write_new(files.key, _key_pem(self._key), secret=True)
        write_new(files.certificate, _certificate_pem(self._certificate))
        return files

    def issue(self, identity: Identity, validity: Validity, folder: Path) -> IdentityFiles:
        """Make a key and a certificate for a process, in a folder of their own.

        Raises:
            InvalidArgumentError: The identity is of another fleet.
            ConflictError: The folder holds one already.
        """
        if identity.fleet != self.fleet:
            raise InvalidArgumentError(f"this authority is of fleet {self.fleet}, not {identity}")
        key = ec.generate_private_key(ec.SECP256R1())
        signed = self._sign(identity, validity, key.public_key())
        files = IdentityFiles(folder)
        write_new(files.key, _key_pem(key), secret=True)
        write_new(files.certificate, _certificate_pem(signed))
        write_new(files.ca, _certificate_pem(self._certificate))
        return files

    def _sign(
        self, identity: Identity, validity: Validity, public: ec.EllipticCurvePublicKey
    ) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity.name)])
        issuer, own = self._certificate.subject, self._key.public_key()
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = _builder(subject, issuer, public, own, validity)
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(_alternative_names(identity.uri, *identity.server_names), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256())


def issue_local(folder: Path, role: Role, names: Iterable[str], now: datetime) -> None:
    """Certificates for processes that this machine starts and stops together, in `folder/<name>`.

    The authority's key is forgotten: nobody can join later, and who starts anew issues anew. What
    the folder held before is removed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    validity = Validity.of_days(_LOCAL_DAYS, now)
    authority = Authority.create(_LOCAL_FLEET, validity)
    for name in names:
        authority.issue(Identity(_LOCAL_FLEET, role, name), validity, folder / name)


def _authority_name(fleet: str) -> x509.Name:
    Identity.check_label("fleet", fleet)
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ThunderServe fleet {fleet}"[:64])])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    issuer_public: ec.EllipticCurvePublicKey,
    validity: Validity,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity.start)
        .not_valid_after(validity.end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_public), critical=False
        )
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_names(uri: str, *domains: str) -> x509.SubjectAlternativeName:
    names = [x509.DNSName(domain) for domain in domains]
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), *names])


def _uri_of(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uris[0] if len(uris) == 1 else ""


def _certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
