"""How the search for near duplicates grows: `python -m benchmarks.neighbour_search`.

Points with the spread of real descriptors (drawn from a Gaussian mixture, for the numbers are what counts) and random
64-bit hashes, at 10 thousand, 100 thousand and a million. Methods that would take hours are timed on some queries and
scaled up, which the table says. `pybktree` is not a dependency of the project: install it to have its row.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "neighbour_search.json"
COUNTS = (10_000, 100_000, 1_000_000)
DIMENSIONS, RADIUS = 20, 8


def points(count: int) -> np.ndarray:
    """Clouds of clouds, as images of lesions are alike to different degrees."""
    rng = np.random.default_rng(0)
    scale = np.geomspace(3, 1, DIMENSIONS)
    centres = rng.normal(size=(2000, DIMENSIONS)) * scale
    return (centres[rng.integers(2000, size=count)] + rng.normal(size=(count, DIMENSIONS)) * scale / 2).astype(
        np.float32
    )


def hashes(count: int) -> np.ndarray:
    """Random 64-bit hashes, shape (count, 8)."""
    return np.random.default_rng(0).integers(256, size=(count, 8), dtype=np.uint8)


def inverted_file(count: int) -> float:
    """What the audit uses; every point's neighbours."""
    from melanoma.auditing.near import neighbour_pairs

    data = points(count)
    start = time.perf_counter()
    neighbour_pairs(data)
    return time.perf_counter() - start


def kd_tree(count: int) -> float:
    """SciPy's, from 1,000 queries."""
    from scipy.spatial import cKDTree

    data = points(count)
    start = time.perf_counter()
    tree = cKDTree(data)
    built = time.perf_counter() - start
    start = time.perf_counter()
    tree.query(data[:1000], k=17, workers=-1)
    return built + (time.perf_counter() - start) * count / 1000


def exhaustive_binary(count: int) -> float:
    """Each 64-bit hash with each (faiss), from 2,000 queries."""
    import faiss

    data = hashes(count)
    index = faiss.IndexBinaryFlat(64)
    index.add(data)
    start = time.perf_counter()
    index.range_search(data[:2000], RADIUS + 1)
    return (time.perf_counter() - start) * count / 2000


def bk_tree(count: int) -> float:
    """64-bit hashes within a radius of 8 bits, from 20 queries."""
    import pybktree

    numbers = [int.from_bytes(row.tobytes(), "big") for row in hashes(count)]
    start = time.perf_counter()
    tree = pybktree.BKTree(pybktree.hamming_distance, numbers)
    built = time.perf_counter() - start
    start = time.perf_counter()
    for number in numbers[:20]:
        tree.find(number, RADIUS)
    return built + (time.perf_counter() - start) * count / 20


METHODS = {
    "inverted file, 16 neighbours (used)": inverted_file,
    "kd-tree, 16 neighbours (SciPy)": kd_tree,
    "each with each, 64-bit hashes (faiss)": exhaustive_binary,
    "BK-tree, 64-bit hashes (pybktree)": bk_tree,
}


def main() -> None:
    """Run each method at each size in a process of its own, and write one table and one JSON file."""
    if len(sys.argv) == 3:
        seconds = METHODS[sys.argv[1]](int(sys.argv[2]))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(json.dumps({"seconds": seconds, "peak_gigabytes": peak}))
        return
    results: dict[str, dict[str, dict[str, float] | None]] = {}
    table = Table(
        "method", *(f"{count:,}" for count in COUNTS), title="Seconds for all, and peak memory", title_justify="left"
    )
    for method in METHODS:
        results[method] = {}
        for count in COUNTS:
            if method.startswith("BK") and count > 100_000:
                continue  # Python objects by the million
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.neighbour_search", method, str(count)],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            results[method][str(count)] = json.loads(done.stdout.splitlines()[-1]) if not done.returncode else None
        cells = [results[method].get(str(count)) for count in COUNTS]
        table.add_row(method, *(f"{c['seconds']:,.1f} s, {c['peak_gigabytes']:.2f} GB" if c else "-" for c in cells))
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
