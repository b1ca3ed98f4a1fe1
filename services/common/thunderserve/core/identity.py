"""Who a process is: what its certificate says and its peers check."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from thunderserve.core.errors import InvalidArgumentError

__all__ = ["CALLER_KEY", "Identity", "Role", "server_name"]

CALLER_KEY = "thunderserve-caller"
"""Metadata of a call: the name that its caller gives."""

# One label of a domain name, so that the identity can be one too.
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SCHEME = "spiffe://"


class Role(StrEnum):
    """What a process does, and so what it may ask of others."""

    CONTROL = "control"
    ROUTER = "router"
    WORKER = "worker"
    KVLINK = "kvlink"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Identity:
    """A process of a fleet; hosts and addresses may change, this does not.

    Attributes:
        fleet: The fleet's name; one certificate authority each.
        role: What it does.
        name: Which of those it is, for example the group's id.
    """

    fleet: str
    role: Role
    name: str

    def __post_init__(self) -> None:
        self.check_label("fleet", self.fleet)
        self.check_label("name", self.name)

    @staticmethod
    def check_label(param: str, value: str) -> None:
        """Raises InvalidArgumentError for what can be neither a fleet's name nor a process's."""
        if not _LABEL.fullmatch(value):
            raise InvalidArgumentError(
                f"{param} is {value!r}; it must be 1 to 63 lower-case letters, digits and hyphens",
                param=param,
            )

    @classmethod
    def from_uri(cls, uri: str) -> Identity:
        """Raises InvalidArgumentError for anything but `spiffe://<fleet>/<role>/<name>`."""
        fleet, _, path = uri.removeprefix(_SCHEME).partition("/")
        role, _, name = path.partition("/")
        if not uri.startswith(_SCHEME) or role not in set(Role):
            raise InvalidArgumentError(
                f"{uri!r} is not spiffe://<fleet>/<role>/<name>; roles are {', '.join(Role)}"
            )
        return cls(fleet, Role(role), name)

    @property
    def uri(self) -> str:
        """`spiffe://<fleet>/<role>/<name>`."""
        return f"{_SCHEME}{self.fleet}/{self.role}/{self.name}"

    @property
    def server_names(self) -> tuple[str, str]:
        """What whoever dials may ask for in the place of a host's name: the role, and this one."""
        by_role = server_name(self.fleet, self.role)
        return by_role, f"{self.name}.{by_role}"

    def __str__(self) -> str:
        return self.uri


def server_name(fleet: str, role: Role) -> str:
    """The domain name that every certificate of a role carries."""
    return f"{role}.{fleet}"
