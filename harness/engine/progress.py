"""The progress of a whole run: the model that it is at, the cells that are measured, and the time left."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from harness.base.progress import logged_beside, progress_bar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Self

    from harness.engine.evaluation import Cell, Evaluation
    from harness.engine.plan import Plan, PlannedModel


class RunProgress:
    """One bar for a run. The time left follows from the cells that were measured so far.

    Every planned cell is expected at first. Those that turn out to be kept from an earlier run, or not to apply, leave
    the total: they take no time, so the time left must not rest on them.
    """

    def __init__(self, plan: Plan, kinds: Sequence[Evaluation[Any]], *, enabled: bool) -> None:
        self._plan, self._kinds, self._enabled = plan, kinds, enabled
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        total = sum(
            1 for kind in self._kinds for model in self._plan.models for _ in kind.cells(self._plan, model)
        )
        self._bar = self._stack.enter_context(
            progress_bar(total=total, description="run", unit="cell", enabled=self._enabled, steady=True)
        )
        if self._enabled:
            self._stack.enter_context(logged_beside())
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def enter(self, model: PlannedModel) -> None:
        """Name the model whose cells come next."""
        models = self._plan.models
        number = models.index(model) + 1
        self._bar.set_description(f"model {number} of {len(models)}, {model.title}", refresh=False)

    def leave_out(self, cells: Iterable[Cell]) -> None:
        """Take cells from the total that are not measured in this run."""
        self._bar.total -= sum(1 for _ in cells)
        self._bar.refresh()

    def step(self) -> None:
        """Count a measured cell."""
        self._bar.update()
