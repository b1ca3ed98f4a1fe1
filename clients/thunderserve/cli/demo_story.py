"""The demo's voice: what it prints, and whether every check held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from thunderserve.console.output import make_table, stdout_console

if TYPE_CHECKING:
    from collections.abc import Iterable

    from thunderserve.cli.demo_traffic import Figures

__all__ = ["Story"]


class Story:
    """Prints what happens to stdout and remembers the checks."""

    def __init__(self) -> None:
        self.console = stdout_console()
        self.failed_checks = 0

    def title(self, text: str) -> None:
        """Begin a part."""
        self.console.print(f"\n[bold]{escape(text)}[/bold]")

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(escape(text))

    def stream(self, text: str) -> None:
        """Some more of an answer, as it comes."""
        self.console.print(text, end="", markup=False, soft_wrap=True, style="cyan")
        self.console.file.flush()

    def check(self, *, holds: bool, claim: str, otherwise: str = "") -> None:
        """State a claim, and what is the case where it does not hold."""
        if holds:
            self.console.print(f"[green]ok[/green]      {escape(claim)}")
        else:
            self.failed_checks += 1
            self.console.print(f"[red]FAILED[/red]  {escape(claim)}: {escape(otherwise)}")

    def figures(self, rows: Iterable[Figures]) -> None:
        """The table of what each request took."""
        columns = (
            *("REQUEST", "WIRE", "PROMPT>", "OUTPUT>", "TTFT ms>", "TPOT ms>", "PAIR"),
            *("KV BYTES>", "ON THE WIRE>", "RATIO>", "EXPOSED ms>"),
        )
        self.console.print(make_table(columns, (_cells(row) for row in rows)))


def _cells(row: Figures) -> tuple[str, ...]:
    ratio = row.wire_bytes / row.raw_bytes if row.raw_bytes else 0.0
    return (
        row.through,
        row.wire,
        str(row.prompt_tokens),
        str(row.output_tokens),
        f"{row.ttft_s * 1e3:.0f}",
        f"{row.tpot_s * 1e3:.1f}",
        row.pair,
        f"{row.raw_bytes:,}",
        f"{row.wire_bytes:,}",
        f"{ratio:.2f}",
        f"{row.exposed_s * 1e3:.1f}",
    )
