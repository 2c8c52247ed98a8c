"""The monitor of collapse: silent while all is well, and in words when it is not."""

import keras
import numpy as np
import pytest

from keras_kssl import augment, data, models, objectives, optimizers
from keras_kssl.callbacks import CollapseMonitor

WELL = {
    "loss": -0.9,
    "spread": 0.95,
    "uniformity": -3.5,
    "alignment": 1.2,
    "gradient_norm": 0.3,
}
EQUAL = {"spread": 0.05, "uniformity": -0.01, "alignment": 0.01}
FEW = {"uniformity": -1.0}
APART = {"alignment": 1.8}
STALLED = {"gradient_norm": 0.002}


class Model:
    """What the monitor asks of a model."""

    stop_training = False

    def __init__(self, objective=None, collapse_loss=None):
        self.objective = objective
        self.collapse_loss = collapse_loss


def watch(
    *parts, steps_per_epoch=50, chunk=1, monitor=None, first=0, ranks=None, **options
):
    """Shows a monitor values per step as `fit` would: means since the epoch began.

    Args:
        *parts: pairs of a number of steps and the values in them.
        chunk: steps per execution.
        first: steps that the first epoch has had before.

    Returns:
        The monitor, and (step, text) of each warning.
    """
    said = []
    values = [{**WELL, **value} for count, value in parts for _ in range(count)]
    if monitor is None:
        model = Model(options.pop("objective", None), options.pop("collapse", None))
        monitor = CollapseMonitor(
            say=lambda text: said.append((step + 1, text)), start_step=first, **options
        )
        monitor.set_model(model)
    monitor.on_train_begin()
    for epoch, begin in enumerate(range(0, len(values), steps_per_epoch)):
        shown = values[begin : begin + steps_per_epoch]
        before = first if begin == 0 else 0
        monitor.on_epoch_begin(epoch)
        for i in range(before, len(shown), chunk):
            last = min(i + chunk, len(shown))
            step = begin + last - 1
            logs = {
                name: np.float32(np.mean([v[name] for v in shown[:last]]))
                for name in shown[0]
            }
            monitor.on_train_batch_end(last - 1 - before, logs)
        logs = {} if ranks is None else {"effective_rank": ranks[epoch]}
        monitor.on_epoch_end(epoch, logs)
    return monitor, said


SIGNS = {"total": EQUAL, "dimensional": FEW, "stalled": STALLED}


@pytest.mark.any_backend
@pytest.mark.parametrize("kind", SIGNS)
@pytest.mark.parametrize(("steps_per_epoch", "chunk"), [(1000, 1), (50, 1), (7, 3)])
def test_a_sign_that_lasts_is_told_once(kind, steps_per_epoch, chunk):
    options = {"steps_per_epoch": steps_per_epoch, "chunk": chunk}
    monitor, said = watch((130, {}), (199, SIGNS[kind]), (50, {}), **options)
    assert said == []
    assert monitor.reason is None
    monitor, said = watch((130, {}), (600, SIGNS[kind]), **options)
    assert [(text, *monitor.found) for _, text in said] == [(monitor.reason, kind)]
    # A block of 20 steps, after the one in which it began.
    assert 330 <= said[0][0] <= 330 + 2 * (20 + chunk)


@pytest.mark.any_backend
def test_every_kind_is_told_with_its_numbers_and_causes():
    monitor, said = watch(
        (20, {}), (300, STALLED), (300, {}), (300, FEW), (300, EQUAL), (2300, APART)
    )
    assert list(monitor.found) == ["stalled", "dimensional", "total", "apart"]
    assert [text for _, text in said] == list(monitor.found.values())
    assert monitor.reason == monitor.found["stalled"]
    text = monitor.found["total"]
    assert "nearly equal (spread 0.05, uniformity -0.01, alignment 0.01, " in text
    assert "Likely causes: " in text
    assert all("learning rate" in text for _, text in said)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("objective", "word"),
    [
        (objectives.HSIC(), "normalize_output"),
        (objectives.SFRIK(), "mmd_weight"),
        (objectives.BYOL(), "target_decay"),
        (None, "weighs too little"),
    ],
)
def test_causes_are_those_of_the_method(objective, word):
    monitor, _ = watch((9, {}), (300, EQUAL), objective=objective)
    assert word in monitor.reason


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("kind", "inside", "outside"),
    [
        ("total", {"spread": 0.29}, {"spread": 0.31}),
        ("total", {"uniformity": -0.29}, {"uniformity": -1.6}),
        ("dimensional", {"uniformity": -1.45}, {"uniformity": -1.55}),
        ("stalled", {"gradient_norm": 0.0029}, {"gradient_norm": 0.0031}),
        ("stalled", STALLED, {**STALLED, "alignment": 0.1}),
    ],
)
def test_limits_are_those_of_the_documentation(kind, inside, outside):
    assert list(watch((20, {}), (400, inside))[0].found) == [kind]
    assert watch((20, {}), (400, outside))[0].found == {}


@pytest.mark.any_backend
def test_few_directions_are_told_from_embeddings_that_are_becoming_equal():
    values = {"spread": 0.45, "uniformity": -1.0}
    assert watch((20, {}), (400, values))[0].found == {}


@pytest.mark.any_backend
def test_an_untrained_network_has_twice_the_time_to_recover():
    assert watch((390, EQUAL), (100, {}))[0].found == {}
    _, said = watch((500, EQUAL))
    assert 400 <= said[0][0] <= 430
    # Once embeddings were apart, patience counts.
    _, said = watch((100, EQUAL), (40, {}), (500, EQUAL))
    assert 340 <= said[0][0] <= 400


@pytest.mark.any_backend
def test_views_may_be_apart_for_long():
    # Two images are 2 (1 - ||mean||²) apart, 2 spread² where coordinates vary alike.
    limit = 0.97 * 2 * 0.95**2
    below, above = {"alignment": limit - 0.01}, {"alignment": limit + 0.01}
    assert watch((1990, above), (20, {}), (1990, above))[0].found == {}
    assert watch((3000, below))[0].found == {}
    monitor, said = watch((3000, above))
    assert list(monitor.found) == ["apart"]
    assert 2000 <= said[0][0] <= 2030


@pytest.mark.any_backend
def test_a_loss_at_its_value_for_equal_embeddings_is_told():
    def found(loss, collapse=-1.0, steps=300, **values):
        values = {"spread": 0.45, "loss": loss, **values}
        return list(watch((20, {}), (steps, values), collapse=collapse)[0].found)

    assert found(-0.991) == ["dead"]
    assert found(-0.989) == []
    assert found(-1.009) == ["dead"]
    # By chance, on the way to better values.
    assert found(-1.0, spread=0.6) == []
    assert found(-1.0, collapse=None) == []
    assert found(0.0, collapse=0.0) == []
    # With a probe, the loss holds the probe's too.
    assert found(7.0, ssl_loss=-1.0) == ["dead"]
    assert found(-1.0, ssl_loss=-0.5) == []


def test_models_that_have_a_loss_alone_are_watched_by_it():
    said = []
    monitor = CollapseMonitor(say=said.append, collapse_loss=81.0)
    monitor.set_model(Model())
    monitor.on_train_begin()
    monitor.on_epoch_begin(0)
    for step in range(500):
        monitor.on_train_batch_end(step, {"loss": 81.1})
    monitor.on_epoch_end(0, {"loss": 81.1})
    assert list(monitor.found) == ["dead"]
    assert "(loss 81.1)" in said[0]


@pytest.mark.any_backend
@pytest.mark.parametrize("logs", [None, {}, {"accuracy": 0.5}, {"loss": np.nan}])
def test_models_without_these_metrics_are_left_alone(logs):
    monitor = CollapseMonitor(say=pytest.fail)
    monitor.set_model(Model())
    monitor.on_train_begin()
    monitor.on_epoch_begin(0)
    for step in range(500):
        monitor.on_train_batch_end(step, logs)
    monitor.on_epoch_end(0, logs)
    assert monitor.found == {}
    assert monitor.reason is None


@pytest.mark.any_backend
def test_one_odd_step_is_no_sign_and_no_measure():
    spike = {"gradient_norm": 1000.0}
    parts = [(100, {}), (1, spike), (100, {}), (1, {"spread": 0.0}), (3000, {})]
    assert watch(*parts)[0].found == {}


@pytest.mark.any_backend
def test_a_gradient_that_fades_slowly_is_no_alarm():
    parts = [(100, {"gradient_norm": 0.3 * 0.9**i}) for i in range(60)]
    assert parts[-1][1]["gradient_norm"] < 0.01 * 0.3
    assert watch(*parts)[0].found == {}


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("ranks", "epoch"),
    [
        ([50.0, 60.0, 11.0, 11.0, 60.0, 11.0, 11.0, 11.0, 11.0, 11.0], 9),
        ([50.0, 60.0, 13.0, 13.0, 13.0, 13.0, 13.0, 13.0, 13.0, 13.0], None),
        ([5.0, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5], 5),
        ([5.0, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5], None),
    ],
)
def test_a_rank_that_has_fallen_for_a_patience_and_two_epochs_is_told(ranks, epoch):
    monitor, said = watch((500, {}), ranks=ranks)
    assert [step for step, _ in said] == ([] if epoch is None else [50 * (epoch + 1)])
    assert list(monitor.found) == ["dimensional"][: len(said)]


@pytest.mark.any_backend
def test_one_long_epoch_of_low_rank_is_not_enough():
    options = {"steps_per_epoch": 1000}
    for ranks in ([50.0, 5.0, 50.0], [1.5, 50.0, 50.0]):
        assert watch((3000, {}), ranks=ranks, **options)[0].found == {}
    monitor, _ = watch((3000, {}), ranks=[50.0, 5.0, 5.0], **options)
    assert "an effective rank of 5.0 after 50.0" in monitor.reason


@pytest.mark.any_backend
def test_embeddings_that_are_equal_are_not_told_of_again_by_their_rank():
    monitor, _ = watch((20, {}), (980, EQUAL), ranks=[50.0] * 4 + [1.0] * 16)
    assert list(monitor.found) == ["total"]


@pytest.mark.any_backend
def test_going_on_in_the_middle_of_an_epoch_shows_the_steps_that_follow():
    # What was before is in the means, yet not what is judged.
    parts = [(600, EQUAL), (350, {})]
    monitor, _ = watch(*parts, steps_per_epoch=1000, first=600)
    assert monitor.found == {}
    _, said = watch((600, {}), (350, EQUAL), steps_per_epoch=1000, first=590)
    assert 800 <= said[0][0] <= 840


@pytest.mark.any_backend
def test_only_the_first_epoch_has_had_steps_before():
    options = {"steps_per_epoch": 50, "chunk": 25, "first": 25}
    _, said = watch((100, {}), (600, EQUAL), **options)
    assert 300 <= said[0][0] <= 350


@pytest.mark.any_backend
def test_a_second_fit_goes_on_with_what_the_first_has_seen():
    monitor, _ = watch((50, {}), (150, EQUAL))
    assert monitor.found == {}
    watch((100, EQUAL), monitor=monitor)
    assert list(monitor.found) == ["total"]


@pytest.mark.any_backend
def test_warnings_are_the_default_way_to_say_it():
    monitor = CollapseMonitor(patience=10)
    monitor.set_model(Model())
    monitor.on_epoch_begin(0)
    for step in range(19):
        monitor.on_train_batch_end(step, EQUAL)
    with pytest.warns(UserWarning, match="For 20 steps all embeddings"):
        monitor.on_train_batch_end(19, EQUAL)


@pytest.mark.any_backend
@pytest.mark.parametrize(("argument", "value"), [("patience", 9), ("start_step", -1)])
def test_wrong_argument_is_named_in_the_error(argument, value):
    with pytest.raises(ValueError, match=rf"CollapseMonitor: `{argument}` must be"):
        CollapseMonitor(**{argument: value})


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: (objectives.HSIC(), 2), -1.0),
        (lambda: (objectives.HSIC(estimator="random_features"), 4), -1 / 3),
        (lambda: (objectives.SFRIK(), 2), 81.0),
        (lambda: (objectives.SFRIK(mmd_weight=2.0, coefficients=(1.0, 3.0)), 3), 8.0),
        (lambda: (objectives.VICReg(variance_weight=10.0), 2), 9.9),
    ],
)
def test_objectives_know_their_value_for_equal_embeddings(make, expected):
    objective, num_views = make()
    assert objective.collapse_loss(num_views) == pytest.approx(expected, rel=1e-6)
    views = [np.full((16, 8), 0.25, "float32")] * num_views
    value = float(objective(views))
    # Random features have the kernel up to 4 standard errors of a mean of 512.
    wide = getattr(objective, "estimator", None) == "random_features"
    assert value == pytest.approx(expected, rel=4 / 512**0.5 if wide else 1e-3)


def make_encoder():
    x = images = keras.Input((12, 12, 3))
    for i, filters in enumerate((16, 32)):
        initializer = keras.initializers.HeNormal(i)
        options = {"strides": 2, "use_bias": False, "kernel_initializer": initializer}
        x = keras.layers.Conv2D(filters, 3, **options)(x)
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        x = keras.layers.Activation("relu")(x)
    return keras.Model(images, x)


def train(
    objective,
    rate=2e-3,
    normalize=False,
    crop=(0.2, 0.5),
    optimizer=keras.optimizers.Adam,
    patience=100,
    stop=True,
    epochs=2,
):
    """Epochs of 150 steps on handwriting, or less where the monitor ends them."""
    head = models.MLPHead((64,), 32, normalize_output=normalize, seed=1)
    policy = augment.auh(size=12, crop_scale=crop, flip=0.0)
    parts = {"objective": objective, "projector": head, "augment": policy, "seed": 2}
    if isinstance(objective, objectives.HSIC):
        model = models.SSLHSIC(make_encoder(), target=False, **parts)
    else:
        model = models.SFRIK(make_encoder(), **parts)
    model.compile(optimizer(rate))
    monitor = CollapseMonitor(patience, stop, say=lambda text: None)
    batches = data.load("builtin:digits:train", 32, seed=0)
    fitted = model.fit(
        batches, steps_per_epoch=150, epochs=epochs, verbose=0, callbacks=[monitor]
    )
    return model, monitor, fitted.history


def hsic(weight=3.0):
    return objectives.HSIC(weight, seed=3)


def sfrik(**options):
    return objectives.SFRIK(8.0, weight_per_pair=True, **options)


def on_one(*values):
    """Watched on one backend: that others give the same logs, one case tells."""
    return pytest.param(*values, marks=pytest.mark.any_backend)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("make", "options"),
    [
        (hsic, {"normalize": True}),
        pytest.param(hsic, {"normalize": True, "rate": 1e-2}, marks=pytest.mark.slow),
        (sfrik, {}),
    ],
)
def test_healthy_training_raises_no_alarm(make, options):
    model, monitor, history = train(make(), **options)
    assert monitor.found == {}
    assert model.num_steps == 300
    assert history["uniformity"][-1] < -2.9


@pytest.mark.parametrize(
    ("make", "options", "kind"),
    [
        # Equal embeddings are the better bargain without normalised outputs.
        (hsic, {}, "total"),
        on_one(lambda: sfrik(mmd_weight=0.0), {}, "total"),
        on_one(
            lambda: hsic(0.0),
            {"rate": 1e-2, "crop": (0.1, 0.2), "normalize": True},
            "dimensional",
        ),
        on_one(hsic, {"rate": 30.0, "normalize": True}, "stalled"),
        on_one(sfrik, {"rate": 30.0}, "stalled"),
        pytest.param(
            hsic,
            {"rate": 1000.0, "normalize": True, "optimizer": optimizers.LARS},
            "stalled",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_provoked_collapse_ends_training_within_300_steps(make, options, kind):
    model, monitor, _ = train(make(), **options)
    assert list(monitor.found) == [kind]
    assert 100 <= model.num_steps < 300
    assert model.stop_training


@pytest.mark.slow
def test_without_stop_training_goes_on_to_its_end():
    options = {"stop": False, "patience": 50, "epochs": 1}
    model, monitor, history = train(sfrik(mmd_weight=0.0), **options)
    assert list(monitor.found) == ["total"]
    assert model.num_steps == 150
    assert history["spread"][-1] < 0.3
