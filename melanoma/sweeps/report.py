"""Results of a sweep: the leaderboard, and Optuna's figures."""

import warnings
from collections.abc import Sequence
from typing import Any

import optuna
import pandas as pd
from matplotlib import pyplot
from matplotlib.figure import Figure
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as drawn
from rich.markup import escape
from rich.table import Table

from melanoma.terminal import out

__all__ = ["best_trial", "leaderboard", "show_leaderboard", "sweep_figures"]

_SHOWN = 20


def leaderboard(study: optuna.Study, metrics: Sequence[str]) -> pd.DataFrame:
    """Return one row per trial, best first: `trial`, `state`, one column per metric, `overrides`, `run` and `error`."""
    rows = []
    for trial in study.get_trials(deepcopy=False):
        if trial.state == TrialState.WAITING:
            continue
        values = trial.values if trial.state == TrialState.COMPLETE else [None] * len(metrics)
        rows.append(
            {
                "trial": trial.number,
                "state": trial.state.name.lower(),
                **dict(zip(metrics, values or [], strict=False)),
                "overrides": trial.user_attrs.get("overrides", ""),
                "run": trial.user_attrs.get("run", ""),
                "error": trial.user_attrs.get("error", ""),
            }
        )
    table = pd.DataFrame(rows, columns=["trial", "state", *metrics, "overrides", "run", "error"])
    # The second metric breaks ties of the first, so that the first row is `best_trial`.
    ascending = [direction.name == "MINIMIZE" for direction in study.directions]
    return table.sort_values(list(metrics), ascending=ascending, kind="stable", na_position="last", ignore_index=True)


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """Return the best finished trial; with two objectives, the best by the first objective on the Pareto front."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not done:
        return None
    candidates = done if len(study.directions) == 1 else study.best_trials
    sign = 1 if study.directions[0].name == "MINIMIZE" else -1
    return min(candidates, key=lambda trial: (sign * trial.values[0], trial.number))


def show_leaderboard(table: pd.DataFrame, metrics: Sequence[str]) -> None:
    """Print the best trials."""
    shown = Table(title="Trials, the best first", title_justify="left")
    for column in ("trial", "state", *metrics):
        shown.add_column(escape(column))
    shown.add_column("overrides", overflow="fold")
    for row in table.head(_SHOWN).to_dict("records"):
        numbers = ["-" if pd.isna(row[metric]) else f"{row[metric]:.4f}" for metric in metrics]
        shown.add_row(str(row["trial"]), row["state"], *numbers, escape(row["overrides"]))
    out().print(shown)
    if len(table) > _SHOWN:
        out().print(f"... and {len(table) - _SHOWN} more")


def sweep_figures(study: optuna.Study, metrics: Sequence[str]) -> dict[str, Figure]:
    """Draw Optuna's figures of a study, by name, except those that need more trials or more varied keys."""
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        return {}
    draw: dict[str, Any] = {}
    if len(metrics) > 1:
        draw["pareto_front"] = lambda: drawn.plot_pareto_front(study, target_names=list(metrics))
    for position, metric in enumerate(metrics):
        chosen: dict[str, Any] = {"target_name": metric}
        if len(metrics) > 1:
            chosen["target"] = lambda trial, position=position: trial.values[position]
        end = f"_{position + 1}" if position else ""
        draw |= {
            f"optimization_history{end}": lambda chosen=chosen: drawn.plot_optimization_history(study, **chosen),
            f"parameter_importance{end}": lambda chosen=chosen: drawn.plot_param_importances(study, **chosen),
            f"parallel_coordinates{end}": lambda chosen=chosen: drawn.plot_parallel_coordinate(study, **chosen),
            f"slices{end}": lambda chosen=chosen: drawn.plot_slice(study, **chosen),
        }
    figures = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.simplefilter("ignore", UserWarning)
        for name, make in draw.items():
            try:
                figures[name] = _whole_figure(make())
            except (ValueError, RuntimeError, ZeroDivisionError):
                continue  # such as for a single trial or a single value
    return figures


def _whole_figure(axes: Any) -> Figure:
    """Return the figure of the axes that Optuna returns, which are one object or one per parameter."""
    figure = (axes if hasattr(axes, "figure") else axes.flat[0]).figure
    figure.set_size_inches(max(figure.get_size_inches()[0], 9), 5.5)
    pyplot.close(figure)  # Optuna draws with pyplot, which would keep the figure open
    return figure
