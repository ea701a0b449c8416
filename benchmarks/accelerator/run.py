"""Images per second of the exported training step on a GPU: `python -m benchmarks.accelerator.run FOLDER`.

Needs JAX with CUDA and the folder that `benchmarks.accelerator.export` wrote, but neither TensorFlow nor melanoma.
README.md says what the ways a, b, c and d are.
"""
# mypy: disable-error-code="import-not-found"

import argparse
import json
import queue
import random
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator import hlo

BLOCKS = 9
SECONDS = 0.15  # of a block, about
STEPS = 8  # of a dispatch, where it has several
CHUNK = 2000  # images drawn at a time
DEPTH = 2  # batches that a prefetching thread may be ahead
Arrays = list[Any]


@dataclass
class Program:
    """One way to train: `function` of the state and of the arguments that `feed` gives for a dispatch."""

    function: Callable[..., tuple[Arrays, Any]]
    feed: Callable[[int], tuple]
    steps: int = 1
    prefetch: bool = False
    images: int | None = None  # where the number of images is what is compared
    state: Arrays = field(default_factory=list)
    compiled: Any = None
    dispatched: int = 0

    def compile(self, state: Arrays) -> None:
        """Compile ahead, so that the compiler can be asked for the memory that it plans."""
        self.state = jax.device_put(state)
        self.compiled = jax.jit(self.function, donate_argnums=0).lower(self.state, *self.feed(0)).compile()

    def seconds(self, dispatches: int) -> float:
        """Run so many dispatches to their end."""
        numbers = range(self.dispatched, self.dispatched + dispatches)
        self.dispatched += dispatches
        start = time.perf_counter()
        for arguments in ahead(self.feed, numbers) if self.prefetch else map(self.feed, numbers):
            self.state, loss = self.compiled(self.state, *arguments)
        jax.block_until_ready(loss)
        return time.perf_counter() - start


def ahead(feed: Callable[[int], tuple], numbers: range) -> Any:
    """Yield the arguments of each dispatch; a thread prepares them and starts their copy to the device."""
    ready: queue.Queue = queue.Queue(DEPTH)

    def work() -> None:
        for number in numbers:
            ready.put(jax.device_put(feed(number)))

    thread = threading.Thread(target=work)
    thread.start()
    for _ in numbers:
        yield ready.get()
    thread.join()


class Images:
    """Drawn images on the device: uint8 of shape (number, side, side, 3), with labels."""

    def __init__(self, number: int, side: int, classes: int):
        self.number, self.side = number, side
        self.store = jnp.zeros((number, side, side, 3), jnp.uint8)
        put = jax.jit(lambda store, new, at: jax.lax.dynamic_update_slice_in_dim(store, new, at, 0), donate_argnums=0)
        for at in range(0, number, self.chunk):
            self.store = put(self.store, self.drawn(at), at)
        self.labels = jax.random.randint(jax.random.key(1), (number,), 0, classes, jnp.int32)

    @property
    def chunk(self) -> int:
        """How many images are drawn at a time."""
        return min(CHUNK, self.number)

    def drawn(self, at: int) -> jax.Array:
        """The chunk of images from number `at` on."""
        return drawn(jax.random.fold_in(jax.random.key(0), at), self.chunk, self.side)

    def last_are_right(self) -> bool:
        """Whether a gather finds the last images; indices of pixels would not fit an int32 there."""
        found = jax.jit(lambda store, rows: store[rows])(self.store, np.arange(-5, 0, dtype=np.int32) + self.number)
        return bool((found == self.drawn(self.number - self.chunk)[-5:]).all())

    def rows(self, batch: int) -> Callable[[int], np.ndarray]:
        """The int32 numbers of the images of each batch, shuffled."""
        order = np.random.default_rng(0).permutation(self.number).astype(np.int32)
        order = order[: self.number // batch * batch].reshape(-1, batch)
        return lambda number: order[number % len(order)]

    def feed(self, batch: int) -> Callable[[int], tuple]:
        """The arguments of a step that takes its images from this store."""
        rows = self.rows(batch)
        return lambda number: (self.store, self.labels, rows(number), seed(number))


@partial(jax.jit, static_argnums=(1, 2))
def drawn(key: jax.Array, number: int, side: int) -> jax.Array:
    """Smooth uint8 images with a little noise."""
    one, two = jax.random.split(key)
    shapes = jax.random.uniform(one, (number, 16, 16, 3), jnp.float32, 0, 255)
    images = jax.image.resize(shapes, (number, side, side, 3), "cubic")
    return jnp.clip(images + 2 * jax.random.normal(two, images.shape, jnp.float32), 0, 255).astype(jnp.uint8)


def seed(number: int) -> np.ndarray:
    """The seed of a batch."""
    return np.array([7, number], np.int32)


class Exported:
    """The exported functions of one batch size, and the ways to train that are made of them."""

    def __init__(self, folder: Path, batch: int):
        self.meta = json.loads((folder / "export.json").read_text(encoding="utf-8"))
        self.batch, self.folder = batch, folder
        self._step, self._fast, self._line_by_line = (self._load(f) for f in ("step", "fast", "line_by_line"))
        with np.load(folder / "state.npz") as arrays:
            self.state = [arrays[f"arr_{number}"] for number in range(len(arrays.files))]

    def _load(self, name: str) -> Callable[..., tuple]:
        name = f"{name}_{self.batch}"
        return hlo.load(self.folder / f"{name}.hlo.gz", self.meta["modules"][name])

    def fast(self, images: Any, seed: Any) -> Any:
        """The fast form of the augmentation."""
        return self._fast(images, seed)[0]

    def line_by_line(self, images: Any, seed: Any) -> Any:
        """The line-by-line form of the augmentation."""
        return self._line_by_line(images, seed)[0]

    def step(self, state: Arrays, images: Any, labels: Any) -> tuple[Arrays, Any]:
        """One training step; `labels` are numbers of classes."""
        hot = jax.nn.one_hot(labels, self.meta["classes"], dtype=jnp.float32)
        *state, loss = self._step(*state, images, hot)
        return state, loss

    def steps(self, state: Arrays, images: Any, labels: Any) -> tuple[Arrays, Any]:
        """Several training steps with one batch."""
        state, losses = jax.lax.scan(lambda state, _: self.step(state, images, labels), state, None, length=STEPS)
        return state, losses[-1]

    def fed(self, state: Arrays, images: Any, labels: Any, seed: Any) -> tuple[Arrays, Any]:
        """One step with uint8 images from the host."""
        return self.step(state, self.fast(images, seed), labels)

    def plain(self, state: Arrays, store: Any, labels: Any, rows: Any) -> tuple[Arrays, Any]:
        """One step with images from the store, not augmented."""
        return self.step(state, store[rows].astype(jnp.float32), labels[rows])

    def resident(self, state: Arrays, store: Any, labels: Any, rows: Any, seed: Any) -> tuple[Arrays, Any]:
        """One step with images from the store, augmented by the fast form."""
        return self.step(state, self.fast(store[rows], seed), labels[rows])

    def resident_line_by_line(self, state: Arrays, store: Any, labels: Any, rows: Any, seed: Any) -> tuple[Arrays, Any]:
        """The same, augmented by the line-by-line form."""
        return self.step(state, self.line_by_line(store[rows], seed), labels[rows])

    def residents(self, state: Arrays, store: Any, labels: Any, rows: Any, seeds: Any) -> tuple[Arrays, Any]:
        """Several steps; rows and seeds have one entry for each of them."""

        def one(state: Arrays, inputs: tuple) -> tuple[Arrays, Any]:
            return self.resident(state, store, labels, *inputs)

        state, losses = jax.lax.scan(one, state, (rows, seeds))
        return state, losses[-1]


def programs(exported: Exported, stores: list[Images]) -> dict[str, Program]:
    """All ways of one batch size. The first store is the one of all ways but those that compare stores."""
    first, batch = stores[0], exported.batch
    host, host_labels, rows = np.asarray(first.store), np.asarray(first.labels), first.rows(batch)
    fixed = jax.device_put(host[:batch].astype(np.float32)), first.labels[:batch]

    def same(_: int) -> tuple:
        return fixed

    def gathered(number: int) -> tuple:
        return host[rows(number)], host_labels[rows(number)], seed(number)

    ready = [gathered(number) for number in range(4)]

    def in_memory(number: int) -> tuple:
        return ready[number % len(ready)]

    def several(number: int) -> tuple:
        numbers = range(number * STEPS, (number + 1) * STEPS)
        return first.store, first.labels, np.stack([rows(n) for n in numbers]), np.stack([seed(n) for n in numbers])

    ways = {
        "a": Program(exported.step, same),
        "b, fast": Program(exported.resident, first.feed(batch)),
        "b, line by line": Program(exported.resident_line_by_line, first.feed(batch)),
        "c, gathered": Program(exported.fed, gathered),
        "c, gathered, prefetched": Program(exported.fed, gathered, prefetch=True),
        "c, ready in memory, prefetched": Program(exported.fed, in_memory, prefetch=True),
        "d": Program(exported.plain, lambda number: (first.store, first.labels, rows(number))),
        f"a, {STEPS} steps a dispatch": Program(exported.steps, same, steps=STEPS),
        f"b, fast, {STEPS} steps a dispatch": Program(exported.residents, several, steps=STEPS),
    }
    for images in stores[1:]:
        name = f"b, fast, {images.number} images"
        # A function of its own, because it is compiled for one size of the store.
        ways[name] = Program(partial(exported.resident), images.feed(batch), images=images.number)
    return ways


def same_bits(program: Program, state: Arrays) -> bool:
    """Whether two runs of 30 steps from the same state, with the same seeds, give the same bits."""
    ends = []
    for _ in range(2):
        program.state, program.dispatched = jax.device_put(state), 0
        program.seconds(30)
        ends.append([np.asarray(array) for array in program.state])
    return all(np.array_equal(one, two) for one, two in zip(*ends, strict=True))


def spread(values: list[float], digits: int | None = None) -> dict[str, float]:
    """Median, smallest and largest."""
    return {
        "median": round(median(values), digits),
        "low": round(min(values), digits),
        "high": round(max(values), digits),
    }


def measure(ways: dict[str, Program], batch: int, seconds: float) -> dict[str, dict[str, float]]:
    """Images per second of each way; the blocks of all ways take turns, in random order."""
    dispatches: dict[str, int] = {}
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for name, program in ways.items():
        program.seconds(3)  # warm up
        dispatches[name] = max(3, int(seconds / (program.seconds(4) / 4)))
    for _ in range(BLOCKS):
        for name in random.sample(list(ways), len(ways)):
            images = batch * ways[name].steps * dispatches[name]
            speeds[name].append(images / ways[name].seconds(dispatches[name]))
    base = median(speeds["a"])
    found = {}
    for name, values in speeds.items():
        found[name] = {**spread(values), "ratio": round(median(values) / base, 3)}
        if ways[name].images:
            found[name]["hours of 30 epochs"] = round(30 * ways[name].images / median(values) / 3600, 3)
        print(f"{batch:5d}  {name:36s}", *(f"{key} {value:<10g}" for key, value in found[name].items()), flush=True)
    return found


def alone(augment: Callable, images: jax.Array) -> dict[str, float]:
    """Milliseconds of the augmentation by itself, with those of its dispatch."""
    compiled = jax.jit(augment)
    jax.block_until_ready(compiled(images, seed(0)))
    times = []
    for _ in range(BLOCKS):
        start = time.perf_counter()
        for number in range(20):
            changed = compiled(images, seed(number))
        jax.block_until_ready(changed)
        times.append((time.perf_counter() - start) / 20 * 1000)
    return spread(times, 2)


def compile_all(ways: dict[str, Program], state: Arrays) -> None:
    """Compile each function once; `a` first, because the others find its convolutions in the autotuner's cache."""
    ways["a"].compile(state)
    by_function = {program.function: program for program in ways.values() if program is not ways["a"]}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda program: program.compile(state), by_function.values()))
    for program in ways.values():
        if program.compiled is None:
            program.compiled, program.state = by_function[program.function].compiled, jax.device_put(state)


def driver() -> str | None:
    """The version of the graphics driver."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError):
        return None


def main() -> None:
    """Measure all, print it, and write it in the form of a card of results.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="what export wrote; results.json is written there, too")
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 64, 128, 256, 512])
    parser.add_argument(
        "--images",
        type=int,
        nargs="+",
        default=[10_000, 100_000, 400_000],
        help=f"sizes of the stores, multiples of {CHUNK} if larger",
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of a block")
    chosen = parser.parse_args()
    meta = json.loads((chosen.folder / "export.json").read_text(encoding="utf-8"))
    stores = [Images(number, meta["side"], meta["classes"]) for number in chosen.images]
    results: dict[str, Any] = {
        "card": jax.devices()[0].device_kind,
        "date": date.today().isoformat(),
        "versions": {"jax": jax.__version__, "driver": driver(), **meta["versions"]},
        "network": meta["network"],
        "the last images of the largest store are right": stores[-1].last_are_right(),
        "two runs give the same bits": {},
        "images per second": {},
        "scratch gigabytes": {},
        "milliseconds of the augmentation alone": {},
    }
    for batch in chosen.batches:
        exported = Exported(chosen.folder, batch)
        ways = programs(exported, stores)
        compile_all(ways, exported.state)
        key = str(batch)
        results["two runs give the same bits"][key] = same_bits(ways["b, fast"], exported.state)
        results["images per second"][key] = measure(ways, batch, chosen.seconds)
        results["scratch gigabytes"][key] = {
            name: round(ways[name].compiled.memory_analysis().temp_size_in_bytes / 1e9, 2) for name in ("a", "b, fast")
        }
        images = stores[0].store[:batch]
        results["milliseconds of the augmentation alone"][key] = {
            "fast": alone(exported.fast, images),
            "line by line": alone(exported.line_by_line, images),
        }
        (chosen.folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in results.items() if key != "images per second"}, indent=2))


if __name__ == "__main__":
    main()
