"""The contract keeps buf's rules that matter, and a few of ours, on what protoc compiled."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from google.protobuf.descriptor_pb2 import FieldDescriptorProto

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor_pb2 import (
        DescriptorProto,
        EnumDescriptorProto,
        FileDescriptorProto,
        MethodDescriptorProto,
    )

    Protos = list[FileDescriptorProto]

LOWER_SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
UPPER_CAMEL = re.compile(r"([A-Z][a-z0-9]*)+")
# A span of time is a Duration and a moment a Timestamp; only a statistic is a number, of seconds.
TIME_UNIT = re.compile(r".*(?<!_per)_(s|ms|us|ns|seconds?|millis|minutes?|hours?)")
SPAN = re.compile(r"(.*_)?(timeout|ttl|interval|duration|deadline|age)")
# google.protobuf.FileDescriptorProto: field numbers that make up the paths of comments.
MESSAGE, SERVICE, METHOD = 4, 6, 2


T = TypeVar("T")


class Named(NamedTuple, Generic[T]):
    """A descriptor and its full name."""

    name: str
    of: T


def test_packages_follow_folders_and_are_versioned(protos: Protos) -> None:
    """`thunderserve/api/control/v1/x.proto` declares `thunderserve.api.control.v1`."""
    for file in protos:
        assert file.package == file.name.rpartition("/")[0].replace("/", "."), file.name
        assert re.fullmatch(r"thunderserve\.api\.[a-z]+\.v\d+", file.package), file.name
        assert file.syntax == "proto3", file.name


def test_enums_open_with_unspecified_and_prefix_their_values(protos: Protos) -> None:
    """Value 0 says that nothing was said; values are unique in their C++ scope."""
    for enum in _enums(protos):
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.of.name).upper()
        first = enum.of.value[0]
        assert (first.name, first.number) == (f"{prefix}_UNSPECIFIED", 0), enum.name
        for value in enum.of.value:
            assert value.name.startswith(f"{prefix}_"), f"{enum.name}.{value.name}"


def test_names_have_their_case(protos: Protos) -> None:
    """Fields are lower_snake_case; messages, enums and rpcs are UpperCamelCase."""
    fields = {name for name, _ in _fields(protos) if not _matches(LOWER_SNAKE, name)}
    kinds = [*_messages(protos), *_enums(protos), *_methods(protos)]
    assert fields == set()
    assert {kind.name for kind in kinds if not _matches(UPPER_CAMEL, kind.name)} == set()


def test_fields_have_exact_types_and_units(protos: Protos) -> None:
    """No `float`; time is never a bare integer; bytes are counted in 64 bits."""
    for name, field in _fields(protos):
        assert field.type != FieldDescriptorProto.TYPE_FLOAT, f"{name}: use double"
        if TIME_UNIT.fullmatch(field.name):
            is_seconds = field.name.endswith("_s")
            assert is_seconds, f"{name}: use Duration, Timestamp or seconds"
            assert field.type == FieldDescriptorProto.TYPE_DOUBLE, f"{name}: use double"
        if SPAN.fullmatch(field.name):
            assert field.type_name == ".google.protobuf.Duration", f"{name}: use Duration"
        if field.name.endswith("_time"):
            assert field.type_name == ".google.protobuf.Timestamp", name
        if field.name.endswith("_bytes") and field.type != FieldDescriptorProto.TYPE_BYTES:
            assert field.type == FieldDescriptorProto.TYPE_INT64, f"{name}: use int64"


def test_services_end_in_service(protos: Protos) -> None:
    """A stub's name says what it is."""
    names = [service.name for file in protos for service in file.service]
    assert names
    assert [name for name in names if not name.endswith("Service")] == []


def test_requests_are_named_after_their_rpc_and_belong_to_it_alone(protos: Protos) -> None:
    """So that each can grow by itself; an answer may be the resource that a call is about."""
    uses = Counter(method.of.input_type for method in _methods(protos))
    for method in _methods(protos):
        request, response = _last(method.of.input_type), _last(method.of.output_type)
        assert request == f"{method.of.name}Request", method.name
        assert uses[method.of.input_type] == 1, f"{request} is shared"
        if response.endswith("Response"):
            assert response == f"{method.of.name}Response", method.name


def test_responses_that_are_no_resource_belong_to_one_rpc(protos: Protos) -> None:
    """Every `XRequest` and `XResponse` in the contract is some rpc's."""
    used = {
        _last(name)
        for method in _methods(protos)
        for name in (method.of.input_type, method.of.output_type)
    }
    named = {_last(message.name) for message in _messages(protos)}
    assert {name for name in named - used if name.endswith(("Request", "Response"))} == set()


def test_services_verbs_and_nouns_are_explained(protos: Protos) -> None:
    """Each file, service and noun has a comment, and each rpc that is not a plain Get or List."""
    for file in protos:
        commented = {
            tuple(place.path)
            for place in file.source_code_info.location
            if place.leading_comments.strip() or place.leading_detached_comments
        }
        wanted = dict(_places_to_explain(file))
        assert [name for path, name in wanted.items() if path not in commented] == [], file.name


def _places_to_explain(file: FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    for index, message in enumerate(file.message_type):
        if not message.name.endswith(("Request", "Response")):
            yield (MESSAGE, index), message.name
    for index, service in enumerate(file.service):
        yield (SERVICE, index), service.name
        for position, method in enumerate(service.method):
            if not method.name.startswith(("Get", "List", "Undrain")):
                yield (SERVICE, index, METHOD, position), method.name


def _messages(protos: Protos) -> Iterator[Named[DescriptorProto]]:
    for file in protos:
        for message in file.message_type:
            yield from _with_nested(Named(f"{file.package}.{message.name}", message))


def _with_nested(message: Named[DescriptorProto]) -> Iterator[Named[DescriptorProto]]:
    yield message
    for inner in message.of.nested_type:
        if not inner.options.map_entry:
            yield from _with_nested(Named(f"{message.name}.{inner.name}", inner))


def _enums(protos: Protos) -> Iterator[Named[EnumDescriptorProto]]:
    for file in protos:
        yield from (Named(f"{file.package}.{enum.name}", enum) for enum in file.enum_type)
    for message in _messages(protos):
        yield from (Named(f"{message.name}.{enum.name}", enum) for enum in message.of.enum_type)


def _fields(protos: Protos) -> Iterator[Named[FieldDescriptorProto]]:
    for message in _messages(protos):
        yield from (Named(f"{message.name}.{field.name}", field) for field in message.of.field)


def _methods(protos: Protos) -> Iterator[Named[MethodDescriptorProto]]:
    for file in protos:
        for service in file.service:
            yield from (Named(f"{service.name}.{rpc.name}", rpc) for rpc in service.method)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _matches(pattern: re.Pattern[str], name: str) -> bool:
    return pattern.fullmatch(_last(name)) is not None
