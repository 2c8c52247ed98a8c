"""Protocols: what they choose, train and count, against other implementations."""

import keras
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score

from keras_kssl import augment, data, evaluation, models
from keras_kssl.evaluation import dense, logistic
from keras_kssl.evaluation.classifier import Classifier, CosinePerEpoch
from keras_kssl.evaluation.metrics import score_predictions
from keras_kssl.evaluation.protocols import describe_result
from keras_kssl.evaluation.subsets import balanced_subset, listed_subset, split_off
from keras_kssl.evaluation.task import Task
from tests.photos import encoded, picture, write_folder
from tests.shapes import shapes

CLASSES = 3


def clusters(count, seed, width=6, distance=1.5):
    """Features about three centres, and their classes."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(CLASSES, width))
    labels = generator.integers(0, CLASSES, count)
    noise = generator.normal(size=(count, width))
    return (distance * centres[labels] + noise).astype(np.float32), labels


def images_of(count, seed, size=8):
    """Images of three classes, bright in another channel each."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    images = generator.uniform(0, 120, (count, size, size, 3))
    images[np.arange(count), :, :, labels] += 60
    return data.ArraySource(images.astype(np.uint8), labels)


def small_encoder(seed=0):
    return models.ResNet(10, width=0.125, stem="cifar", seed=seed)


def tiny_encoder():
    """Traced at once, and still with weights and statistics to fine-tune."""
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(
                8, 3, kernel_initializer=keras.initializers.HeNormal(0)
            ),
            keras.layers.BatchNormalization(),
            keras.layers.Activation("relu"),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )


def linear_encoder(width=4, size=2):
    """Flattens and multiplies; without augmentation all can be done by hand."""
    return keras.Sequential(
        [
            keras.Input((size, size, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(width, use_bias=False),
        ]
    )


# What is counted.


def test_mean_per_class_is_the_macro_recall():
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(60, 4))
    labels = generator.choice(4, 60, p=(0.6, 0.2, 0.2, 0.0))
    expected = recall_score(
        labels, scores.argmax(axis=1), average="macro", labels=[0, 1, 2]
    )
    found = score_predictions(scores, labels, "mean_per_class")
    assert found == pytest.approx(expected, rel=1e-12)


def average_precision_by_hand(scores, is_positive):
    ranked = [
        positive
        for _, positive in sorted(
            zip(scores, is_positive, strict=True), key=lambda pair: -pair[0]
        )
    ]
    points = []
    for i in range(11):
        best = 0.0
        for rank in range(1, len(ranked) + 1):
            found = sum(ranked[:rank])
            if 10 * found >= i * sum(ranked):
                best = max(best, found / rank)
        points.append(best)
    return sum(points) / 11


@pytest.mark.parametrize("seed", range(5))
def test_mean_average_precision_is_that_of_the_definition(seed):
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, 40))
    scores = np.stack([generator.permutation(count).astype(float)] * 2, axis=1)
    labels = (generator.random((count, 2)) < 0.3).astype(int)
    labels[0] = 1
    expected = [average_precision_by_hand(scores[:, c], labels[:, c]) for c in (0, 1)]
    found = score_predictions(scores, labels, "map_11")
    assert found == pytest.approx(np.mean(expected), rel=1e-12)


def test_mean_average_precision_leaves_out_difficult_images_and_empty_classes():
    scores = np.array([[0.9, 0.1, 0.3], [0.8, 0.7, 0.2], [0.1, 0.9, 0.9]])
    labels = np.array([[-1, 0, 0], [1, 1, 0], [0, 0, 0]])
    # Class 0: first of two; class 1: second of three; class 2: no positive.
    expected = (1.0 + 0.5) / 2
    assert score_predictions(scores, labels, "map_11") == pytest.approx(expected, 1e-12)


# Parts of a set.


def test_a_part_has_as_many_of_each_class_and_lies_in_larger_ones():
    labels = np.random.default_rng(0).choice(5, 400, p=(0.4, 0.3, 0.2, 0.08, 0.02))
    labels[::50] = -1
    small, large = (balanced_subset(labels, fraction=f) for f in (0.05, 0.2))
    assert set(small) < set(large)
    assert np.bincount(labels[small]).tolist() == [4] * 5
    wanted = round(0.2 * np.sum(labels >= 0) / 5)
    available = np.bincount(labels[labels >= 0])
    assert np.bincount(labels[large]).tolist() == np.minimum(available, wanted).tolist()
    assert (np.diff(large) > 0).all()
    assert not np.array_equal(small, balanced_subset(labels, fraction=0.05, seed=1))


def test_what_is_drawn_never_changes():
    labels = np.arange(40) % 2
    assert balanced_subset(labels, per_class=2, seed=0).tolist() == DRAWN


DRAWN = [0, 16, 27, 31]


def test_a_list_names_files_with_or_without_their_folders(tmp_path):
    photo = encoded(picture(16, 16, 0))
    names = ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/3.jpg")
    write_folder(tmp_path / "photos", dict.fromkeys(names, photo))
    source = data.open_source(f"folder:{tmp_path / 'photos'}")
    path = tmp_path / "list.txt"
    path.write_text("3.jpg\n\ncat/1.jpg\n")
    assert listed_subset(source, path).tolist() == [0, 3]
    for text in ("1.jpg\n", "9.jpg\n", ""):
        path.write_text(text)
        with pytest.raises(ValueError, match="listed_subset: `path` must be a list"):
            listed_subset(source, path)
    with pytest.raises(ValueError, match="`source` must be a source of files"):
        listed_subset(images_of(6, 0), path)


# Logistic regression.


def test_logistic_regression_is_scikit_learns():
    (x, y), (test_x, test_y) = clusters(120, 1), clusters(90, 2)
    strengths = (1e-3, 0.1, 10.0, 1e3)
    found = logistic.logistic_accuracy(x, y, test_x, test_y, strengths=strengths)
    kept, held_out = split_off("test", len(x), 0.1, 0)

    def accuracy(strength, rows, on_x, on_y):
        model = LogisticRegression(C=1 / strength, max_iter=5000, tol=1e-8)
        return model.fit(x[rows], y[rows]).score(on_x, on_y)

    scores = [accuracy(s, kept, x[held_out], y[held_out]) for s in strengths]
    best = max(range(4), key=lambda i: (scores[i], strengths[i]))
    assert found["strength"] == strengths[best]
    assert found["held_out"] == pytest.approx(scores[best], rel=1e-12)
    everything = np.arange(len(x))
    expected = accuracy(strengths[best], everything, test_x, test_y)
    assert found["logreg"] == pytest.approx(expected, rel=1e-12)
    assert found["not_converged"] == 0


def test_validation_images_choose_where_they_are_given_and_are_then_learned_from():
    (x, y), (test_x, test_y) = clusters(60, 4), clusters(60, 5)
    # On wrong labels the strongest regularisation, which says least, is best.
    wrong = x, (y + 1) % CLASSES
    found = logistic.logistic_accuracy(
        x, y, test_x, test_y, validation=wrong, strengths=(1e-4, 1e5)
    )
    assert found["strength"] == 1e5
    both = LogisticRegression(C=1e-5, max_iter=5000)
    both.fit(np.concatenate([x, x]), np.concatenate([y, wrong[1]]))
    assert found["logreg"] == pytest.approx(both.score(test_x, test_y), abs=1e-12)


def test_images_of_several_classes_get_a_regression_for_each():
    (x, y), (test_x, test_y) = clusters(90, 6), clusters(60, 7)
    many, test_many = np.eye(CLASSES, dtype=int)[y], np.eye(CLASSES, dtype=int)[test_y]
    many[::10, 0] = -1
    found = logistic.logistic_accuracy(
        x, many, test_x, test_many, strengths=(1.0,), metric="map_11"
    )
    expected = []
    for c in range(CLASSES):
        rows = many[:, c] >= 0
        model = LogisticRegression(max_iter=5000).fit(x[rows], many[rows, c])
        scores = model.decision_function(test_x)
        expected.append(average_precision_by_hand(scores, test_many[:, c]))
    assert found["logreg"] == pytest.approx(np.mean(expected), abs=1e-6)
    with pytest.raises(ValueError, match="map_11"):
        logistic.logistic_accuracy(x, many, test_x, test_many)


def test_few_shots_are_drawn_per_class_and_more_of_them_help():
    (x, y), (test_x, test_y) = clusters(200, 8), clusters(300, 9)
    found = evaluation.few_shot_accuracy(
        x, y, test_x, test_y, shots=(1, 20, 500), draws=10
    )
    assert list(found) == ["few_shot_1", "few_shot_20"]
    assert np.mean(found["few_shot_20"]) > np.mean(found["few_shot_1"]) + 0.1
    assert len(set(found["few_shot_1"])) > 1
    again = evaluation.few_shot_accuracy(x, y, test_x, test_y, shots=1, draws=3)
    assert again["few_shot_1"] == found["few_shot_1"][:3]
    with pytest.raises(ValueError, match="`shots` must be at most"):
        evaluation.few_shot_accuracy(x, y, test_x, test_y, shots=500)


# Classifiers that are trained.


def by_hand(kernel, encoder_kernel, source, steps, size, rates, decay, shape, nesterov):
    """SGD with momentum on a linear encoder and a softmax classifier, in float64."""
    rate, encoder_rate = rates
    parameters = [np.asarray(p, np.float64) for p in (encoder_kernel, kernel)]
    bias = np.zeros(kernel.shape[1])
    parameters.append(bias)
    momentum = [np.zeros_like(p) for p in parameters]
    batches = data.Batches(source, size, seed=0)
    for step in range(steps):
        images, labels = batches.at(step)
        x = images.reshape(len(images), -1) / 255.0
        w, v, b = parameters
        logits = x @ w @ v + b
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        p[np.arange(len(p)), labels] -= 1
        p /= len(p)
        gradients = [x.T @ p @ v.T, (x @ w).T @ p, p.sum(axis=0)]
        for i, (g, eta) in enumerate(
            zip(gradients, (encoder_rate, rate, rate), strict=True)
        ):
            g = g + decay * parameters[i]
            momentum[i] = 0.9 * momentum[i] + g
            move = g + 0.9 * momentum[i] if nesterov else momentum[i]
            parameters[i] = parameters[i] - eta * shape(step) * move
    return parameters


@pytest.mark.parametrize("nesterov", [False, True])
def test_fine_tuning_is_gradient_descent_with_two_rates_and_decay(nesterov):
    source, encoder = images_of(24, 0, size=2), linear_encoder()
    start = encoder.get_weights()[0]
    options = {"rates": (0.5,), "encoder_rate": 0.1, "weight_decay": 0.01}
    classifier = Classifier(encoder, (2, 2, 3), CLASSES, **options)
    # As the float images that a policy would hand on.
    floats = data.ArraySource((source.images / 255.0).astype("float32"), source.labels)
    classifier.train(floats, 8, 12, CosinePerEpoch(3, 4), nesterov=nesterov)
    w, v, b = by_hand(
        np.zeros((4, CLASSES)),
        start,
        source,
        12,
        8,
        (0.5, 0.1),
        0.01,
        lambda step: (1 + np.cos(np.pi * (step // 3) / 4)) / 2,
        nesterov,
    )
    (found,) = classifier.encoder.get_weights()
    np.testing.assert_allclose(found, w, rtol=1e-4, atol=1e-6)
    kernels, biases = map(
        keras.ops.convert_to_numpy, (classifier.kernels, classifier.biases)
    )
    np.testing.assert_allclose(kernels[0].T, v, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(biases[0], b, rtol=1e-4, atol=1e-6)
    # The user's encoder is another one.
    np.testing.assert_array_equal(encoder.get_weights()[0], start)


def test_classifiers_side_by_side_are_each_as_if_alone():
    source, encoder = images_of(40, 1), small_encoder()
    policy = augment.crop_flip(8, crop_scale=(0.5, 1.0))

    def train(rates):
        options = {"weight_decay": 1e-3, "augment": policy, "seed": 3}
        classifier = Classifier(encoder, (8, 8, 3), CLASSES, rates=rates, **options)
        classifier.train(source, 10, 8, 1.0)
        return keras.ops.convert_to_numpy(classifier.kernels)

    rates = (0.01, 0.3, 1.0)
    together = train(rates)
    for kernel, rate in zip(together, rates, strict=True):
        np.testing.assert_allclose(kernel, train((rate,))[0], rtol=1e-4, atol=1e-6)


def test_restarted_training_is_that_of_a_new_classifier():
    source, encoder = images_of(30, 2), small_encoder()
    policy = augment.crop_flip(8)

    def made(rate, decay, seed):
        options = {"rates": (rate,), "encoder_rate": rate, "weight_decay": decay}
        return Classifier(
            encoder, (8, 8, 3), CLASSES, **options, augment=policy, seed=seed
        )

    classifier = made(1.0, 0.0, 0)
    for rate, decay, seed in ((0.3, 1e-2, 5), (0.1, 0.0, 6)):
        classifier.restart(encoder, rate, rate, decay, seed)
        classifier.train(source, 10, 4, 1.0)
    fresh = made(0.1, 0.0, 6)
    fresh.train(source, 10, 4, 1.0)
    for found, expected in zip(
        classifier.get_weights(), fresh.get_weights(), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_frozen_encoder_and_its_statistics_stay():
    source, encoder = images_of(30, 3), small_encoder()
    classifier = Classifier(encoder, (8, 8, 3), CLASSES, augment=augment.crop_flip(8))
    classifier.train(source, 10, 3, 1.0)
    for found, expected in zip(
        classifier.encoder.get_weights(), encoder.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    tuned = Classifier(encoder, (8, 8, 3), CLASSES, encoder_rate=0.1)
    floats = data.ArraySource((source.images / 255.0).astype("float32"), source.labels)
    tuned.train(floats, 10, 3, 1.0)
    moved = [
        not np.array_equal(a, b)
        for a, b in zip(tuned.encoder.get_weights(), encoder.get_weights(), strict=True)
    ]
    # All but gammas behind which everything is multiplied by zero at first.
    assert np.mean(moved) > 0.9


# By name.


@pytest.fixture(scope="module")
def judged():
    """Results of all protocols on an easy set, with small settings."""
    changes = {
        "knn": {"k": 5},
        "linear": {"epochs": 5},
        "linear-sfrik": {"epochs": 6, "batch_size": 30},
        "linear-hsic": {"epochs": 6, "batch_size": 30, "base_learning_rate": 5.0},
        "logreg": {"strengths": (0.01, 1.0)},
        "few-shot": {"draws": 3, "shots": 30},
        "finetune-1": {"fraction": 0.2, "epochs": 10, "batch_size": 12},
        "finetune-10": {"epochs": 10, "batch_size": 6},
        "finetune-100": {
            "steps": 30,
            "batch_size": 30,
            "learning_rates": (0.001, 0.05),
            "weight_decays": 0.0,
        },
    }
    lines = []
    results = evaluation.evaluate(
        tiny_encoder(),
        images_of(120, 4),
        images_of(60, 5),
        list(changes),
        seeds=(0, 1),
        changes=changes,
        batch_size=32,
        say=lines.append,
    )
    return results, lines, changes


def test_every_protocol_finds_what_is_easy_to_find(judged):
    results, lines, changes = judged
    of_classes = [n for n, p in evaluation.PROTOCOLS.items() if not p.is_dense]
    assert [result["protocol"] for result in results] == of_classes
    for result, line in zip(results, lines, strict=True):
        assert result["scores"], result
        for name, score in result["scores"].items():
            assert score["mean"] > 0.6, (name, score)
            assert score["mean"] == pytest.approx(np.mean(score["values"]))
            assert name in line
        assert line == describe_result(result)
        assert result["changed"] == sorted(changes[result["protocol"]])
        is_random = result["protocol"] != "knn"
        assert result["seeds"] == ([0, 1] if is_random else [])
        assert "(changed)" in line


def test_scores_have_a_value_for_each_seed_and_their_deviation(judged):
    results = {result["protocol"]: result for result in judged[0]}
    (score,) = results["linear"]["scores"].values()
    assert len(score["values"]) == 2
    assert score["std"] == pytest.approx(np.std(score["values"], ddof=1))
    (draws,) = results["few-shot"]["scores"].values()
    assert len(draws["values"]) == 6
    assert results["finetune-10"]["chosen"]["images"] == [12, 12]
    assert set(results["finetune-100"]["chosen"]) == {
        "held_out",
        "learning_rate",
        "weight_decay",
    }


def test_the_winner_of_a_sweep_is_the_probe_trained_alone():
    (x, y), (test_x, test_y) = clusters(150, 10), clusters(80, 11)
    swept = evaluation.linear_accuracy(x, y, test_x, test_y, epochs=5)
    alone = evaluation.linear_accuracy(
        x, y, test_x, test_y, epochs=5, learning_rates=(swept["learning_rate"],)
    )
    assert alone == swept


def test_pinned_settings_are_the_papers():
    settings = {name: p.settings for name, p in evaluation.PROTOCOLS.items()}
    assert settings["knn"] == {"k": (10, 20, 100, 200), "temperature": 0.07}
    strengths = settings["logreg"]["strengths"]
    assert len(strengths) == 45
    np.testing.assert_allclose((strengths[0], strengths[-1]), (1e-6, 1e5))
    ratios = np.divide(strengths[1:], strengths[:-1])
    np.testing.assert_allclose(ratios, ratios[0])
    grid = settings["finetune-100"]
    assert len(grid["learning_rates"]) * len(grid["weight_decays"]) == 7 * 8
    assert settings["linear-sfrik"]["learning_rate"] == 0.4
    for name, rates in (("finetune-1", (0.004, 1.0)), ("finetune-10", (0.02, 0.1))):
        found = settings[name]
        found = (found["encoder_learning_rate"], found["head_learning_rate"])
        assert found == rates


def few(count, labels):
    images = np.zeros((count, 8, 8, 3), "uint8")
    return data.ArraySource(images, labels)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"protocols": ["knm"]}, r"`protocols` must be one of .* Did you mean 'knn'"),
        ({"protocols": []}, "`protocols` must be one or more"),
        ({"protocols": ["knn", "depth"]}, "either of classification or dense"),
        ({"train": few(4, None)}, "`train` must have labels"),
        ({"test": few(4, None)}, "`test` must have labels"),
        ({"test": few(2, [0, 7])}, "class 7 in the test set only"),
        ({"train": few(3, [0, 1, -1])}, "1 are not known"),
        ({"metric": "top_5"}, "`metric` must be one of"),
        ({"changes": {"linear": {"epochs": 3}}}, "`changes` must be one of 'knn'"),
        ({"changes": {"knn": {"kk": 3}}}, "`setting` must be one of"),
        ({"changes": {"knn": {"k": 500}}}, "`k` must be at most the number"),
        ({"seeds": ()}, "`seeds` must be one or more"),
        (
            {"train": data.ArraySource(np.zeros((3, 4, 9, 3)), [0, 1, 2])},
            "square images",
        ),
    ],
)
def test_wrong_input_ends_in_one_sentence(arguments, words):
    usual = {
        "encoder": small_encoder(),
        "train": few(6, [0, 1, 2, 0, 1, 2]),
        "test": few(3, [0, 1, 2]),
        "protocols": ["knn"],
    }
    with pytest.raises(ValueError, match=words):
        evaluation.evaluate(**{**usual, **arguments}, say=lambda line: None)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("protocol", "setting", "value", "words"),
    [
        ("knn", "temperature", "hot", "a number. Received: temperature='hot'"),
        ("knn", "k", 1.5, "an integer"),
        ("knn", "k", (), "one or more"),
        ("linear", "learning_rates", (0.1, "b"), "a number. Received: learning_rates"),
        ("linear", "learning_rates", -0.1, "at least 0"),
        ("linear", "epochs", 0, "at least 1"),
        ("few-shot", "shots", (1, 0), "at least 1"),
        ("finetune-100", "weight_decays", True, "a number"),
        ("depth", "frozen", 1, "true or false"),
        ("depth", "size", (240, -320), "at least 1"),
    ],
)
def test_settings_are_checked_before_images_are_looked_at(
    protocol, setting, value, words
):
    with pytest.raises((TypeError, ValueError), match=words) as caught:
        evaluation.evaluate(
            None, None, None, [protocol], changes={protocol: {setting: value}}
        )
    assert f"`{setting}` must be" in str(caught.value)


@pytest.mark.any_backend
def test_several_values_may_be_one():
    train = few(30, [0, 1, 2] * 10)
    changes = {
        "knn": {"k": 3},
        "linear": {"learning_rates": 0.1, "epochs": 2},
        "logreg": {"strengths": 1.0},
        "few-shot": {"shots": 2, "draws": 2},
    }
    results = evaluation.evaluate(
        small_encoder(), train, train, list(changes), seeds=0, changes=changes
    )
    assert [result["changed"] for result in results] == [
        sorted(settings) for settings in changes.values()
    ]
    assert results[1]["chosen"]["learning_rate"] == [0.1]


def test_features_are_extracted_once_and_labels_matched_by_name():
    calls = []

    class Counting(keras.Model):
        def call(self, images):
            return keras.ops.mean(images, axis=(1, 2))

        def predict_on_batch(self, x):
            calls.append(len(x))
            return super().predict_on_batch(x)

    train = images_of(6, 0)
    train.class_names = ["ant", "bee", "cow"]
    test = data.ArraySource(train.images[:2], [1, 0], class_names=["bee", "ant"])
    task = Task(Counting(), train, test)
    for _ in range(3):
        _, train_y, _, test_y = task.features()
    assert len(calls) == 2
    assert train_y.tolist() == [0, 1, 2, 0, 1, 2]
    assert test_y.tolist() == [0, 1]


@pytest.mark.any_backend
def test_dense_tasks_are_protocols_too(capsys):
    images, masks, _, _ = shapes(8)
    train = dense.DenseSet("segmentation", images, masks)
    changes = {"epochs": 1, "batch_size": 4, "size": 32, "frozen": True}
    (result,) = evaluation.evaluate(
        small_encoder(),
        train,
        train,
        ["segmentation"],
        seeds=(0,),
        changes={"segmentation": changes},
    )
    expected = dense.segmentation(small_encoder(), train, train, **changes, seed=0)
    found = {name: score["mean"] for name, score in result["scores"].items()}
    assert found == pytest.approx(expected, abs=1e-6)
    assert "segmentation, epochs=1 (changed)" in capsys.readouterr().out
    with pytest.raises(TypeError, match="`frozen` must be true or false"):
        evaluation.evaluate(
            small_encoder(), train, train, ["depth"], changes={"depth": {"frozen": 1}}
        )
