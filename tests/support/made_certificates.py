"""Certificates of a throwaway authority, made with openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Certificates:
    """PEM files: an authority, and what it signed for a server on 127.0.0.1 and for a client."""

    authority: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path


def make_certificates(folder: Path) -> Certificates:
    """A fresh authority and two certificates of it, valid for a day."""
    ca, ca_key = folder / "ca.pem", folder / "ca.key"
    _openssl("req", "-x509", *_CURVE, "-keyout", ca_key, "-out", ca, "-subj", "/CN=ca", "-days", 1)
    pairs = []
    for name in ("server", "client"):
        cert, key, request = (folder / f"{name}.{end}" for end in ("pem", "key", "csr"))
        _openssl("req", "-new", *_CURVE, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        extensions = folder / f"{name}.ext"
        extensions.write_text(
            "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n"
        )
        signed = ("-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", 1)
        _openssl("x509", "-req", "-in", request, *signed, "-out", cert, "-extfile", extensions)
        pairs.append((cert, key))
    return Certificates(ca, *pairs[0], *pairs[1])


def _openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=20)  # noqa: S607 - found on the PATH
