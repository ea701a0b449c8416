"""Run all benchmarks, in turns, and write one table and one JSON file."""

import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

ROUNDS = 3
RESULTS = Path(__file__).parent / "results.json"


def images_per_second(way: str) -> float:
    """One measurement of `benchmarks.training`, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.training", way], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"benchmarks.training {way} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])["images_per_second"]


def seconds(*arguments: str) -> float:
    """How long a melanoma command takes, start to end."""
    start = time.perf_counter()
    subprocess.run([Path(sys.executable).parent / "melanoma", *arguments], capture_output=True, check=False)
    return time.perf_counter() - start


def machine() -> dict[str, str | int]:
    """What the numbers were measured on."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line.split(":")[1].strip() for line in text.splitlines() if "model name" in line), "unknown")
    return {"cpu": model, "cores": os.cpu_count() or 0, "python": platform.python_version()}


def main() -> None:
    """Measure, print and write."""
    if not os.environ.get("MELANOMA_DATA"):
        sys.exit("Set MELANOMA_DATA to a folder with melanoma10k.zip.")
    console = Console()
    measured: dict[str, list[float]] = {"plain": [], "melanoma": [], "limit": []}
    for turn in range(ROUNDS):
        for way, values in measured.items():
            values.append(images_per_second(way))
            console.print(f"round {turn + 1}/{ROUNDS}: {way} {values[-1]:.0f} images/s")
    middle = {way: median(values) for way, values in measured.items()}
    # Within a round, as the machine's speed changes from round to round.
    ratio = {
        way: median(ours / theirs for ours, theirs in zip(measured["melanoma"], measured[way], strict=True))
        for way in ("plain", "limit")
    }
    starts = {
        "melanoma --help": min(seconds("--help") for _ in range(3)),
        "melanoma train --help": min(seconds("train", "--help") for _ in range(3)),
        "a configuration error": min(seconds("train", "training.epochs=0", "modle=m1") for _ in range(3)),
    }
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "images_per_second": {"median": middle, "rounds": measured},
        "ratio": {
            "to plain Keras (wanted: at least 2.5)": ratio["plain"],
            "to the compute limit (wanted: at least 0.90)": ratio["limit"],
        },
        "seconds to start (wanted: under 1)": starts,
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    table = Table("binary150, generator augmentation, melanoma10k, batch 32; medians of rounds", "images/s", "ratio")
    table.add_row("plain Keras: ImageDataGenerator, float32", f"{middle['plain']:.0f}", "1.0")
    table.add_row("melanoma", f"{middle['melanoma']:.0f}", f"{ratio['plain']:.2f}")
    table.add_row("compute limit: one cached random batch", f"{middle['limit']:.0f}", "")
    table.add_row("melanoma against the limit", "", f"{ratio['limit']:.2f}")
    for name, value in starts.items():
        table.add_row(name, "", f"{value:.2f} s")
    console.print(table)
    console.print(f"Written to {RESULTS}")


if __name__ == "__main__":
    main()
