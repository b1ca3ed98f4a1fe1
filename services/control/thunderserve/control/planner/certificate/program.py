"""A linear program, perhaps with integers, built row by row and solved by HiGHS."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import highspy
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Answer", "Program"]

_MOST_NODES = 200_000
_DEFAULT_GAP = 1e-6


@dataclass(frozen=True, slots=True)
class Answer:
    """What HiGHS found.

    Attributes:
        bound: No solution has more; infinite when nothing was proven in time.
        objective: Of the solution; -infinite when none was found.
        values: Of every variable, when a solution was found.
        prices: What one more of every row's limit is worth; of a program without integers.
    """

    bound: float
    objective: float
    values: tuple[float, ...] = ()
    prices: tuple[float, ...] = ()

    @property
    def feasible(self) -> bool:
        """A solution was found."""
        return bool(self.values)


class Program:
    """Maximises a sum over variables that are at least 0."""

    def __init__(self) -> None:
        self._gains: list[float] = []
        self._integer: list[bool] = []
        self._upper: list[float] = []
        self._limits: list[float] = []
        self._starts: list[int] = [0]
        self._indices: list[int] = []
        self._shares: list[float] = []

    def add_variable(
        self, gain: float = 0.0, *, upper: float = math.inf, integer: bool = False
    ) -> int:
        """A variable between 0 and `upper`, of which each unit counts `gain`."""
        self._gains.append(gain)
        self._upper.append(upper)
        self._integer.append(integer)
        return len(self._gains) - 1

    def add_row(self, terms: Iterable[tuple[int, float]], limit: float) -> int:
        """The sum of share times variable is at most `limit`; a variable may come twice."""
        shares: dict[int, float] = {}
        for index, share in terms:
            shares[index] = shares.get(index, 0.0) + share
        self._indices += shares.keys()
        self._shares += shares.values()
        self._starts.append(len(self._indices))
        self._limits.append(limit)
        return len(self._limits) - 1

    def set_gain(self, variable: int, gain: float) -> None:
        """Change what a unit of a variable counts."""
        self._gains[variable] = gain

    def set_limit(self, row: int, limit: float) -> None:
        """Change a row's limit."""
        self._limits[row] = limit

    def solve(
        self,
        *,
        integers: bool = True,
        time_limit_s: float = math.inf,
        gap_ratio: float = _DEFAULT_GAP,
    ) -> Answer:
        """The best solution.

        Args:
            integers: False lets integer variables take any value.
            time_limit_s: When to be content with a bound.
            gap_ratio: Between bound and solution, at which it is content.
        """
        mixed = integers and any(self._integer)
        solver = highspy.Highs()
        options: dict[str, float] = {
            "output_flag": False,
            "threads": 1,
            "mip_max_nodes": _MOST_NODES,
        }
        options |= {"mip_rel_gap": gap_ratio, "time_limit": max(0.01, time_limit_s)}
        for name, value in options.items():
            solver.setOptionValue(name, value)
        taken = solver.passModel(self._model(mixed=mixed))
        assert taken != highspy.HighsStatus.kError  # noqa: S101 - rows are built here
        solver.run()
        return self._answer(solver, mixed=mixed)

    def _model(self, *, mixed: bool) -> highspy.HighsLp:
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = len(self._gains), len(self._limits)
        model.sense_ = highspy.ObjSense.kMaximize
        model.col_cost_ = np.array(self._gains)
        model.col_lower_ = np.zeros(len(self._gains))
        model.col_upper_ = np.array(self._upper)
        model.row_lower_ = np.full(len(self._limits), -math.inf)
        model.row_upper_ = np.array(self._limits)
        matrix = model.a_matrix_
        matrix.format_ = highspy.MatrixFormat.kRowwise
        matrix.start_ = np.array(self._starts)
        matrix.index_ = np.array(self._indices)
        matrix.value_ = np.array(self._shares)
        if mixed:
            kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
            model.integrality_ = [kinds[whole] for whole in self._integer]
        return model

    def _answer(self, solver: highspy.Highs, *, mixed: bool) -> Answer:
        info, status = solver.getInfo(), solver.getModelStatus()
        optimal = status == highspy.HighsModelStatus.kOptimal
        found = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
        if not found:
            lost = status == highspy.HighsModelStatus.kInfeasible
            return Answer(-math.inf if lost else self._proven(info, mixed=mixed), -math.inf)
        solution, objective = solver.getSolution(), float(info.objective_function_value)
        if mixed:
            return Answer(
                max(objective, self._proven(info, mixed=True)), objective, tuple(solution.col_value)
            )
        return Answer(
            objective if optimal else math.inf,
            objective,
            tuple(solution.col_value),
            tuple(solution.row_dual),
        )

    @staticmethod
    def _proven(info: highspy.HighsInfo, *, mixed: bool) -> float:
        return float(info.mip_dual_bound) if mixed else math.inf
