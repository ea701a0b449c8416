"""Train each model once and write the gallery of docs/models.md.

    python tools/gallery.py FOLDER       # of isic9.zip, melanoma10k.zip and HAM10000_metadata.csv; about 40 minutes

Each model trains with its own recipe on images of 96 x 96 pixels, on melanoma10k for at most four minutes. The
runs are kept in outputs/gallery and are not repeated; delete that folder to start anew.
"""

import io
import sys
from pathlib import Path

import mlflow
from PIL import Image

import melanoma
from melanoma.api.results import Run

ROOT = Path(__file__).resolve().parent.parent
STORE = ROOT / "outputs" / "gallery"
PAGE = ROOT / "docs" / "models.md"
SIZE = 96  # pixels
SETS = {
    "isic9": ("m1", "m2", "m3", "tf_tutorial", "resnet_small_fast", "resnet_small"),
    "melanoma10k": ("binary150", "binary240", "binary240_dropout", "resnet_small_fast", "resnet_small"),
}
FIGURES = ("training_curves", "confusion_matrix_normalized")
HEIGHT = 340  # pixels of a picture
MARK = "<!-- written by tools/gallery.py -->"


def main() -> None:
    """Train what is missing, then write the pictures and the page."""
    data = Path(sys.argv[1])
    STORE.mkdir(parents=True, exist_ok=True)
    text = ""
    for name, models in SETS.items():
        rows = []
        for model in models:
            run = trained(model, name, data)
            picture = f"images/gallery_{name}_{model}.png"
            side_by_side(run).save(PAGE.parent / picture, optimize=True)
            rows.append(entry(model, run, picture))
        text += f"\n### {name}\n\n" + "\n".join(rows)
    before, _, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    about = (
        f"Each model with its own recipe, on images of {SIZE} x {SIZE} pixels, seed 0; on melanoma10k for at most four "
        "minutes on\ntwo cores beside other work. Larger images and longer training give more; see the reference "
        "experiments."
    )
    PAGE.write_text(f"{before}{MARK}\n\n## Gallery\n\n{about}\n{text}", encoding="utf-8")


def trained(model: str, name: str, data: Path) -> Run:
    """Return the run of a model on a data set, from the store if it is there."""
    uri = f"sqlite:///{STORE / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    title = f"{model}-{name}"
    found = mlflow.search_runs(
        search_all_experiments=True,
        filter_string=f"attributes.run_name = '{title}' AND attributes.status = 'FINISHED'",
        output_format="list",
    )
    if found:
        return Run(found[0].info.run_id, uri)
    keys = {"data.image_size": SIZE, "tracking.uri": uri, "tracking.run_name": title, "tracking.experiment": "gallery"}
    if name == "isic9":
        keys["data.metadata.path"] = data / "HAM10000_metadata.csv"
    else:
        keys["training.max_minutes"] = 4
    return melanoma.train(**{"data": name, "data.path": data / f"{name}.zip", "model": model, **keys})


def entry(model: str, run: Run, picture: str) -> str:
    """Return a model's entry in the gallery: its result on the test images, and its picture."""
    results = ", ".join(
        f"{title} {run.metrics.value[name]:.3f} [{run.metrics.ci_low[name]:.3f}, {run.metrics.ci_high[name]:.3f}]"
        for name, title in (("test/accuracy", "accuracy"), ("test/auc", "AUC"))
    )
    return (
        f"**`model={model}`**, {run.metrics.value['fit/epochs']:.0f} epochs: test {results}\n\n"
        f"![{model}: learning curves and confusion matrix]({picture})\n"
    )


def side_by_side(run: Run) -> Image.Image:
    """Return the figures of a run in one row."""
    figures = [Image.open(io.BytesIO(run.figure(name)._repr_png_())).convert("RGB") for name in FIGURES]
    figures = [f.resize((round(f.width * HEIGHT / f.height), HEIGHT), Image.Resampling.LANCZOS) for f in figures]
    row = Image.new("RGB", (sum(f.width for f in figures), HEIGHT), "white")
    left = 0
    for figure in figures:
        row.paste(figure, (left, 0))
        left += figure.width
    return row.quantize(64)


if __name__ == "__main__":
    main()
