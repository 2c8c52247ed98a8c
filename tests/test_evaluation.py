"""Features, weighted kNN and the linear probe, against definitions and references."""

import os
import pathlib
import subprocess
import sys
import threading
import warnings

import keras
import numpy as np
import pytest
from keras import ops

from keras_kssl.data import ArraySource
from keras_kssl.evaluation import (
    extract_features,
    knn,
    knn_accuracy,
    knn_votes,
    linear_accuracy,
    linear_probe,
)
from keras_kssl.evaluation.linear import softmax_gradient, train_softmax_regression

ROOT = pathlib.Path(__file__).resolve().parent.parent
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (23, 9, 7, 3)).astype("uint8")


def clusters(count, dim=16, classes=5, spread=1.0, seed=0):
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, dim))
    labels = generator.integers(0, classes, count)
    x = centres[labels] + spread * generator.normal(size=(count, dim))
    return x.astype("float32"), labels


def encoder_model(outputs="map"):
    inputs = keras.Input((9, 7, 3))
    x = keras.layers.Conv2D(4, 3)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.5)(x)
    if outputs == "vector":
        x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, x)
    generator = np.random.default_rng(1)
    for weight in model.weights:
        if weight.dtype == "float32":
            weight.assign(generator.uniform(0.1, 1, weight.shape))
    return model


# Features.


@pytest.mark.parametrize("batch_size", [1, 5, 23, 256])
def test_features_are_every_image_once_in_order_in_inference_mode(batch_size):
    model = encoder_model()
    expected = ops.convert_to_numpy(model(IMAGES / np.float32(255), training=False))
    features, labels = extract_features(model, (IMAGES, np.arange(23)), batch_size)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected.mean(axis=(1, 2)), rtol=1e-5)
    assert labels.tolist() == list(range(23))


def test_feature_maps_are_averaged_and_vectors_are_kept():
    maps, vectors = (
        extract_features(encoder_model(kind), IMAGES)[0] for kind in ("map", "vector")
    )
    np.testing.assert_allclose(maps, vectors, rtol=1e-5)


def test_float_images_are_not_scaled_again():
    model = encoder_model()
    np.testing.assert_allclose(
        extract_features(model, IMAGES / 255.0)[0],
        extract_features(model, IMAGES)[0],
        rtol=1e-5,
    )


def test_the_last_batch_is_not_compiled_anew():
    traced = []

    class Counting(keras.layers.Layer):
        def call(self, x):
            traced.append(tuple(x.shape))
            return x

    inputs = keras.Input((9, 7, 3))
    model = keras.Model(inputs, Counting()(inputs))
    traced.clear()
    extract_features(model, IMAGES, batch_size=10)
    once = len(traced)
    extract_features(model, IMAGES, batch_size=10)
    assert len(traced) == once
    assert set(traced) == {(10, 9, 7, 3)}


def test_a_batch_is_read_while_the_encoder_works_on_the_one_before():
    was_asked_for = {first: threading.Event() for first in (0, 2, 4)}

    class Watched(ArraySource):
        def read(self, indices):
            was_asked_for[int(indices[0])].set()
            return super().read(indices)

    calls = iter((2, 4))

    def encoder(images):
        next_one = next(calls, None)
        assert next_one is None or was_asked_for[next_one].wait(30)
        # Memory for one batch more, not for the data set.
        assert next_one != 2 or not was_asked_for[4].is_set()
        return ops.mean(images, axis=(1, 2))

    images = np.arange(6, dtype="uint8").reshape(6, 1, 1, 1)
    features, _ = extract_features(encoder, Watched(images), batch_size=2)
    np.testing.assert_allclose(255 * features[:, 0], np.arange(6), rtol=1e-5)


def test_what_fails_to_be_read_is_raised_as_it_is():
    class Broken(ArraySource):
        def read(self, indices):
            if indices[0] > 0:
                raise OSError("the disk is gone")
            return super().read(indices)

    source = Broken(np.zeros((4, 1, 1, 1), "uint8"))
    with pytest.raises(OSError, match="the disk is gone"):
        extract_features(lambda x: ops.mean(x, axis=(1, 2)), source, batch_size=2)


def test_functions_and_layers_serve_as_encoders():
    expected = (IMAGES / 255.0).mean(axis=(1, 2))
    for encoder in (
        lambda x: x,
        lambda x: x.mean(axis=(1, 2)),
        keras.layers.Identity(),
    ):
        features, labels = extract_features(encoder, IMAGES, batch_size=10)
        np.testing.assert_allclose(features, expected, rtol=1e-5)
        assert labels is None


def test_features_can_be_taken_while_a_model_trains():
    encoder = encoder_model("vector")
    model = keras.Sequential([encoder, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    taken = []
    callback = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: taken.append(extract_features(encoder, IMAGES))
    )
    images = IMAGES / np.float32(255)
    model.fit(images, np.zeros((23, 1)), epochs=3, verbose=0, callbacks=[callback])
    assert len(taken) == 3
    assert not np.allclose(taken[0][0], taken[1][0])
    np.testing.assert_allclose(taken[2][0], extract_features(encoder, IMAGES)[0])


def test_half_precision_features_come_back_as_float32():
    features, _ = extract_features(lambda x: ops.cast(x, "float16"), IMAGES)
    assert features.dtype == np.float32


@pytest.mark.parametrize("output", [lambda x: x[:, 0], lambda x: ops.mean(x)])
def test_an_encoder_of_another_rank_is_refused(output):
    with pytest.raises(ValueError, match="vectors \\(b, d\\) or feature maps"):
        extract_features(output, IMAGES)


@pytest.mark.any_backend
def test_an_encoder_with_several_outputs_is_refused():
    inputs = keras.Input((9, 7, 3))
    model = keras.Model(inputs, [inputs, inputs])
    with pytest.raises(ValueError, match="an encoder that returns list"):
        extract_features(model, IMAGES)


@pytest.mark.any_backend
def test_what_is_no_encoder_is_refused():
    with pytest.raises(ValueError, match="`encoder` must be a Keras model"):
        extract_features("resnet", IMAGES)


# Weighted kNN.


def votes_by_definition(train_x, train_y, test_x, k, temperature, num_classes):
    votes = np.zeros((len(test_x), num_classes))
    for i, test in enumerate(test_x):
        cosines = [
            float(test @ x / np.linalg.norm(test) / np.linalg.norm(x)) for x in train_x
        ]
        for j in sorted(range(len(train_x)), key=lambda j: -cosines[j])[:k]:
            votes[i, train_y[j]] += np.exp(cosines[j] / temperature)
    return votes


@pytest.mark.any_backend
@pytest.mark.parametrize("k", [1, 7, 40])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_votes_agree_with_the_definition(k, temperature):
    train_x, train_y = clusters(40)
    test_x, _ = clusters(9, seed=1)
    train_x, test_x = train_x.astype("float64"), test_x.astype("float64")
    votes = knn_votes(train_x, train_y, test_x, k, temperature, num_classes=6)
    expected = votes_by_definition(train_x, train_y, test_x, k, temperature, 6)
    np.testing.assert_allclose(votes, expected, rtol=1e-12)


@pytest.mark.any_backend
@pytest.mark.parametrize("k", [10, 20, 100, 200])
def test_votes_agree_with_the_reference_implementation(golden, k):
    arrays = golden("knn_easy")
    names = ("train_features", "train_labels", "test_features")
    train_x, train_y, test_x = (arrays[name] for name in names)
    double = knn_votes(train_x.astype("f8"), train_y, test_x.astype("f8"), k, 0.07, 20)
    np.testing.assert_allclose(double, arrays[f"k{k}_votes_f64"], rtol=1e-9)
    # A float32 similarity is right to about 1e-7, which the temperature divides.
    single = knn_votes(train_x, train_y, test_x, k, 0.07, 20)
    np.testing.assert_allclose(single, arrays[f"k{k}_votes_f64"], rtol=2e-5)
    for precision, votes in (("f64", double), ("f32", single)):
        expected = arrays[f"k{k}_pred_{precision}"][:, 0]
        np.testing.assert_array_equal(votes.argmax(axis=1), expected)
    accuracy = knn_accuracy(train_x, train_y, test_x, arrays["test_labels"], k)
    assert accuracy[f"knn_{k}"] == pytest.approx(float(arrays[f"k{k}_top1_f64"]) / 100)


@pytest.mark.any_backend
@pytest.mark.parametrize("columns", [3, 13, 25, 64])
def test_blocks_change_nothing(columns, monkeypatch):
    train_x, train_y = clusters(50)
    test_x, _ = clusters(23, seed=1)
    whole = knn_votes(train_x, train_y, test_x, 5)
    module = sys.modules["keras_kssl.evaluation.knn"]
    monkeypatch.setattr(module, "_ROWS", 4)
    monkeypatch.setattr(module, "_COLUMNS", columns)
    # Products of other shapes may round otherwise in float32.
    np.testing.assert_allclose(knn_votes(train_x, train_y, test_x, 5), whole, rtol=1e-4)


@pytest.mark.any_backend
def test_votes_do_not_change_with_the_length_of_features():
    train_x, train_y = clusters(50)
    test_x, _ = clusters(9, seed=1)
    scaled = knn_votes(train_x * 8.0, train_y, test_x / 4.0, 5)
    np.testing.assert_allclose(
        scaled, knn_votes(train_x, train_y, test_x, 5), rtol=1e-6
    )


@pytest.mark.any_backend
def test_small_temperatures_do_not_overflow_and_rank_as_exact_arithmetic_does():
    train_x, train_y = clusters(50)
    test_x, _ = clusters(30, seed=1)
    nearest = knn_votes(train_x, train_y, test_x, 1).argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for temperature in (1e-3, 1e-5, 1e-30):
            votes = knn_votes(train_x, train_y, test_x, 20, temperature)
            assert np.isfinite(votes).all()
    np.testing.assert_array_equal(votes.argmax(axis=1), nearest)


@pytest.mark.any_backend
def test_both_sides_of_the_overflow_limit_share_their_ratios():
    train_x, train_y = clusters(50)
    above, below = (
        knn_votes(train_x, train_y, train_x[:9] + 0.5, 20, 1.0 / exponent)
        for exponent in (599.9, 600.1)
    )
    ratios = [votes / votes.sum(axis=1, keepdims=True) for votes in (above, below)]
    np.testing.assert_allclose(*ratios, atol=1e-3)


@pytest.mark.any_backend
def test_zero_rows_vote_with_similarity_zero():
    votes = knn_votes(np.zeros((3, 2)), np.array([0, 1, 1]), np.ones((1, 2)), 3)
    assert votes.tolist() == [[1.0, 2.0]]


@pytest.mark.any_backend
def test_raw_pixels_can_be_scored():
    pixels = IMAGES.reshape(23, -1)
    labels = np.arange(23) % 3
    assert knn_accuracy(pixels, labels, pixels, labels, k=1) == {"knn_1": 1.0}


@pytest.mark.any_backend
def test_several_numbers_of_neighbours_score_as_each_alone():
    x, y = clusters(60, spread=3.0)
    test_x, test_y = clusters(200, spread=3.0, seed=1)
    together = knn_accuracy(x, y, test_x, test_y, k=(1, 50, 7), temperature=1.0)
    alone = [knn_accuracy(x, y, test_x, test_y, k, temperature=1.0) for k in (1, 50, 7)]
    assert together == alone[0] | alone[1] | alone[2]
    assert len(set(together.values())) == 3


@pytest.mark.any_backend
def test_numbers_of_neighbours_above_the_training_set_are_left_out():
    x, y = clusters(30)
    assert list(knn_accuracy(x, y, x, y)) == ["knn_10", "knn_20"]
    with pytest.raises(ValueError, match="at most the number of training examples, 30"):
        knn_accuracy(x, y, x, y, k=(31, 32))
    with pytest.raises(ValueError, match="at most the number of training examples, 30"):
        knn_votes(x, y, x, 31)


def test_knn_scores_an_encoder():
    images = np.repeat(IMAGES[:4], 5, axis=0)
    labels = np.repeat([0, 1, 2, 3], 5)
    data = (images, labels)
    assert knn(encoder_model(), data, data, k=(3, 5)) == {"knn_3": 1.0, "knn_5": 1.0}


# Linear probe.


@pytest.mark.any_backend
def test_gradient_agrees_with_the_definition():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(11, 5)), generator.integers(0, 3, 11)
    parameters = generator.normal(size=(2 * 3, 5))
    expected = np.zeros((2, 3, 5))
    for rate in range(2):
        for row, label in zip(x, y, strict=True):
            logits = parameters[3 * rate : 3 * rate + 3] @ row
            probabilities = np.exp(logits) / np.exp(logits).sum()
            for c in range(3):
                expected[rate, c] += (probabilities[c] - (c == label)) * row / 11
    gradient = softmax_gradient(parameters, x, y, 3)
    np.testing.assert_allclose(gradient, expected.reshape(6, 5), rtol=1e-6)


@pytest.mark.any_backend
def test_steps_are_momentum_with_a_cosine():
    x, y = clusters(12, dim=4, classes=3)
    rates, steps = (0.5, 0.1), 7
    weights, biases = train_softmax_regression(x, y, 3, rates, epochs=steps)
    ones = np.concatenate([x, np.ones((12, 1))], axis=1)
    for rate, weight, bias in zip(rates, weights, biases, strict=True):
        parameter, momentum = np.zeros((5, 3)), np.zeros((5, 3))
        for step in range(steps):
            odds = np.exp(ones @ parameter)
            errors = odds / odds.sum(axis=1, keepdims=True) - np.eye(3)[y]
            momentum = 0.9 * momentum + ones.T @ errors / 12
            scale = 0.5 * rate * (1 + np.cos(np.pi * step / steps))
            parameter = parameter - scale * momentum
        np.testing.assert_allclose(weight, parameter[:4].T, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(bias, parameter[4], rtol=1e-4, atol=1e-6)


@pytest.mark.any_backend
def test_every_example_is_used_once_per_epoch():
    seen = []

    def spy(parameters, x, y, num_classes, out):
        seen.append(x[:, 0].astype(int))
        out[:] = 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keras_kssl.evaluation.linear.softmax_gradient", spy)
        x = np.arange(10, dtype="float32")[:, None]
        train_softmax_regression(x, np.zeros(10, int), 1, [0.1], 2, batch_size=4)
    assert [len(rows) for rows in seen] == [4, 4, 2, 4, 4, 2]
    assert sorted(np.concatenate(seen[:3])) == sorted(np.concatenate(seen[3:]))
    assert sorted(np.concatenate(seen[:3])) == list(range(10))
    assert not np.array_equal(np.concatenate(seen[:3]), np.concatenate(seen[3:]))


@pytest.mark.any_backend
def test_rates_trained_side_by_side_equal_rates_trained_alone():
    x, y = clusters(300)
    together = train_softmax_regression(x, y, 5, (0.3, 0.01), epochs=5)
    for index, rate in enumerate((0.3, 0.01)):
        alone = train_softmax_regression(x, y, 5, (rate,), epochs=5)
        for both, one in zip(together, alone, strict=True):
            np.testing.assert_allclose(both[index], one[0], rtol=1e-4, atol=1e-5)


@pytest.mark.any_backend
def test_probe_is_as_good_as_logistic_regression():
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = clusters(1500, spread=1.6)
    test_x, test_y = clusters(1500, spread=1.6, seed=1)
    reference = linear_model.LogisticRegression(max_iter=1000).fit(x, y)
    score = linear_accuracy(x, y, test_x, test_y, epochs=50)
    expected = reference.score(test_x, test_y)
    assert 0.6 < expected < 0.98
    # Four standard errors of the difference would be larger; both see the same data.
    assert score["linear"] == pytest.approx(expected, abs=0.015)


@pytest.mark.any_backend
def test_scale_and_offset_of_features_do_not_matter():
    x, y = clusters(400)
    test_x, test_y = clusters(400, seed=1)
    scale = np.geomspace(1e-3, 1e3, 16).astype("float32")
    plain = linear_accuracy(x, y, test_x, test_y, epochs=10)
    moved = linear_accuracy(
        x * scale + scale, y, test_x * scale + scale, test_y, epochs=10
    )
    assert moved["linear"] == pytest.approx(plain["linear"], abs=0.01)


@pytest.mark.any_backend
def test_constant_features_do_no_harm():
    x, y = clusters(400)
    padded = np.concatenate([x, np.full((400, 1), 0.1, "float32")], axis=1)
    moved = padded.copy()
    moved[:, -1] += np.float32(1e-7)
    score = linear_accuracy(padded, y, moved, y, epochs=10)
    assert score == linear_accuracy(x, y, x, y, epochs=10)


@pytest.mark.any_backend
def test_rate_is_chosen_without_the_test_set():
    x, y = clusters(400, spread=2.0)
    test_x, test_y = clusters(100, seed=1)
    first = linear_accuracy(x, y, test_x, test_y, epochs=5)
    second = linear_accuracy(x, y, test_x, (test_y + 1) % 5, epochs=5)
    assert first["linear"] > second["linear"]
    for key in ("learning_rate", "held_out"):
        assert first[key] == second[key]


@pytest.mark.any_backend
def test_validation_examples_choose_the_rate_and_are_then_learned_from():
    x, y = clusters(300, spread=0.5)
    # On wrong labels a rate that learns next to nothing is best.
    rates, wrong = (1e-6, 0.3), (y + 1) % 5
    options = {"epochs": 5, "learning_rates": rates}
    right = linear_accuracy(x, y, x, y, validation=(x, y), **options)
    assert right["learning_rate"] == 0.3
    assert right["held_out"] == right["linear"] == 1.0
    twice = np.concatenate([x, x]), np.concatenate([y, wrong])
    found = linear_accuracy(x, y, x, y, validation=(x, wrong), **options)
    assert found["learning_rate"] == 1e-6
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    standard = ((twice[0] - mean) / deviation).astype("float32")
    weights, biases = train_softmax_regression(standard, twice[1], 5, [1e-6], epochs=5)
    scores = standard[:300] @ weights[0].T + biases[0]
    assert found["linear"] == pytest.approx(np.mean(scores.argmax(axis=1) == y))
    assert found["linear"] < 1.0
    with pytest.raises(ValueError, match="`validation_x` must have as many features"):
        linear_accuracy(x, y, x, y, validation=(x[:, 1:], y), **options)
    with pytest.raises(ValueError, match="class 5 in the validation set only"):
        linear_accuracy(x, y, x, y, validation=(x, y + 1), **options)


@pytest.mark.any_backend
def test_the_better_rate_is_chosen():
    noisy_x, noisy_y = clusters(400, dim=64, spread=3.0)
    score = linear_accuracy(
        noisy_x, noisy_y, noisy_x, noisy_y, epochs=30, learning_rates=(0.01, 1e6)
    )
    assert score["learning_rate"] == 0.01


@pytest.mark.any_backend
def test_a_seed_gives_the_same_numbers_again():
    x, y = clusters(300, spread=2.0)
    scores = [linear_accuracy(x, y, x, y, seed, epochs=3) for seed in (0, 0, 1)]
    assert scores[0] == scores[1] != scores[2]


def test_linear_probe_scores_an_encoder():
    images = np.repeat(IMAGES[:4], 50, axis=0)
    labels = np.repeat([0, 1, 2, 3], 50)
    data = (images, labels)
    score = linear_probe(encoder_model(), data, data, epochs=20)
    assert score["linear"] == score["held_out"] == 1.0


# What both refuse.


@pytest.mark.any_backend
def test_classes_are_the_same_by_name_in_training_and_test_data():
    """Sources number their classes each on its own."""
    images = np.eye(3, dtype="float32").reshape(3, 1, 1, 3)
    many, labels = np.repeat(images, 8, axis=0), np.repeat([0, 1, 2], 8)
    train = ArraySource(many, labels, class_names=["cat", "dog", "eel"])
    test = ArraySource(images[1:], [0, 1], class_names=["dog", "eel"])
    for protocol in (knn, linear_probe):
        options = {"k": 1} if protocol is knn else {}
        scores = protocol(lambda x: x, train, test, **options)
        assert scores["knn_1" if protocol is knn else "linear"] == 1.0
    other = ArraySource(images[1:], [0, 1], class_names=["dog", "fox"])
    with pytest.raises(ValueError, match=r"knn: .* images of fox\."):
        knn(lambda x: x, train, other)


@pytest.mark.any_backend
@pytest.mark.parametrize("protocol", [knn_accuracy, linear_accuracy])
def test_protocols_refuse_what_they_cannot_judge(protocol):
    x, y = clusters(30)
    broken = x.copy()
    broken[3, 2], broken[5, 1] = np.nan, np.inf
    cases = [
        ((broken, y, x, y), ValueError, "`train_x` must be finite.*2 of 30 rows"),
        ((x, y, broken, y), ValueError, "`test_x` must be finite"),
        ((x, None, x, y), ValueError, "`train_y` must be labels.*None"),
        ((x, y, x, None), ValueError, "`test_y` must be labels.*None"),
        ((x, y[:9], x, y), ValueError, "one label for each of the 30 rows"),
        ((x, y, x, y[:9]), ValueError, "`test_y` must have one label"),
        ((x, y.astype(float), x, y), TypeError, "`train_y` must be integers"),
        ((x, y - 1, x, y - 1), ValueError, "`train_y` must be known, at least 0"),
        ((x, y % 2, x, y % 3), ValueError, "class 2 in the test set only"),
        ((x, y, x[:, :4], y), ValueError, "as many features.*16 and 4"),
        ((IMAGES, y[:23], x, y), ValueError, "2 axes"),
        ((x[:0], y[:0], x, y), ValueError, "train"),
    ]
    for arguments, error, words in cases:
        with pytest.raises(error, match=words):
            protocol(*arguments)


@pytest.mark.any_backend
@pytest.mark.parametrize("protocol", [knn, linear_probe])
def test_unlabelled_data_is_refused_before_the_encoder_runs(protocol):
    def encoder(images):
        raise AssertionError("ran")

    labelled = (IMAGES, np.zeros(23, int))
    with pytest.raises(ValueError, match="`test` must have labels"):
        protocol(encoder, labelled, IMAGES)
    with pytest.raises(ValueError, match="`train` must have labels"):
        protocol(encoder, IMAGES, labelled)


@pytest.mark.any_backend
@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_must_be_positive(temperature):
    x, y = clusters(30)
    with pytest.raises(ValueError, match="`temperature` must be"):
        knn_votes(x, y, x, 3, temperature)


@pytest.mark.any_backend
def test_too_few_columns_for_the_labels_are_refused():
    x, y = clusters(30)
    with pytest.raises(ValueError, match=r"`num_classes` must be .* at least 5"):
        knn_votes(x, y, x, 3, num_classes=4)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"epochs": 0}, "`epochs`"),
        ({"seed": -1}, "`seed`"),
        ({"learning_rates": ()}, "`learning_rates` must be at least one"),
        ({"learning_rates": (0.0,)}, "`learning_rates`"),
    ],
)
def test_impossible_training_is_refused(arguments, words):
    x, y = clusters(30)
    with pytest.raises(ValueError, match=words):
        linear_accuracy(x, y, x, y, **arguments)


@pytest.mark.any_backend
def test_too_few_examples_to_hold_any_out_are_refused():
    x, y = clusters(9)
    with pytest.raises(ValueError, match="at least 10 examples"):
        linear_accuracy(x, y, x, y)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="replicas of tf.distribute"
)
def test_two_replicas_share_each_batch_and_give_every_feature_once_and_in_order():
    code = """
import numpy as np, tensorflow as tf
two = [tf.config.LogicalDeviceConfiguration()] * 2
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, two)
import keras
from keras_kssl.evaluation import extract_features

rows = []

class Rows(keras.layers.Layer):
    def call(self, images):
        tf.py_function(lambda x: rows.append(len(x)), [images], [])
        return keras.ops.mean(images, axis=(1, 2))

images = np.arange(13 * 12).reshape(13, 2, 2, 3).astype("float32") / 156
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    encoder = keras.Sequential([keras.Input((2, 2, 3)), Rows()])
for batch_size in (1, 2, 7, 256):
    rows.clear()
    features, _ = extract_features(encoder, images, batch_size)
    np.testing.assert_allclose(features, images.mean(axis=(1, 2)), rtol=1e-6)
    per_replica = -(-min(batch_size, 13) // 2)
    assert set(rows) == {per_replica}, rows
"""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
