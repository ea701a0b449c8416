"""Display of the result of a run on the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean, stdev

from rich.markup import escape
from rich.table import Table

from melanoma.evaluation.evaluate import Evaluation
from melanoma.evaluation.metrics import headlines
from melanoma.evaluation.seeds import OverSeeds
from melanoma.evaluation.texts import stored_text, with_bounds
from melanoma.terminal import out
from melanoma.tracking.store import figures_folder, ui_command

__all__ = ["show_difference", "show_findings", "show_result", "show_seeds", "show_spread"]


def show_result(
    evaluations: list[Evaluation],
    run_id: str,
    uri: str,
    model: str | None,
    internal: Mapping[str, float] | None = None,
    *,
    measures: Mapping[str, float] | None = None,
    primary: str | None = None,
) -> None:
    """Print the metrics with their intervals, the location of the run, and the next steps.

    Args:
        evaluations: Evaluations, one per column.
        run_id: ID of the run.
        uri: URI of the tracking store.
        model: Address of the saved model and the command that uses it, if the run saved one.
        internal: Metrics of the run that trained the model, shown next to those of other images.
        measures: All measures of the run, of which those of the operating points are shown.
        primary: Primary metric, which becomes the first row.
    """
    table = Table(title="Result (in brackets: confidence interval)", title_justify="left")
    table.add_column("metric", overflow="fold")
    for evaluation in evaluations:
        # Epoch, calibration and thresholds were chosen by them.
        optimistic = ", optimistic" if evaluation.part == "validation" else ""
        table.add_column(f"{evaluation.part} (n={len(evaluation.rows)}){optimistic}", justify="left")
    known = measures or {}
    levels = [level for level in ("lesion", "patient") if f"test/per_{level}/{level}s" in known]
    for level in levels:
        table.add_column(f"test per {level} (n={known[f'test/per_{level}/{level}s']:.0f})", justify="left")
    if internal:
        table.add_column(f"internal test (n={internal.get('data/images/test', 0):.0f})", justify="left")
    for name in _shown(evaluations, primary):
        cells = [evaluation.text_of(name) for evaluation in evaluations]
        cells += [stored_text(known, f"test/per_{level}/{name}") for level in levels]
        table.add_row(escape(name), *cells, *([stored_text(internal, f"test/{name}")] if internal else []))
    for title, name in _operating_points(known):
        parts = [evaluation.part for evaluation in evaluations] + [f"test/per_{level}" for level in levels]
        cells = [stored_text(known, f"{part}/{name}") for part in parts]
        table.add_row(escape(title), *cells, *([stored_text(internal, f"test/{name}")] if internal else []))
    console = out()
    console.print(table)
    console.print(f"Run      {run_id}", soft_wrap=True, markup=False)
    if model is not None:
        console.print(f"Model    {model}", soft_wrap=True, markup=False)
    if figures := figures_folder(run_id):
        console.print(f"Figures  {figures}", soft_wrap=True, markup=False)
    console.print(f"Compare  {ui_command(uri)}", soft_wrap=True, markup=False)


def show_findings(findings: Sequence[str]) -> None:
    """Print what the result says about the training."""
    for finding in findings:
        out().print(f"- {finding}", soft_wrap=True, markup=False)


def show_spread(evaluations: list[Evaluation], pooled: Evaluation, primary: str | None) -> None:
    """Print the headline metrics of the pooled folds, and their mean and standard deviation over the folds."""
    table = Table(title=f"Over {len(evaluations)} runs", title_justify="left")
    for title in ("metric", "pooled", "mean", "standard deviation", "lowest", "highest"):
        table.add_column(title)
    for name in headlines(primary):
        values = [evaluation.metrics[name] for evaluation in evaluations if name in evaluation.metrics]
        if len(values) > 1:
            numbers = (mean(values), stdev(values), min(values), max(values))
            table.add_row(name, pooled.text_of(name), *(f"{number:.3f}" for number in numbers))
    out().print(table)
    out().print(
        "Pooled: all test images together, each predicted by the model that was not trained on it; an AUC then also "
        "compares scores of different models. Mean: over the models, each on its own test images.",
        soft_wrap=True,
    )


def show_seeds(
    by_part: Mapping[str, Mapping[str, OverSeeds]],
    images: Mapping[str, int],
    run_id: str,
    uri: str,
    primary: str | None,
) -> None:
    """Print the metrics of the test images over several seeds, and where the run is."""
    test = by_part["test"]
    count = len(next(iter(test.values())).values)
    table = Table(title=f"{count} seeds on the same {images['test']} test images", title_justify="left")
    for title in ("metric", "mean [interval]", "for these seeds only", "standard deviation", "lowest", "highest"):
        table.add_column(title, overflow="fold")
    tasks = [name for name in test if name.endswith("/auc") and not name.startswith("auc/")]
    for name in dict.fromkeys([*headlines(primary), *tasks]):
        if name in test:
            one = test[name]
            spread = (one.std, min(one.values), max(one.values))
            table.add_row(escape(name), *one.texts(), *(f"{number:.3f}" for number in spread))
    console = out()
    console.print(table)
    console.print("The interval is for other images and other seeds.", soft_wrap=True)
    console.print(f"Run      {run_id}", soft_wrap=True, markup=False)
    console.print(f"Compare  {ui_command(uri)}", soft_wrap=True, markup=False)


def show_difference(published: list[Evaluation], clean: list[Evaluation], run_id: str, uri: str) -> None:
    """Print the metrics of both protocols, and the inflation by the published protocol."""
    table = Table(title="The same model under two protocols", title_justify="left")
    for title in ("part", "metric", "published", "clean", "inflation"):
        table.add_column(title)
    for one, other in zip(published, clean, strict=True):
        for name in _shown([one, other], None):
            if name in one.metrics and name in other.metrics:
                inflation = with_bounds(*one.minus(other, name), sign="+")
                table.add_row(one.part, escape(name), one.text_of(name), other.text_of(name), inflation)
    console = out()
    console.print(table)
    console.print(f"Run      {run_id}", soft_wrap=True, markup=False)
    console.print(f"Compare  {ui_command(uri)}", soft_wrap=True, markup=False)


def _operating_points(measures: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    """Yield a title and a name for the sensitivity and the specificity of each operating point."""
    for name, threshold in measures.items():
        if name.startswith("operating_point/") and name.endswith("/threshold"):
            point = name.removesuffix("/threshold")
            task = point.removeprefix("operating_point/")
            for measure in ("sensitivity", "specificity"):
                yield f"{measure} of {task} at threshold {threshold:.3f}", f"{point}/{measure}"


def _shown(evaluations: list[Evaluation], primary: str | None) -> list[str]:
    """Return the names of the metrics over all classes, of each binary task, and of each class's sensitivity."""
    measured = [name for evaluation in evaluations for name in evaluation.metrics]
    names = dict.fromkeys([primary, *measured] if primary in measured else measured)
    tasks = {task for evaluation in evaluations for task in evaluation.predictions.binary_tasks}
    return [
        name for name in names if name == primary or "/" not in name or name.split("/")[0] in {"sensitivity", *tasks}
    ]
