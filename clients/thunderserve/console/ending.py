"""How a command ends: an exit status and one line, never a traceback."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Any

from thunderserve.console.output import say
from thunderserve.core.errors import ThunderServeError
from thunderserve.runtime.errors import exit_status

if TYPE_CHECKING:
    from collections.abc import Sequence

    import typer

__all__ = ["DEBUG_VARIABLE", "run_app"]

DEBUG_VARIABLE = "THUNDERSERVE_DEBUG"
INTERRUPTED = 128 + signal.SIGINT


def run_app(app: typer.Typer, name: str, argv: Sequence[str] | None = None) -> int:
    """Run a typer application and return its exit status.

    0 ok, 1 error, 2 usage, 3 not found, 4 conflict, 5 denied, 6 unavailable, 124 timeout,
    130 interrupted. A bug of ours is one line too; `THUNDERSERVE_DEBUG=1` shows where it is.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        ended = app(args=arguments, prog_name=name, standalone_mode=False)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except ThunderServeError as error:
        say(f"{name}: {error}")
        return exit_status(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader went away; point stdout elsewhere, so that its flush at exit says nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - the last line of defence of every command
        return _say_other(name, error, arguments)
    return ended if isinstance(ended, int) else 0


def _say_other(name: str, error: Any, arguments: Sequence[str]) -> int:
    """A bug of ours, or arguments that typer refused: the classes of its errors are its own."""
    if not hasattr(error, "format_message"):
        if os.environ.get(DEBUG_VARIABLE):
            traceback.print_exc()
        say(f"{name}: {type(error).__name__}: {error} ({DEBUG_VARIABLE}=1 shows where)")
        return 1
    # Without arguments the message is the help, which typer has printed.
    if message := " ".join(error.format_message().split()).rstrip("."):
        value = _value_of(getattr(error, "param", None), arguments)
        found = f", found {value!r}" if value and repr(value) not in message else ""
        say(f"{name}: {message}{found}; -h shows what is allowed")
    return int(error.exit_code)


def _value_of(parameter: Any, arguments: Sequence[str]) -> str:
    """What was given last for an option; empty when that cannot be told."""
    value = ""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        for option in getattr(parameter, "opts", ()):
            if argument == option:
                value = following
            elif argument.startswith(f"{option}="):
                value = argument.removeprefix(f"{option}=")
    return value
