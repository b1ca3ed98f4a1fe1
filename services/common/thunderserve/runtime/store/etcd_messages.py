"""etcd3's message classes and stubs on a current protobuf.

etcd3 0.12 ships code that protobuf 4 and later refuse to run ("Descriptors cannot be created
directly"). The descriptors inside that code are fine: they are read out of the installed files
without running them, and the message classes are built from them by protobuf's public factory.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool, message_factory

from thunderserve.core.errors import ConfigError

__all__ = ["EtcdMessages", "etcd_messages"]

_PACKAGE = "etcd3.etcdrpc"
_FILES = ("kv", "auth", "rpc")  # in the order of their imports


@dataclass(frozen=True, slots=True)
class EtcdMessages:
    """etcd3's own modules: `kv` and `rpc` messages, and the `stubs` of its services."""

    kv: Any
    rpc: Any
    stubs: Any


@functools.cache
def etcd_messages() -> EtcdMessages:
    """The modules, made importable under etcd3's own names; the first call does the work.

    Raises:
        ConfigError: etcd3 is not installed.
    """
    folder = _folder()
    pool = descriptor_pool.DescriptorPool()
    for name in _FILES:
        module = f"{_PACKAGE}.{name}_pb2"
        if module not in sys.modules:
            sys.modules[module] = _module(module, folder / f"{name}_pb2.py", pool)
    stubs = importlib.import_module(f"{_PACKAGE}.rpc_pb2_grpc")
    kv, rpc = (sys.modules[f"{_PACKAGE}.{name}_pb2"] for name in ("kv", "rpc"))
    return EtcdMessages(kv, rpc, stubs)


def _folder() -> Path:
    spec = importlib.util.find_spec("etcd3")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("store 'etcd' needs the package etcd3: pip install thunderserve[control]")
    return Path(spec.submodule_search_locations[0]) / "etcdrpc"


def _module(name: str, path: Path, pool: descriptor_pool.DescriptorPool) -> types.ModuleType:
    pool.AddSerializedFile(_serialized_descriptor(path))
    descriptor = pool.FindFileByName(path.name.replace("_pb2.py", ".proto"))
    module = types.ModuleType(name)
    module.DESCRIPTOR = descriptor  # type: ignore[attr-defined]  # as generated modules have it
    for message, kind in descriptor.message_types_by_name.items():
        setattr(module, message, message_factory.GetMessageClass(kind))
    for enum in descriptor.enum_types_by_name.values():
        for value in enum.values:
            setattr(module, value.name, value.number)
    return module


def _serialized_descriptor(path: Path) -> bytes:
    """The argument of `serialized_pb=_b('...')`, from the first such call in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "serialized_pb":
            literal = node.value.args[0] if isinstance(node.value, ast.Call) else node.value
            text = ast.literal_eval(literal)
            return text.encode("latin1") if isinstance(text, str) else bytes(text)
    raise ConfigError(f"{path} holds no descriptor; is this etcd3 0.12?")
