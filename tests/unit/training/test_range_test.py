"""The range test finds a learning rate that trains, and the time plan a number of epochs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from melanoma.errors import TrainingError
from melanoma.models.features import HEAD
from melanoma.models.losses import training_loss
from melanoma.training.fit import Recipe
from melanoma.training.range_test import choose, range_test
from melanoma.training.schedules import constant
from melanoma.training.time_plan import epochs_within
from tests.unit.training.test_fit import IMAGES, TARGETS, encode, feed, network, training_data


def fed():
    images = tf.data.Dataset.from_tensor_slices(IMAGES).batch(10)
    validation = images.apply(tf.data.experimental.assert_cardinality(-(-len(IMAGES) // 10)))
    return feed(training_data(encode(TARGETS, 2)), validation, TARGETS)


def recipe(optimizer=keras.optimizers.Adam, **options) -> Recipe:
    return Recipe(training_loss(2), optimizer, 1e-3, constant, **options)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("half", [1e-4, 1e-3])
def test_the_choice_is_where_most_of_the_fall_is_reached(seed: int, half: float):
    rates = np.geomspace(1e-6, 10, 120)
    decades = np.log10(rates / half)
    losses = 0.7 - 0.4 / (1 + np.exp(-5 * decades)) + np.maximum(decades - 1.5, 0)
    noisy = losses + np.random.default_rng(seed).normal(0, 0.05, 120)
    truth = half * 10 ** (np.log(9) / 5)  # nine tenths of the fall
    assert truth / 2 < choose(rates, noisy) < truth * 2


@pytest.mark.parametrize("seed", range(5))
def test_no_rate_is_chosen_from_noise(seed: int):
    rates = np.geomspace(1e-6, 10, 120)
    losses = 0.7 + np.maximum(np.log10(rates), 0) + np.random.default_rng(seed).normal(0, 0.05, 120)
    assert choose(rates, losses) is None


def test_the_chosen_rate_trains_and_is_chosen_again():
    found = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        found.append(range_test(network(), fed(), recipe()))
    assert found[0].chosen == found[1].chosen
    np.testing.assert_array_equal(found[0].losses, found[1].losses)
    assert len(found[0].rates) == len(found[0].losses)
    losses = {}
    for rate in (found[0].chosen, 1e-6):
        keras.utils.set_random_seed(0)
        net = network()
        net.compile(keras.optimizers.Adam(rate), training_loss(2))
        losses[rate] = net.fit(fed().batches(), steps_per_epoch=3, epochs=10, shuffle=False, verbose=0).history["loss"][
            -1
        ]
    assert losses[found[0].chosen] < 0.9 * losses[1e-6]


def test_it_stops_where_the_loss_diverges():
    assert len(range_test(network(), fed(), recipe(keras.optimizers.SGD)).rates) < 120


def test_with_a_warm_up_only_the_head_is_trained():
    net = network()
    before = [layer.get_weights() for layer in net.layers]
    range_test(net, fed(), recipe(warmup_epochs=1))
    for layer, weights in zip(net.layers, before, strict=True):
        same = all(np.array_equal(one, other) for one, other in zip(layer.get_weights(), weights, strict=True))
        assert same == (layer.name != HEAD) or not weights
    assert all(layer.trainable for layer in net.layers)


def test_a_network_without_a_finite_loss_is_an_error():
    net = network()
    net.set_weights([np.full_like(weights, np.nan) for weights in net.get_weights()])
    with pytest.raises(TrainingError, match="No learning rate was found"):
        range_test(net, fed(), recipe())


def test_more_time_is_more_epochs_and_there_is_always_one():
    assert epochs_within(1e-6, network(), fed(), recipe()) == 1
    assert epochs_within(60, network(), fed(), recipe()) > 10
