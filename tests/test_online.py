"""Judgements while training goes on: what they find, when, and what stays as it is."""

import csv
import random

import keras
import numpy as np
import pytest
from keras import layers

from keras_kssl import augment, callbacks, data, evaluation, models, objectives
from keras_kssl.callbacks import OnlineKNN, OnlineProbe

QUICK = {"jit_compile": keras.backend.backend() == "jax"}
NAMES = ["ant", "bee", "cat"]


def labelled(count, seed=0, names=NAMES):
    """Images in three colours, with noise, and their classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    colours = 0.3 * np.eye(3)[labels] * rng.uniform(0.3, 1.0, (count, 1))
    images = rng.uniform(0.0, 0.7, (count, 8, 8, 3)) + colours[:, None, None]
    numbers = np.array([names.index(NAMES[label]) for label in labels])
    return data.ArraySource(images.astype("float32"), numbers, class_names=names)


TRAIN, TEST = labelled(30), labelled(21, seed=1)


def classifier():
    """Any Keras model that learns: its outputs are what is judged."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Flatten(),
            layers.Dense(4, kernel_initializer=keras.initializers.GlorotUniform(0)),
        ]
    )
    model.compile(keras.optimizers.SGD(0.02), "mse", **QUICK)
    return model


def fit(model, kept, epochs=3, **options):
    images = labelled(32, seed=2).read(np.arange(32))[0]
    targets = np.random.default_rng(3).normal(size=(32, 4))
    options = {"batch_size": 8, "verbose": 0, "shuffle": False, **options}
    return model.fit(images, targets, epochs=epochs, callbacks=kept, **options)


def nearest(train_x, train_y, test_x, test_y):
    """Accuracy of the nearest neighbour by cosine."""
    train_x, test_x = (
        x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train_x, test_x)
    )
    return np.mean(train_y[(test_x @ train_x.T).argmax(axis=1)] == test_y)


class Expect(keras.callbacks.Callback):
    """What the encoder of a model should be judged by, before it is."""

    def __init__(self, encoder_of):
        super().__init__()
        self.encoder_of = encoder_of
        self.features, self.values = [], []

    def on_epoch_end(self, epoch, logs=None):
        encoder = self.encoder_of(self.model)
        train_x, test_x = infer(encoder, TRAIN), infer(encoder, TEST)
        self.features.append(test_x)
        self.values.append(nearest(train_x, TRAIN.labels, test_x, TEST.labels))


def test_knn_of_any_model_is_in_the_history_of_each_epoch():
    expected = Expect(lambda model: model)
    fitted = fit(classifier(), [expected, OnlineKNN(TRAIN, TEST, k=1, batch_size=7)])
    found = fitted.history["val_knn_1"]
    assert found == pytest.approx(expected.values, abs=1e-6)
    assert len(set(found)) > 1
    assert not np.allclose(expected.features[0], expected.features[1])


def test_probe_is_the_linear_accuracy_of_the_features():
    model = classifier()
    fitted = fit(model, [OnlineProbe(TRAIN, TEST, probe_epochs=7, seed=5)], epochs=1)
    features = evaluation.extract_features(model, TRAIN)
    features += evaluation.extract_features(model, TEST)
    expected = evaluation.linear_accuracy(*features, seed=5, epochs=7)["linear"]
    assert fitted.history["val_linear"] == [expected]
    assert 0.4 < expected < 1.0


def test_several_k_and_both_judges_stand_side_by_side():
    kept = [OnlineKNN(TRAIN, TEST, k=(1, 5)), OnlineProbe(TRAIN, TEST, probe_epochs=2)]
    history = fit(classifier(), kept, epochs=1).history
    assert {"val_knn_1", "val_knn_5", "val_linear"} <= set(history)


def test_epochs_between_judgements_hold_nan_and_the_last_one_is_judged(tmp_path):
    path = tmp_path / "metrics.csv"
    kept = [OnlineKNN(TRAIN, TEST, k=1, every=2), keras.callbacks.CSVLogger(path)]
    history = fit(classifier(), kept, epochs=5).history["val_knn_1"]
    assert np.isnan(history).tolist() == [True, False, True, False, False]
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["val_knn_1"] == "nan" for row in rows] == np.isnan(history).tolist()
    assert set(rows[0]) == {"epoch", "loss", "val_knn_1"}


def test_the_end_of_one_fit_of_several_is_no_end_of_training():
    judge = OnlineKNN(TRAIN, TEST, k=1, every=3, total_epochs=4)
    model = classifier()
    first = fit(model, [judge], epochs=2).history["val_knn_1"]
    then = fit(model, [judge], epochs=4, initial_epoch=2).history["val_knn_1"]
    assert np.isnan(first + then).tolist() == [True, True, False, False]


def test_classes_are_matched_by_name():
    test = labelled(21, seed=1, names=NAMES[::-1])
    assert not np.array_equal(test.labels, TEST.labels)
    found = [
        fit(classifier(), [OnlineKNN(TRAIN, one, k=1)], epochs=1).history["val_knn_1"]
        for one in (TEST, test)
    ]
    assert found[0] == found[1]
    assert found[0][0] > 0.5


def test_a_given_encoder_is_judged():
    def pixels(images):
        return images.reshape(len(images), -1)

    fitted = fit(classifier(), [OnlineKNN(TRAIN, TEST, k=1, encoder=pixels)], epochs=1)
    images = [pixels(s.read(np.arange(len(s)))[0]) for s in (TRAIN, TEST)]
    expected = nearest(images[0], TRAIN.labels, images[1], TEST.labels)
    assert fitted.history["val_knn_1"] == [pytest.approx(expected)]


def make_ssl(average_decay=0.9):
    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, kernel_initializer=keras.initializers.HeNormal(0))(images)
    x = layers.BatchNormalization(momentum=0.5)(x)
    x = layers.Dropout(0.2, seed=4)(layers.Activation("relu")(x))
    # No seed: layers that are copied draw one.
    x = layers.Conv2D(8, 3, strides=2)(x)
    encoder = keras.Model(images, layers.GlobalAveragePooling2D()(x))
    weights = np.random.default_rng(0)
    encoder.set_weights(
        [weights.uniform(-0.5, 1.0, w.shape).astype(w.dtype) for w in encoder.weights]
    )
    options = {"estimator": "random_features", "num_features": 16, "seed": 1}
    heads = [
        models.MLPHead((16,), 8, normalize_output=True, seed=seed) for seed in (2, 3)
    ]
    model = models.SSLHSIC(
        encoder,
        # No colours: they take longest to compile.
        augment=augment.Policy([augment.View(8, flip=0.5)] * 2),
        objective=objectives.HSIC(**options),
        projector=heads[0],
        predictor=heads[1],
        average_decay=average_decay,
        target_decay=0.9,
        seed=5,
    )
    model.compile(keras.optimizers.Adam(0.05), **QUICK)
    return model


def pretrain(model, kept):
    batches = data.load(labelled(32, seed=2), 8, seed=0)
    return model.fit(batches, epochs=3, verbose=0, callbacks=kept)


def infer(encoder, source):
    """Features by operations that are not compiled, which would take longer."""
    images = source.read(np.arange(len(source)))[0]
    return keras.ops.convert_to_numpy(encoder(images, training=False))


@pytest.mark.parametrize(
    "average_decay", [0.9, pytest.param(None, marks=pytest.mark.any_backend)]
)
def test_averaged_encoders_are_judged_as_they_are_at_each_epoch(average_decay):
    expected = Expect(lambda model: model.averaged_encoder())
    plain = Expect(lambda model: model.encoder)
    kept = [expected, plain, OnlineKNN(TRAIN, TEST, k=1)]
    found = pretrain(make_ssl(average_decay), kept).history["val_knn_1"]
    assert found == pytest.approx(expected.values, abs=1e-6)
    is_same = np.allclose(expected.features[-1], plain.features[-1], atol=1e-4)
    assert is_same == (average_decay is None)


def test_the_encoder_of_other_models_is_judged():
    model = classifier()
    model.encoder = keras.Model(model.inputs, model.layers[0].output)
    fitted = fit(model, [OnlineKNN(TRAIN, TEST, k=1)], epochs=1)
    pixels = [s.read(np.arange(len(s)))[0].reshape(len(s), -1) for s in (TRAIN, TEST)]
    expected = nearest(pixels[0], TRAIN.labels, pixels[1], TEST.labels)
    assert fitted.history["val_knn_1"] == [pytest.approx(expected)]


@pytest.mark.slow
def test_training_goes_on_as_if_it_had_not_been_judged():
    results = []
    for kept in ([], [OnlineKNN(TRAIN, TEST, k=1), OnlineProbe(TRAIN, TEST)]):
        random.seed(7)
        model = make_ssl()
        history = pretrain(model, kept).history
        arrays = [keras.ops.convert_to_numpy(v) for v in model.variables]
        results.append((arrays, history["loss"], random.random()))
    for a, b in zip(results[0][0], results[1][0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert results[0][1:] == results[1][1:]


@pytest.mark.any_backend
def test_a_judge_in_half_an_epoch_more_costs_no_compilation_more(monkeypatch):
    """The first copy of the encoder is kept, and gets the weights of the later ones."""
    made = []
    usual = models.SSLHSIC.averaged_encoder
    monkeypatch.setattr(
        models.SSLHSIC,
        "averaged_encoder",
        lambda self: made.append(usual(self)) or made[-1],
    )
    judge = OnlineKNN(TRAIN, TEST, k=1)
    pretrain(make_ssl(), [judge])
    assert len(made) == 3
    assert judge._current_encoder() is made[0]
    compiled = [one.predict_function is not None for one in made[:3]]
    assert compiled == [True, False, False]


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train": TRAIN.read(np.arange(30))[0]}, "`train` must have labels"),
        ({"test": TEST.read(np.arange(21))[0]}, "`test` must have labels"),
        ({"k": 31}, "`k` must be an integer between 1 and 30"),
        ({"k": ()}, "`k` must be one number or several"),
        ({"every": 0}, "`every` must be"),
        ({"batch_size": 0}, "`batch_size` must be"),
        ({"encoder": "resnet"}, "`encoder` must be"),
        (
            {"test": (np.zeros((2, 8, 8, 3), "float32"), np.array([0, -1]))},
            "`test` must be known",
        ),
        (
            {"test": (np.zeros((2, 8, 8, 3), "float32"), np.array([0, 3]))},
            "class 3 in the test set only",
        ),
    ],
)
def test_wrong_input_is_refused_before_training(options, words):
    with pytest.raises(ValueError, match=f"OnlineKNN: .*{words}"):
        OnlineKNN(**{"train": TRAIN, "test": TEST, **options})


@pytest.mark.any_backend
def test_a_probe_wants_ten_images():
    with pytest.raises(ValueError, match="`train` must be at least 10 labelled images"):
        OnlineProbe(TRAIN.take(9), TEST)


def test_progress_shows_what_was_judged():
    lines = []
    kept = [
        OnlineKNN(TRAIN, TEST, k=1, every=2),
        callbacks.ProgressBar(8, metrics=("val_knn_1",), say=lines.append),
    ]
    value = fit(classifier(), kept, epochs=2).history["val_knn_1"][1]
    assert "knn" not in lines[0]
    assert f"val knn 1 {value:.3f}" in lines[1]
