"""The store that a configuration names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thunderserve.control.config import StoreKind
from thunderserve.core.errors import ConfigError
from thunderserve.runtime.store.etcd import EtcdStore
from thunderserve.runtime.store.etcd_cluster import EtcdAccess, EtcdTls
from thunderserve.runtime.store.memory import MemoryStore

if TYPE_CHECKING:
    from pathlib import Path

    from thunderserve.control.config import ControlConfig
    from thunderserve.runtime.store.base import Store

__all__ = ["open_store"]


def open_store(config: ControlConfig) -> Store:
    """The store; etcd is connected to at the first call.

    Raises:
        ConfigError: A certificate, key or password file cannot be read.
    """
    if config.store is StoreKind.MEMORY:
        return MemoryStore()
    password = _read(config.etcd_password_file) or b""
    return EtcdStore(
        EtcdAccess(
            config.etcd_endpoints,
            tls=_tls(config),
            user=config.etcd_user,
            password=password.decode().strip(),
        )
    )


def _tls(config: ControlConfig) -> EtcdTls | None:
    trusted = _read(config.etcd_ca_file)
    if trusted is None:
        return None
    return EtcdTls(trusted, _read(config.etcd_cert_file), _read(config.etcd_key_file))


def _read(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
