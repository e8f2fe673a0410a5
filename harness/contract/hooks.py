"""The hooks that a plugin may implement. Hooks return specs; importing a module registers nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from harness.contract import specs

NAME = "ood_harness"  # the pluggy project and the entry-point group

hookspec = pluggy.HookspecMarker(NAME)
hookimpl = pluggy.HookimplMarker(NAME)


@hookspec
def harness_scorers() -> Iterable[specs.ScorerSpec]:
    """Offer scorers."""
    return ()


@hookspec
def harness_datasets() -> Iterable[specs.DatasetSpec]:
    """Offer datasets."""
    return ()


@hookspec
def harness_models() -> Iterable[specs.ModelSpec]:
    """Offer models."""
    return ()


@hookspec
def harness_suites() -> Iterable[specs.SuiteSpec]:
    """Offer suites."""
    return ()


@hookspec
def harness_recipes() -> Iterable[specs.RecipeSpec]:
    """Offer recipes."""
    return ()


@hookspec
def harness_objectives() -> Iterable[specs.ObjectiveSpec]:
    """Offer training objectives. Experimental: the protocol may still change."""
    return ()


@hookspec
def harness_probes() -> Iterable[specs.ProbeSpec]:
    """Offer probes. Experimental: the protocol may still change."""
    return ()


@hookspec
def harness_adapters() -> Iterable[specs.AdapterSpec]:
    """Offer test-time adapters. Experimental: the protocol may still change."""
    return ()


@hookspec
def harness_estimators() -> Iterable[specs.EstimatorSpec]:
    """Offer estimators of accuracy. Experimental: the protocol may still change."""
    return ()


@hookspec
def harness_evaluations() -> Iterable[specs.EvaluationSpec]:
    """Offer kinds of evaluation. Experimental: the protocol may still change."""
    return ()


@hookspec
def harness_run_start(manifest: Mapping[str, Any]) -> None:
    """React to the start of a run; `manifest` is the content of run.json at that time."""


@hookspec
def harness_record(record: Mapping[str, Any]) -> None:
    """React to a record that was written for a cell."""


@hookspec
def harness_run_end(folder: Path) -> None:
    """React to the end of a run; its folder is complete."""
