"""Certificates: what is issued is who it says, and nothing else is taken."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from identities import issue

from thunderserve.core.errors import (
    ConfigError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
)
from thunderserve.core.identity import Identity, Role
from thunderserve.runtime.identity import Credentials, IdentityFiles, require_role
from thunderserve.runtime.identity.pki import Authority, Validity, issue_local

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def test_identity_reads_back_from_its_uri() -> None:
    """What a certificate says is what was issued."""
    identity = Identity("lab", Role.KVLINK, "g1")

    assert Identity.from_uri(identity.uri) == identity
    assert identity.uri == "spiffe://lab/kvlink/g1"
    assert identity.server_names == ("kvlink.lab", "g1.kvlink.lab")


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://",
        "spiffe://lab",
        "spiffe://lab/kvlink",
        "spiffe://lab/kvlink/",
        "spiffe://lab/root/g1",
        "spiffe://lab/kvlink/g1/x",
        "spiffe://LAB/kvlink/g1",
        "https://lab/kvlink/g1",
        "lab/kvlink/g1",
        "spiffe://lab/kvlink/g1\n",
    ],
)
def test_identity_is_refused_when_its_uri_is_another(uri: str) -> None:
    """Names are whole or nothing."""
    with pytest.raises(InvalidArgumentError):
        Identity.from_uri(uri)


def test_key_is_for_its_owner_alone_when_issued(tmp_path: Path) -> None:
    """And so is the authority's."""
    validity = Validity.of_days(1, NOW)
    authority = Authority.create("lab", validity)
    files = authority.issue(Identity("lab", Role.KVLINK, "g1"), validity, tmp_path / "g1")

    for key in (authority.save(tmp_path / "ca").key, files.key):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_certificate_says_who_and_until_when(tmp_path: Path) -> None:
    """The URI and both server names, from a little before now."""
    validity = Validity.of_days(30, NOW)
    authority = Authority.create("lab", validity)
    files = authority.issue(Identity("lab", Role.WORKER, "g1"), validity, tmp_path)

    found = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://lab/worker/g1"]
    assert names.get_values_for_type(x509.DNSName) == ["worker.lab", "g1.worker.lab"]
    assert found.not_valid_before_utc < NOW < found.not_valid_after_utc == NOW + timedelta(days=30)


def test_authority_issues_after_it_was_saved(tmp_path: Path) -> None:
    """`init` and `issue` are two commands."""
    validity = Validity.of_days(1, datetime.now(UTC))
    Authority.create("lab", validity).save(tmp_path / "ca")
    identity = Identity("lab", Role.KVLINK, "g1")

    Authority.load(tmp_path / "ca").issue(identity, validity, tmp_path / "g1")

    assert Credentials(tmp_path / "g1").identity == identity


def test_authority_overwrites_nothing(tmp_path: Path) -> None:
    """A second one would cut off all that the first has issued."""
    validity = Validity.of_days(1, NOW)
    authority = Authority.create("lab", validity)
    authority.save(tmp_path)
    before = (tmp_path / "ca.key").read_bytes()

    with pytest.raises(ConflictError, match="not overwritten"):
        authority.save(tmp_path)

    assert (tmp_path / "ca.key").read_bytes() == before


def test_authority_issues_for_its_own_fleet_alone(tmp_path: Path) -> None:
    """A name of another fleet would be believed by nobody."""
    validity = Validity.of_days(1, NOW)

    with pytest.raises(InvalidArgumentError, match="fleet lab"):
        Authority.create("lab", validity).issue(
            Identity("home", Role.KVLINK, "g1"), validity, tmp_path
        )


def test_authority_is_not_found_where_there_is_none(tmp_path: Path) -> None:
    """The way out is named."""
    with pytest.raises(NotFoundError, match="pki init"):
        Authority.load(tmp_path)


def test_authority_is_refused_when_its_files_are_damaged(tmp_path: Path) -> None:
    """What is wrong is said in one line, and nothing of the key."""
    Authority.create("lab", Validity.of_days(1, NOW)).save(tmp_path)
    (tmp_path / "ca.key").write_text("-----BEGIN PRIVATE KEY-----\nsecret\n")

    with pytest.raises(InvalidArgumentError, match="no usable authority") as refusal:
        Authority.load(tmp_path)

    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("days", [0, -1, float("nan"), float("inf"), 1e9])
def test_validity_is_refused_when_it_is_no_time(days: float) -> None:
    """Nothing is valid for ever."""
    with pytest.raises(InvalidArgumentError, match="days is"):
        Validity.of_days(days, NOW)


@pytest.mark.parametrize("name", ["ca.crt", "tls.crt", "tls.key"])
def test_credentials_are_refused_when_a_file_is_missing(tmp_path: Path, name: str) -> None:
    """One line that names the folder and the way out."""
    folder = issue(tmp_path / "g0")
    (folder / name).unlink()

    with pytest.raises(ConfigError, match=r"g0 is of no use: .*pki issue"):
        Credentials(folder)


def test_credentials_are_refused_when_key_and_certificate_do_not_match(tmp_path: Path) -> None:
    """A mixed-up copy is noticed at the start, not at the first peer."""
    folder, other = issue(tmp_path / "g0"), issue(tmp_path / "g1")
    (folder / "tls.key").write_bytes((other / "tls.key").read_bytes())

    with pytest.raises(ConfigError, match="of no use"):
        Credentials(folder)


def test_credentials_change_when_their_files_are_replaced(tmp_path: Path) -> None:
    """The next connection has the new ones."""
    credentials = Credentials(issue(tmp_path / "now"))
    before = credentials.server_context()
    assert credentials.server_context() is before

    _replace(tmp_path / "now", issue(tmp_path / "next", name="g7"))

    assert credentials.server_context() is not before
    assert (credentials.identity.name, credentials.version) == ("g7", 1)


def test_credentials_stay_when_new_files_are_of_no_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A copy that is half done takes nobody off the network; the log says so once."""
    credentials = Credentials(issue(tmp_path / "now"))
    before = credentials.server_context()
    (tmp_path / "now" / "tls.crt").write_text("half")

    assert credentials.server_context() is before
    assert credentials.server_context() is before
    assert caplog.text.count("not used") == 1


def test_role_is_refused_when_it_is_another_or_of_another_fleet() -> None:
    """The message says who it is and who may."""
    peer = Identity("lab", Role.WORKER, "g1")

    require_role(peer, "lab", Role.KVLINK, Role.WORKER)
    with pytest.raises(PermissionDeniedError, match="lab/worker/g1; only spiffe://lab/kvlink"):
        require_role(peer, "lab", Role.KVLINK)
    with pytest.raises(PermissionDeniedError, match="only spiffe://home/worker"):
        require_role(peer, "home", Role.WORKER)


def test_local_certificates_replace_those_of_the_last_start(tmp_path: Path) -> None:
    """Nobody who has an old one gets in, and no authority's key is left to make others."""
    folder = tmp_path / "pki"
    issue_local(folder, Role.KVLINK, ["g0", "gone"], datetime.now(UTC))
    before = IdentityFiles(folder / "g0").ca.read_bytes()

    issue_local(folder, Role.KVLINK, ["g0"], datetime.now(UTC))

    assert IdentityFiles(folder / "g0").ca.read_bytes() != before
    assert {path.name for path in folder.rglob("*")} == {"g0", "ca.crt", "tls.crt", "tls.key"}


def _replace(folder: Path, by: Path) -> None:
    for path in by.iterdir():
        path.replace(folder / path.name)
