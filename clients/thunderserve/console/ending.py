"""How a command ends: an exit status and one line, never a traceback."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING

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
    try:
        app(args=None if argv is None else list(argv), prog_name=name)
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
        if os.environ.get(DEBUG_VARIABLE):
            traceback.print_exc()
        say(f"{name}: {type(error).__name__}: {error} ({DEBUG_VARIABLE}=1 shows where)")
        return 1
    return 0
