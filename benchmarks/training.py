"""Images per second of one training epoch: plain Keras, this project, and the limit that computing sets.

The model is `binary150` with the `generator` augmentation at batch 32, on the training images of melanoma10k.
Each way runs in a process of its own: `python -m benchmarks.training plain|melanoma|limit`.
"""

import json
import os
import sys
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BATCH = 32
SIZE = 150
WARM_UP_STEPS = 10


def dataset():
    """The data set, decoded and split as a training run does it."""
    from melanoma.config.diagnose import compose_config
    from melanoma.config.launch import register_resolvers, typed
    from melanoma.config.schema import TrainConfig
    from melanoma.workflows.stages import prepare_once, read_source

    register_resolvers()
    archive = Path(os.environ["MELANOMA_DATA"]) / "melanoma10k.zip"
    config = compose_config("train", ["data=melanoma10k", f"data.path={archive}", "model=binary150"])
    settings = typed(TrainConfig, config)
    return prepare_once(settings, read_source(settings.data))[1], settings


def plain_generator():
    """The augmentation of tutorials."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    return ImageDataGenerator(
        rescale=1 / 255, rotation_range=20, width_shift_range=0.2, height_shift_range=0.2, shear_range=0.2,
        zoom_range=0.2, horizontal_flip=True, fill_mode="nearest",
    )  # fmt: skip


def plain_network():
    """binary150 as tutorials write it, compiled."""
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(128, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


def plain() -> float:
    """As tutorials write it: ImageDataGenerator, float32."""
    data, _ = dataset()
    train = data.part("train").assign(file=lambda rows: [str(data.root / path) for path in rows.path])
    flow = plain_generator().flow_from_dataframe(
        train, x_col="file", y_col="label", target_size=(SIZE, SIZE), batch_size=BATCH, class_mode="binary", seed=0
    )
    model = plain_network()
    model.fit(flow, steps_per_epoch=WARM_UP_STEPS, epochs=1, verbose=0)
    start = time.perf_counter()
    model.fit(flow, epochs=1, verbose=0)
    return len(train) / (time.perf_counter() - start)


def melanoma(limit: bool = False) -> float:
    """This project's network, precision, input pipeline and fit; `limit` feeds it one batch of random pixels."""
    import keras
    import numpy as np
    import tensorflow as tf

    from melanoma.models.build import build_network
    from melanoma.models.losses import training_loss
    from melanoma.models.reference import plain_cnn
    from melanoma.training.augmentation import RandomAffine
    from melanoma.training.batches import TrainingImages, augmenter, encode, training_batches
    from melanoma.training.hardware import prepare, resolve_precision
    from melanoma.training.optimizers import Adam

    data, settings = dataset()
    train = data.part("train")
    prepare(0, settings.training.deterministic)
    builder = partial(plain_cnn, filters=[32, 64, 128], dense=[128])
    network = build_network(builder, image_size=SIZE, classes=2, policy=resolve_precision(settings.training.precision))
    accuracy = keras.metrics.BinaryAccuracy(threshold=0.0)
    network.compile(Adam(), training_loss(2), metrics=[accuracy], jit_compile=False)
    steps = -(-len(train) // BATCH)
    if limit:
        rng = np.random.default_rng(0)
        batch = (
            tf.constant(rng.random((BATCH, SIZE, SIZE, 3), np.float32) * 255),
            tf.constant(rng.integers(2, size=(BATCH, 1)).astype(np.float32)),
            tf.ones(BATCH),
        )
        batches = tf.data.Dataset.from_tensors(batch).cache().repeat()
    else:
        layer = RandomAffine(horizontal_flip=True, rotation=20, shift=0.2, shear=0.2, zoom=0.2, fill_mode="nearest")
        labels, weights = encode(train.target.to_numpy(), 2), np.ones(len(train), np.float32)
        images = TrainingImages(data.store, train.row.to_numpy(), labels, weights)
        batches = training_batches(images, batch_size=BATCH, seed=0, augment=augmenter([layer]))
    network.fit(batches, steps_per_epoch=WARM_UP_STEPS, epochs=1, verbose=0, shuffle=False)
    start = time.perf_counter()
    network.fit(batches, steps_per_epoch=steps, epochs=1, verbose=0, shuffle=False)
    return steps * BATCH / (time.perf_counter() - start)


WAYS = {"plain": plain, "melanoma": melanoma, "limit": partial(melanoma, limit=True)}

if __name__ == "__main__":
    print(json.dumps({"images_per_second": WAYS[sys.argv[1]]()}))
