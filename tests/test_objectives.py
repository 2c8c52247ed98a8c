"""Objectives against the authors' recorded numbers, their definitions and laws."""

import inspect
import itertools
import re
import threading

import keras
import numpy as np
import pytest
from keras import ops

from keras_kssl import kernels, objectives
from keras_kssl.objectives import hsic
from tests.gradients import value_and_gradients

on_tensorflow = keras.backend.backend() == "tensorflow"
float64 = pytest.mark.skipif(
    not on_tensorflow, reason="float64 on JAX needs a process-wide switch"
)
precisions = pytest.mark.parametrize(
    ("dtype", "rtol"), [("float32", 1e-5), pytest.param("float64", 1e-9, marks=float64)]
)
suffixes = {"float32": "f32", "float64": "f64"}

# Objectives that see nothing of unit-length embeddings but their inner products.
EXACT = {
    "hsic_gram": lambda: objectives.HSIC(estimator="gram"),
    "hsic_fixed_scale": lambda: objectives.HSIC(learn_scale=False, estimator="gram"),
    "hsic_gaussian": lambda: objectives.HSIC(2.0, kernel=kernels.Gaussian(0.7)),
    "hsic_linear": lambda: objectives.HSIC(kernel=kernels.Linear()),
    "hsic_zonal": lambda: objectives.HSIC(kernel=kernels.Zonal((1.0, 2.0))),
    "sfrik": objectives.SFRIK,
    "sfrik_moments": lambda: objectives.SFRIK(5.0, 2.0, coefficients=(1.0, 40.0)),
    "sfrik_per_pair": lambda: objectives.SFRIK(0.5, weight_per_pair=True),
    "simclr": lambda: objectives.SimCLR(0.5),
    "auh": objectives.AlignmentUniformity,
}
# Objectives of raw embeddings, coordinate by coordinate.
RAW = {"vicreg": objectives.VICReg, "barlow_twins": objectives.BarlowTwins}
ESTIMATED = {
    "hsic_random_features": lambda: objectives.HSIC(
        num_features=64, estimator="random_features", seed=3
    ),
    "hsic_gaussian_random_features": lambda: objectives.HSIC(
        num_features=64, estimator="random_features", kernel=kernels.Gaussian(), seed=3
    ),
}
NORMALISING = {**EXACT, **ESTIMATED}
ALL = {**NORMALISING, **RAW}
exact = pytest.mark.parametrize("make", EXACT.values(), ids=EXACT)
normalising = pytest.mark.parametrize("make", NORMALISING.values(), ids=NORMALISING)
everything = pytest.mark.parametrize("make", ALL.values(), ids=ALL)
HSIC_CASES = ["hsic_B32_d16_V2_D64_c1", "hsic_B16_d256_V4_D512_c2"]
SFRIK_CASES = ["sfrik_two_view_B32_q16", "sfrik_two_view_B64_q128"]
# On other backends the first: every shape is compiled for itself.
two_views = pytest.mark.parametrize(
    "case",
    [SFRIK_CASES[0], pytest.param(SFRIK_CASES[1], marks=pytest.mark.any_backend)],
)
MULTI_CROP_CASES = ["sfrik_multicrop_B8_q4", "sfrik_multicrop_B32_q16"]
SFRIK_COEFFICIENTS = [
    (1, 40, 40),
    (1, 40, 0),
    (0, 1, 0),
    (1, 0, 0),
    (0, 0, 1),
    (0, 0, 0, 1),
    (0, 1, 0, 1),
    (1, 40, 40, 40),
]


def embeddings(num_views=2, batch=9, dim=7, seed=0):
    """Correlated views, neither of unit length nor centred."""
    rng = np.random.default_rng(seed)
    images = 0.5 + rng.normal(size=(batch, dim))
    views = images + 0.7 * rng.normal(size=(num_views, batch, dim))
    return [view.astype("float32") for view in views]


def numbers(terms):
    return {name: float(value) for name, value in terms.items()}


def loss_and_gradients(objective, views):
    return value_and_gradients(lambda *z: objective(list(z)), *views)


class Recorded(kernels.InverseMultiquadric):
    """An inverse multiquadric kernel whose random features are given."""

    def __init__(self, scale, frequencies, phases):
        super().__init__(scale)
        self.draw = frequencies, phases

    def sample_frequencies(self, num_features, dim, seed, dtype="float32"):
        assert self.draw[0].shape == (num_features, dim)
        return self.draw


@precisions
@pytest.mark.parametrize("coefficients", SFRIK_COEFFICIENTS)
@two_views
def test_sfrik_equals_the_authors(golden, case, coefficients, dtype, rtol):
    arrays = golden(case)
    key = "sfrik/w" + "_".join(str(b) for b in coefficients)
    suffix = suffixes[dtype]
    views = [arrays[name].astype(dtype) for name in ("x", "y")]
    totals = {
        "loss": objectives.SFRIK(4000.0, 1.0, coefficients),
        "repr_loss": objectives.SFRIK(1.0, 0.0, coefficients),
        "mmd_loss": objectives.SFRIK(0.0, 1.0, coefficients),
    }
    for name, objective in totals.items():
        value, gradients = loss_and_gradients(objective, views)
        # A mean of terms of both signs: its error is relative to their size.
        np.testing.assert_allclose(
            value, arrays[f"{key}/{name}_{suffix}"], rtol=rtol, atol=rtol * 0.1
        )
        grad = "grad" if name == "loss" else f"grad_{name}"
        for view, gradient in zip("xy", gradients, strict=True):
            recorded = arrays[f"{key}/{grad}_{view}_f64"]
            scale = np.abs(recorded).max()
            np.testing.assert_allclose(gradient, recorded, rtol=0, atol=rtol * scale)
    terms = numbers(totals["loss"].terms(views))
    for ours, theirs in (("invariance", "repr_loss"), ("mmd", "mmd_loss")):
        recorded = float(arrays[f"{key}/{theirs}_{suffix}"])
        assert terms[ours] == pytest.approx(recorded, rel=rtol, abs=rtol * 0.1)


@precisions
@pytest.mark.parametrize("regularize_small", [False, True])
@pytest.mark.parametrize(("policy", "num_global"), [("obow", 1), ("swav", 2)])
@pytest.mark.parametrize("case", MULTI_CROP_CASES)
def test_sfrik_with_small_crops_equals_the_authors(
    golden, case, policy, num_global, regularize_small, dtype, rtol
):
    arrays = golden(case)
    suffix, parts = suffixes[dtype], {"obow": ("orig", "crops", "patches")}
    parts = parts.get(policy, ("global", "local"))
    stacked = [arrays[f"{policy}/{part}"].astype(dtype) for part in parts]
    batch = int(case.split("_B")[1].split("_")[0])
    views = [z[i : i + batch] for z in stacked for i in range(0, len(z), batch)]
    assert len(views) == 8
    for coefficients in ((1, 40, 40), (1, 40, 0), (0, 1, 0, 1)):
        key = f"{policy}/reg_small_{regularize_small}/w"
        key += "_".join(str(b) for b in coefficients)
        objective = objectives.SFRIK(
            4000.0, 1.0, coefficients, regularize_small=regularize_small
        )
        value, gradients = value_and_gradients(
            lambda *z, loss=objective: loss(list(z), num_global=num_global), *views
        )
        np.testing.assert_allclose(value, arrays[f"{key}/loss_{suffix}"], rtol=rtol)
        recorded = np.concatenate([arrays[f"{key}/grad_{p}_f64"] for p in parts])
        scale = np.abs(recorded).max()
        np.testing.assert_allclose(
            np.concatenate(gradients), recorded, rtol=0, atol=rtol * scale
        )
        terms = numbers(objective.terms(views, num_global=num_global))
        for ours, theirs in (("invariance", "repr_loss"), ("mmd", "mmd_loss")):
            recorded = float(arrays[f"{key}/{theirs}_{suffix}"])
            assert terms[ours] == pytest.approx(recorded, rel=rtol, abs=rtol * 0.1)


def numpy_hsic(views, num_global):
    """HSIC(Z, Y) of all views and HSIC(Z, Z) of the first, from the definitions."""
    z = np.stack([v / np.linalg.norm(v, axis=1, keepdims=True) for v in views])
    num_views, batch, dim = z.shape

    def gram(rows):
        rows = rows.reshape(-1, dim).astype("float64")
        return 1.0 / np.sqrt(1.0 + ((rows[:, None] - rows[None]) ** 2).sum(-1))

    same = np.kron(np.ones((num_views, num_views)), np.eye(batch))
    every, kept = gram(z), gram(z[:num_global])
    zy = (every * same).sum() / (batch * num_views * (num_views - 1)) - every.mean()
    centre = np.eye(len(kept)) - 1.0 / len(kept)
    zz = np.sum((centre @ kept @ centre) ** 2) / len(kept) ** 2
    return zy, zz


@pytest.mark.parametrize(
    ("estimator", "num_global"),
    [("gram", 1), ("gram", 2), ("gram", 5), ("random_features", 2)],
)
def test_hsic_regularises_global_views_and_depends_on_all(estimator, num_global):
    views = embeddings(5, batch=6)

    def terms(**options):
        draws = 16 if estimator == "random_features" else 1
        objective = objectives.HSIC(
            estimator=estimator, num_features=256, learn_scale=False, seed=0, **options
        )
        found = [
            numbers(objective.terms(views, num_global=num_global)) for _ in range(draws)
        ]
        return {
            name: (
                np.mean([f[name] for f in found]),
                4 * np.std([f[name] for f in found]) / np.sqrt(draws),
            )
            for name in ("hsic_zy", "hsic_zz")
        }

    for small, kept in ((False, num_global), (True, 5)):
        found = terms(regularize_small=small).values()
        for (value, error), expected in zip(
            found, numpy_hsic(views, kept), strict=True
        ):
            assert abs(value - expected) < error + 2e-6


@pytest.mark.any_backend
@everything
def test_all_views_are_global_unless_told_otherwise(make):
    views = embeddings(4)
    expected = numbers(make().terms(views))
    assert numbers(make().terms(views, num_global=4)) == expected
    assert numbers(make().terms(views, num_global=2))["loss"] != expected["loss"]


@everything
def test_small_crops_are_interchangeable_and_global_views_are(make):
    views = embeddings(5)
    expected = float(make()(views, num_global=2))
    swapped = [views[i] for i in (1, 0, 4, 2, 3)]
    assert float(make()(swapped, num_global=2)) == pytest.approx(expected, rel=1e-5)
    mixed = [views[i] for i in (0, 2, 1, 3, 4)]
    assert float(make()(mixed, num_global=2)) != pytest.approx(expected, rel=1e-5)


# Losses of equal embeddings, 8 of dimension 5, that depend on more than an objective
# knows beforehand.
OF_BATCH = {"simclr": np.log(15.0), "barlow_twins": 5.0}


@pytest.mark.parametrize("name", [*EXACT, *RAW])
@pytest.mark.parametrize(
    "num_global", [1, pytest.param(2, marks=pytest.mark.any_backend), 4]
)
def test_collapse_loss_is_the_loss_of_equal_embeddings(name, num_global):
    views = [np.tile(np.arange(1.0, 6.0, dtype="float32"), (8, 1))] * 4
    value = float(ALL[name]()(views, num_global=num_global))
    known = ALL[name]().collapse_loss(4)
    assert (known is None) == (name in OF_BATCH)
    expected = OF_BATCH.get(name, known)
    assert value == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.any_backend
@pytest.mark.parametrize("num_global", [0, 4, 1.0, True])
def test_wrong_number_of_global_views_is_named_in_the_error(num_global):
    for objective in (objectives.HSIC(), objectives.SFRIK(), objectives.VICReg()):
        with pytest.raises((ValueError, TypeError), match=r"`num_global` must be"):
            objective.terms(embeddings(3), num_global=num_global)


BASELINES = {
    "AUH": (
        objectives.AlignmentUniformity(),
        {"invariance": "repr_loss", "potential": "unif_loss"},
    ),
    "VICReg": (
        objectives.VICReg(10.0, 10.0, 1.0),
        {"invariance": "repr_loss", "variance": "std_loss", "covariance": "cov_loss"},
    ),
    "SimCLR": (objectives.SimCLR(0.15), {}),
}


@precisions
@pytest.mark.parametrize("method", BASELINES)
@two_views
def test_baselines_equal_those_of_the_authors(golden, case, method, dtype, rtol):
    arrays, suffix = golden(case), suffixes[dtype]
    objective, names = BASELINES[method]
    views = [arrays[name].astype(dtype) for name in ("x", "y")]
    value, gradients = loss_and_gradients(objective, views)
    np.testing.assert_allclose(value, arrays[f"{method}/loss_{suffix}"], rtol=rtol)
    for view, gradient in zip("xy", gradients, strict=True):
        recorded = arrays[f"{method}/grad_{view}_f64"]
        scale = np.abs(recorded).max()
        np.testing.assert_allclose(gradient, recorded, rtol=0, atol=rtol * scale)
    terms = numbers(objective.terms(views))
    for ours, theirs in names.items():
        recorded = float(arrays[f"{method}/{theirs}_{suffix}"])
        assert terms[ours] == pytest.approx(recorded, rel=rtol)


@precisions
@pytest.mark.parametrize("shape", [(9, 4), (5, 12)])
def test_barlow_twins_equals_its_definition_and_the_slope_of_it(shape, dtype, rtol):
    views = [v.astype(dtype) for v in embeddings(2, *shape)]

    def definition(z_1, z_2):
        units = [
            (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5)
            for z in (np.asarray(z_1, "float64"), np.asarray(z_2, "float64"))
        ]
        loss = 0.0
        for j, k in itertools.product(range(shape[1]), repeat=2):
            correlation = np.mean(units[0][:, j] * units[1][:, k])
            loss += (1.0 - correlation) ** 2 if j == k else 0.1 * correlation**2
        return loss

    value, gradients = loss_and_gradients(objectives.BarlowTwins(0.1), views)
    assert float(value) == pytest.approx(definition(*views), rel=rtol)
    direction = np.random.default_rng(1).normal(size=(2, *shape))
    h = 1e-6
    ahead, behind = (
        definition(*(v + sign * h * d for v, d in zip(views, direction, strict=True)))
        for sign in (1, -1)
    )
    slope = sum(np.sum(g * d) for g, d in zip(gradients, direction, strict=True))
    assert slope == pytest.approx((ahead - behind) / (2 * h), rel=1e-4)


@pytest.mark.parametrize(
    ("half", "num_small"), [(1, 1), (1, 3), (2, 0), (2, 3), (3, 0), (3, 3)]
)
def test_byol_compares_each_prediction_with_the_targets_of_other_views(half, num_small):
    views = embeddings(2 * half + num_small, batch=5)
    units = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in views]
    predictions = units[:half] + units[2 * half :]
    of_targets = []
    for g in range(half):
        # The projections come last one first.
        target = units[2 * half - 1 - g]
        distances = [
            np.mean(2.0 - 2.0 * np.sum(p * target, axis=1))
            for v, p in enumerate(predictions)
            if v != g
        ]
        of_targets.append(np.mean(distances))
    terms = numbers(objectives.BYOL().terms(views, num_global=2 * half))
    assert terms["loss"] == pytest.approx(2.0 * np.mean(of_targets), rel=1e-5)
    assert terms["invariance"] == pytest.approx(np.mean(of_targets), rel=1e-5)
    if not num_small:
        assert numbers(objectives.BYOL().terms(views)) == terms


def test_byol_has_finite_gradients_and_no_loss_where_all_embeddings_coincide():
    for value in (0.0, 1.0):
        views = [np.full((6, 5), value, "float32")] * 4
        loss, gradients = loss_and_gradients(objectives.BYOL(), views)
        assert float(loss) == objectives.BYOL().collapse_loss(4) == 0.0
        assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("num_global", [2, 3, 1])
def test_byol_refuses_embeddings_without_pairs(num_global):
    argument = "embeddings" if num_global == 2 else "num_global"
    views = embeddings(2 if num_global == 2 else 4)
    with pytest.raises(ValueError, match=rf"BYOL: `{argument}` must be"):
        objectives.BYOL().terms(views, num_global=num_global)


# Terms that are means over pairs of views, and those of each view.
OF_PAIRS = {
    "sfrik": (objectives.SFRIK, ("invariance",), ("mmd",)),
    "auh": (objectives.AlignmentUniformity, ("invariance",), ("potential",)),
    "vicreg": (objectives.VICReg, ("invariance",), ("variance", "covariance")),
    "simclr": (objectives.SimCLR, ("loss", "similarity", "contrast"), ()),
    "barlow_twins": (
        objectives.BarlowTwins,
        ("loss", "invariance", "redundancy"),
        (),
    ),
}


@pytest.mark.parametrize("name", OF_PAIRS)
def test_terms_of_pairs_go_from_global_views_to_all_others(name):
    make, of_pairs, of_views = OF_PAIRS[name]
    views = embeddings(5)
    found = numbers(make().terms(views, num_global=2))
    for term in of_pairs:
        expected = np.mean(
            [
                np.mean(
                    [
                        numbers(make().terms([views[g], views[v]]))[term]
                        for v in range(5)
                        if v != g
                    ]
                )
                for g in (0, 1)
            ]
        )
        assert found[term] == pytest.approx(expected, rel=1e-5), term
    if not of_views:
        return
    of_all = numbers(make(regularize_small=True).terms(views, num_global=2))
    for term in of_views:
        of_global = numbers(make().terms(views[:2]))[term]
        assert found[term] == pytest.approx(of_global, rel=1e-5)
        assert of_all[term] == pytest.approx(
            numbers(make().terms(views))[term], rel=1e-5
        )
        assert of_all[term] != pytest.approx(of_global, rel=1e-4)


@pytest.mark.any_backend
def test_sfrik_by_default_has_the_published_weights(golden):
    arrays = golden(SFRIK_CASES[0])
    loss = objectives.SFRIK()([arrays["x"], arrays["y"]])
    assert float(loss) == pytest.approx(
        float(arrays["sfrik/w1_40_40/loss_f32"]), rel=1e-5
    )


@pytest.mark.any_backend
def test_weight_per_pair_is_the_published_weight_over_the_dimension():
    views = embeddings(3, dim=16)
    published = objectives.SFRIK(4000.0)
    per_pair = objectives.SFRIK(4000.0 / 16, weight_per_pair=True)
    assert float(per_pair(views)) == pytest.approx(float(published(views)), rel=1e-6)
    terms = numbers(per_pair.terms(views))
    units = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in views]
    expected = np.mean(
        [
            np.mean(np.sum((units[a] - units[b]) ** 2, axis=1))
            for a, b in ((0, 1), (0, 2), (1, 2))
        ]
    )
    assert terms["invariance"] == pytest.approx(expected, rel=1e-5)


@precisions
@pytest.mark.parametrize("case", HSIC_CASES)
def test_hsic_with_the_authors_draws_equals_the_authors(golden, case, dtype, rtol):
    arrays = golden(case)
    suffix = suffixes[dtype]
    frequencies = np.concatenate([arrays["w1"], arrays["w2"]])
    phases = np.concatenate([arrays["b1"][0], arrays["b2"][0]])
    objective = objectives.HSIC(
        num_features=len(arrays["w1"]),
        estimator="random_features",
        kernel=Recorded(float(arrays["c"]), frequencies, phases),
        learn_scale=False,
    )
    # The float32 rows are of unit length to float32 only: the objective normalises
    # them once more, which shows in float64.
    rtol = max(rtol, 2e-7)
    hiddens = arrays["hiddens"].astype(dtype)
    terms = numbers(objective.terms(list(hiddens)))
    for ours, theirs in (
        ("loss", "total_loss"),
        ("hsic_zy", "hsic_xy"),
        ("hsic_zz", "hsic_xx"),
    ):
        recorded = float(arrays[f"{theirs}_{suffix}"])
        assert terms[ours] == pytest.approx(recorded, rel=rtol)
    _, gradients = loss_and_gradients(objective, list(hiddens))
    # Theirs is the gradient by unit-length rows, ours the one along the sphere.
    z, recorded = hiddens.astype("float64"), arrays["grad_total_f64"]
    expected = recorded - z * np.sum(z * recorded, axis=-1, keepdims=True)
    scale = np.abs(recorded).max()
    np.testing.assert_allclose(
        np.stack(gradients), expected, rtol=0, atol=max(rtol, 1e-6) * scale
    )


@pytest.mark.parametrize("learn_scale", [False, True])
@pytest.mark.parametrize("case", HSIC_CASES)
def test_exact_hsic_equals_the_recorded_definition(golden, case, learn_scale):
    arrays = golden(case)
    kernel = kernels.InverseMultiquadric(float(arrays["c"]))
    objective = objectives.HSIC(
        estimator="gram", kernel=kernel, learn_scale=learn_scale
    )
    loss = float(objective(list(arrays["hiddens"])))
    assert loss == pytest.approx(float(arrays["exact/total_ref_limit"]), rel=1e-5)


@pytest.mark.parametrize(
    ("kernel", "of_squared_distances"),
    [
        (kernels.InverseMultiquadric(0.7), lambda s: 0.7 / np.sqrt(0.49 + s)),
        # P_2 in four dimensions is (4 t² - 1) / 3.
        (
            kernels.Zonal((1.0, 3.0)),
            lambda s: (1 - s / 2) + 4.0 * (1 - s / 2) ** 2 - 1.0,
        ),
    ],
    ids=["inverse multiquadric", "zonal"],
)
@pytest.mark.parametrize("num_global", [2, 3])
def test_gradients_of_exact_hsic_are_those_of_the_definition(
    kernel, of_squared_distances, num_global
):
    """A view that has no gradient, as of a target network, is one of all the same."""
    shape = 3, 5, 4
    views = np.random.default_rng(0).normal(size=shape).astype("float32")

    def definition(views):
        z = views / np.linalg.norm(views, axis=-1, keepdims=True)
        z = z.reshape(-1, shape[-1])
        distances = np.sum((z[:, None] - z[None]) ** 2, axis=-1)
        gram = of_squared_distances(distances)
        blocks = gram.reshape(3, 5, 3, 5)
        same = np.einsum("viwi->", blocks)
        zy = same / (5 * 3 * 2) - gram.mean()
        kept = gram[: 5 * num_global, : 5 * num_global]
        centring = np.eye(len(kept)) - 1.0 / len(kept)
        return 3.0 * np.sqrt(np.mean((centring @ kept @ centring) ** 2)) - zy

    objective = objectives.HSIC(
        estimator="gram", kernel=kernel, learn_scale=False, regularize_small=False
    )

    def loss(first, third):
        middle = ops.convert_to_tensor(views[1])
        return objective([first, middle, third], num_global=num_global)

    value, gradients = value_and_gradients(loss, views[0], views[2])
    exact = views.astype("float64")
    assert float(value) == pytest.approx(definition(exact), rel=1e-4)
    rng = np.random.default_rng(1)
    for view, gradient in zip((0, 2), gradients, strict=True):
        direction = np.zeros(shape)
        direction[view] = rng.normal(size=shape[1:])
        h = 1e-5 * direction
        slope = (definition(exact + h) - definition(exact - h)) / 2e-5
        assert np.sum(gradient * direction[view]) == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize(
    "kernel", [None, kernels.Gaussian(), kernels.Zonal((1.0, 2.0))]
)
@pytest.mark.parametrize("num_views", [2, 4])
def test_unbiased_dependence_leaves_self_pairs_out(num_views, kernel):
    views = embeddings(num_views, batch=5)
    terms = numbers(objectives.HSIC(kernel=kernel).terms(views))
    z = np.stack([v / np.linalg.norm(v, axis=1, keepdims=True) for v in views])
    function = kernels.InverseMultiquadric() if kernel is None else kernel
    gram = ops.convert_to_numpy(function(z.reshape(-1, 7))).astype("float64")
    blocks = gram.reshape(num_views, 5, num_views, 5)
    same = [
        blocks[v, i, w, i]
        for i in range(5)
        for v in range(num_views)
        for w in range(num_views)
        if v != w
    ]
    expected = np.mean(same) - gram.mean()
    assert terms["hsic_zy_unbiased"] == pytest.approx(expected, rel=1e-4, abs=1e-5)


@everything
def test_loss_does_not_depend_on_the_order_of_images_and_views(make):
    views = embeddings(3)
    order = np.random.default_rng(1).permutation(9)
    expected = float(make()(views))
    permuted = float(make()([view[order] for view in views]))
    assert permuted == pytest.approx(expected, rel=1e-5)
    # Random features pass this as one draw serves all views.
    swapped = float(make()([views[2], views[0], views[1]]))
    assert swapped == pytest.approx(expected, rel=1e-5)


@everything
def test_loss_depends_on_which_rows_are_of_one_image(make):
    views = embeddings()
    broken = [views[0], np.roll(views[1], 1, axis=0)]
    assert float(make()(broken)) > float(make()(views)) + 1e-2


@exact
def test_loss_does_not_change_when_embeddings_are_rotated(make):
    views = embeddings()
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(7, 7)))
    rotated = [(view @ rotation).astype("float32") for view in views]
    assert float(make()(rotated)) == pytest.approx(float(make()(views)), rel=1e-4)


@normalising
def test_loss_does_not_see_the_length_of_embeddings(make):
    views = embeddings()
    scales = np.random.default_rng(1).uniform(0.1, 9.0, size=(9, 1)).astype("float32")
    scaled = float(make()([views[0] * scales, views[1]]))
    assert scaled == pytest.approx(float(make()(views)), rel=1e-4)


@everything
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_gradients_are_finite_where_all_embeddings_coincide(make, value):
    views = [np.full((6, 5), value, "float32")] * 3
    loss, gradients = loss_and_gradients(make(), views)
    assert np.isfinite(loss)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize(("num_views", "loss"), [(2, -1.0), (4, -1 / 3)])
def test_total_collapse_gives_the_known_hsic_loss(num_views, loss):
    views = [np.tile(np.arange(1.0, 6.0, dtype="float32"), (8, 1))] * num_views
    value = float(objectives.HSIC(estimator="gram")(views))
    assert value == pytest.approx(loss, abs=1e-5)


def test_total_collapse_gives_the_sum_of_the_sfrik_coefficients():
    views = [np.ones((8, 5), "float32")] * 2
    objective = objectives.SFRIK(coefficients=(0.5, 2.0, 3.0, 4.0))
    assert float(objective(views)) == pytest.approx(9.5, rel=1e-5)


@everything
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_embeddings_are_computed_in_float32(make, dtype):
    half = [ops.cast(view, dtype) for view in embeddings()]
    loss = make()(half)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    expected = make()([ops.cast(view, "float32") for view in half])
    assert float(loss) == float(expected)


@everything
def test_terms_are_those_that_are_named_and_contain_the_loss(make):
    objective = make()
    terms = objective.terms(embeddings())
    assert set(terms) == {"loss", *objective.term_names}
    assert all(value.shape == () for value in terms.values())
    assert float(terms["loss"]) == pytest.approx(float(make()(embeddings())), rel=1e-6)


def test_auto_takes_the_exact_form_for_small_batches_only():
    # 32 features and 16 coordinates: the limit is 34 images, on JAX 74, two views.
    def objective():
        return objectives.HSIC(num_features=32, learn_scale=False, seed=0)

    small, large = embeddings(batch=16, dim=16), embeddings(batch=128, dim=16)
    gram = objectives.HSIC(estimator="gram", learn_scale=False)
    assert float(objective()(small)) == float(gram(small))
    assert float(objective()(large)) != float(gram(large))
    features = objectives.HSIC(
        num_features=32, estimator="random_features", learn_scale=False, seed=0
    )
    assert float(objective()(large)) == float(features(large))
    assert hsic.gram_is_cheaper(n=512, dim=256, num_features=512)
    assert not hsic.gram_is_cheaper(n=4096, dim=256, num_features=512)
    # Cosines take more of the time on JAX.
    assert hsic.gram_is_cheaper(2048, 256, 512) == (not on_tensorflow)


@pytest.mark.any_backend
@pytest.mark.skipif(not on_tensorflow, reason="JAX knows the batch size when it traces")
def test_auto_takes_the_exact_form_for_batches_of_a_size_unknown_when_traced():
    import tensorflow as tf

    large = embeddings(batch=64, dim=16)
    objective = objectives.HSIC(num_features=32, learn_scale=False, seed=0)
    signature = [tf.TensorSpec((None, 16))] * 2
    traced = tf.function(lambda *z: objective(list(z)), input_signature=signature)
    gram = objectives.HSIC(estimator="gram", learn_scale=False)
    assert float(traced(*large)) == pytest.approx(float(gram(large)), rel=1e-5)
    assert float(objective(large)) != pytest.approx(float(gram(large)), rel=1e-3)


def test_hsic_by_default_has_the_documented_numbers():
    assert objectives.HSIC(name="hsic").get_config() == {
        "name": "hsic",
        "regularizer_weight": 3.0,
        "num_features": 512,
        "estimator": "auto",
        "kernel": keras.saving.serialize_keras_object(kernels.InverseMultiquadric(1.0)),
        "learn_scale": True,
        "scale_learning_rate": 3e-4,
        "seed": None,
        "regularize_small": False,
    }


@pytest.fixture
def busy_machine():
    """Threads that take the cores from whatever else wants them."""
    is_over = threading.Event()

    def work():
        numbers = np.ones(2**16)
        while not is_over.is_set():
            np.sin(numbers)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    yield
    is_over.set()
    for thread in threads:
        thread.join()


@pytest.mark.skipif(not on_tensorflow, reason="XLA adds in one order")
@everything
def test_a_gradient_of_many_views_repeats_exactly(make, busy_machine):
    import tensorflow as tf

    objective = make()
    rng = np.random.default_rng(0)
    views = [tf.constant(rng.normal(size=(64, 32)), "float32") for _ in range(8)]
    states = [variable.numpy() for variable in objective.variables]

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            tape.watch(views)
            loss = objective.terms(views, training=True, num_global=2)["loss"]
        return tape.gradient(loss, views, unconnected_gradients="zero")

    found = set()
    for _ in range(100):
        for variable, state in zip(objective.variables, states, strict=True):
            variable.assign(state)
        found.add(b"".join(gradient.numpy().tobytes() for gradient in gradients()))
    assert len(found) == 1


@pytest.mark.parametrize("make", ESTIMATED.values(), ids=ESTIMATED)
def test_random_features_are_drawn_anew_in_each_call_from_the_seed(make):
    views = embeddings()
    first, second = make(), make()
    losses = [float(first(views)) for _ in range(3)]
    assert losses == [float(second(views)) for _ in range(3)]
    assert len(set(losses)) == 3


@pytest.mark.any_backend
def test_random_features_without_a_seed_differ_between_objectives():
    losses = [
        float(
            objectives.HSIC(num_features=8, estimator="random_features")(embeddings())
        )
        for _ in range(2)
    ]
    assert losses[0] != losses[1]


def test_random_feature_loss_tends_to_the_exact_one():
    views = embeddings(batch=16)
    exact_terms = numbers(objectives.HSIC(estimator="gram").terms(views))
    objective = objectives.HSIC(
        num_features=512, estimator="random_features", learn_scale=False, seed=0
    )
    draws = [numbers(objective.terms(views)) for _ in range(20)]
    for name in ("hsic_zy", "hsic_zz"):
        values = [draw[name] for draw in draws]
        standard_error = np.std(values, ddof=1) / np.sqrt(len(values))
        assert abs(np.mean(values) - exact_terms[name]) < 4 * standard_error


def scale_by_adam(distances, rate, steps, scale=1.0):
    """The kernel scale after each step of Adam up the gradient of mean log |dk/ds|."""
    momentum = velocity = 0.0
    scales = []
    for step in range(1, steps + 1):
        # d/dc of log(c / 2) - 1.5 log(s + c^2).
        gradient = np.mean(1.0 / scale - 3.0 * scale / (distances + scale**2))
        momentum = 0.9 * momentum + 0.1 * gradient
        velocity = 0.999 * velocity + 0.001 * gradient**2
        ratio = (momentum / (1 - 0.9**step)) / (
            np.sqrt(velocity / (1 - 0.999**step)) + 1e-8
        )
        scale += rate * ratio
        scales.append(scale)
    return np.array(scales)


def test_kernel_scale_follows_adam_in_training():
    rng = np.random.default_rng(0)
    objective = objectives.HSIC(
        estimator="gram",
        kernel=kernels.InverseMultiquadric(0.4),
        scale_learning_rate=0.01,
    )
    z = rng.normal(size=(12, 5))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    distances = ((z[:, None] - z[None]) ** 2).sum(-1)
    views = [z[:6].astype("float32"), z[6:].astype("float32")]
    scales = []
    for _ in range(20):
        # The scale that a step reports is the one that its loss was made with.
        before = float(objective.scale)
        terms = objective.terms(views, training=True)
        assert float(terms["kernel_scale"]) == before
        scales.append(float(objective.scale))
    expected = scale_by_adam(distances, 0.01, 20, scale=0.4)
    np.testing.assert_allclose(scales, expected, rtol=1e-5)


@pytest.mark.parametrize("estimator", ["gram", "random_features"])
def test_kernel_scale_tends_to_the_root_of_half_the_squared_distance(estimator):
    # All distances but those of rows to themselves, 1 pair in 128, are s = 2.
    z = np.eye(128, dtype="float32")
    objective = objectives.HSIC(
        num_features=4,
        estimator=estimator,
        kernel=kernels.InverseMultiquadric(0.7),
        scale_learning_rate=0.03,
        seed=0,
    )
    for _ in range(30):
        objective.terms([z[:64], z[64:]], training=True)
    assert float(objective.scale) == pytest.approx(np.sqrt(2.0 / 2.0), abs=0.03)


def test_kernel_scale_sees_all_pairs_of_rows_alike_and_new_ones_each_step(monkeypatch):
    seen = []

    def gradient(kernel, distances):
        seen.append(ops.convert_to_numpy(distances))
        return ops.zeros_like(distances)

    monkeypatch.setattr(kernels.InverseMultiquadric, "log_slope_gradient", gradient)
    # A Golomb ruler: no two pairs of the six rows are at the same angle.
    angles = np.deg2rad(10.0 * np.array([0, 1, 4, 10, 12, 17]))
    z = np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype("float32")
    objective = objectives.HSIC(num_features=8, estimator="random_features", seed=0)
    for _ in range(2):
        objective.terms([z[:3], z[3:]], training=True)
    assert not np.array_equal(*seen)
    for distances in seen:
        assert distances.shape[0] * distances.shape[1] > 1e6
        assert not np.array_equal(distances, distances.T)
        for i, j in itertools.product(range(6), repeat=2):
            expected = np.sum((z[i] - z[j]) ** 2)
            share = np.mean(np.abs(distances - expected) < 1e-4)
            # 4 standard errors of a share made of 512 rows per view and side.
            ways = 6 if i == j else 2
            assert share == pytest.approx(ways / 36, abs=0.015)


def test_kernel_scale_rests_outside_training():
    objective = objectives.HSIC()
    for _ in range(2):
        objective(embeddings())
    assert float(objective.scale) == 1.0
    objective(embeddings(), training=True)
    assert float(objective.scale) != 1.0


@pytest.mark.parametrize("estimator", ["gram", "random_features"])
def test_kernel_scale_is_a_constant_of_the_loss(estimator):
    options = {"estimator": estimator, "num_features": 16, "seed": 0}
    learned = objectives.HSIC(**options)
    fixed = objectives.HSIC(learn_scale=False, **options)
    assert learned.trainable_variables == []
    value, gradients = loss_and_gradients(learned, embeddings())
    expected, expected_gradients = loss_and_gradients(fixed, embeddings())
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradients, expected_gradients, rtol=1e-4, atol=1e-7)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "objective",
    [
        objectives.HSIC(),
        objectives.HSIC(
            2.5,
            num_features=33,
            estimator="random_features",
            kernel=kernels.InverseMultiquadric(0.3),
            learn_scale=False,
            scale_learning_rate=0.1,
            seed=5,
            regularize_small=True,
            name="dependence",
        ),
        objectives.HSIC(kernel=kernels.Zonal((0.0, 1.5))),
        objectives.SFRIK(),
        objectives.SFRIK(
            7.0, 3.0, (0.0, 2.0), True, regularize_small=True, name="uniform"
        ),
        objectives.SimCLR(0.7, name="simclr"),
        objectives.VICReg(1.0, 2.0, 3.0, regularize_small=True, name="vicreg"),
        objectives.AlignmentUniformity(
            1.0, 2.0, 3.0, weight_per_pair=True, regularize_small=True, name="auh"
        ),
        objectives.BarlowTwins(0.7, name="barlow"),
    ],
    ids=lambda objective: objective.name,
)
def test_config_holds_every_argument_and_makes_an_equal_objective(objective):
    signature = inspect.signature(type(objective).__init__)
    config = objective.get_config()
    assert set(config) == set(signature.parameters) - {"self"}
    serialized = keras.saving.serialize_keras_object(objective)
    copied = keras.saving.deserialize_keras_object(serialized)
    assert type(copied) is type(objective)
    assert copied.get_config() == config
    assert float(copied(embeddings())) == float(
        type(objective).from_config(config)(embeddings())
    )


@pytest.mark.any_backend
@everything
@pytest.mark.parametrize(
    "shapes",
    [
        [(8, 5)],
        [],
        [(8, 5), (8, 4)],
        [(8, 5), (7, 5)],
        [(8, 5, 1), (8, 5, 1)],
        [(8,), (8,)],
        [(1, 5), (1, 5)],
    ],
)
def test_wrong_embeddings_are_named_in_the_error(make, shapes):
    with pytest.raises(ValueError, match=r"`embeddings` must be .*Received: "):
        make().terms([np.ones(shape, "float32") for shape in shapes])


def test_views_stacked_in_one_array_are_refused():
    with pytest.raises(ValueError, match=r"SFRIK: `embeddings` must be a list"):
        objectives.SFRIK().terms(np.ones((2, 8, 5), "float32"))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("error", "argument", "make"),
    [
        (ValueError, "regularizer_weight", lambda: objectives.HSIC(-1.0)),
        (TypeError, "regularizer_weight", lambda: objectives.HSIC("3")),
        (ValueError, "num_features", lambda: objectives.HSIC(num_features=0)),
        (TypeError, "num_features", lambda: objectives.HSIC(num_features=5.0)),
        (ValueError, "estimator", lambda: objectives.HSIC(estimator="exact")),
        (ValueError, "kernel", lambda: objectives.HSIC(kernel="imq")),
        (ValueError, "kernel", lambda: objectives.HSIC(kernel=kernels.Gaussian)),
        (
            ValueError,
            "scale_learning_rate",
            lambda: objectives.HSIC(scale_learning_rate=-1e-4),
        ),
        (
            ValueError,
            "estimator",
            lambda: objectives.HSIC(
                estimator="random_features", kernel=kernels.Linear()
            ),
        ),
        (ValueError, "temperature", lambda: objectives.SimCLR(0.0)),
        (ValueError, "variance_weight", lambda: objectives.VICReg(1.0, -1.0)),
        (ValueError, "covariance_weight", lambda: objectives.VICReg(1.0, 1.0, -1.0)),
        (ValueError, "scale", lambda: objectives.AlignmentUniformity(scale=0.0)),
        (TypeError, "uniformity_weight", lambda: objectives.AlignmentUniformity(1, "")),
        (ValueError, "redundancy_weight", lambda: objectives.BarlowTwins(-1.0)),
        (ValueError, "invariance_weight", lambda: objectives.SFRIK(-1.0)),
        (ValueError, "mmd_weight", lambda: objectives.SFRIK(mmd_weight=np.nan)),
        (ValueError, "coefficients", lambda: objectives.SFRIK(coefficients=())),
        (ValueError, "coefficients", lambda: objectives.SFRIK(coefficients=(0, 0))),
        (ValueError, "coefficients", lambda: objectives.SFRIK(coefficients=(1, -2))),
        (ValueError, "coefficients", lambda: objectives.SFRIK(coefficients=3.0)),
    ],
)
def test_wrong_argument_is_named_in_the_error(error, argument, make):
    with pytest.raises(error, match=rf"`{argument}` must be .*Received: {argument}="):
        make()


@pytest.mark.skipif(on_tensorflow, reason="TensorFlow has a switch for the process")
@everything
def test_products_of_matrices_keep_all_digits_on_every_device(make):
    """Of JAX they would be told to on processors only, where they do anyway."""
    import jax

    objective = make()

    def loss(*views):
        with keras.StatelessScope():
            return objective.terms(list(views), training=True)["loss"]

    views = [np.random.default_rng(i).normal(size=(6, 5)) for i in range(2)]
    program = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(*views)
    precisions = re.findall(r"dot_general\[.*?precision=(.*?)\n", str(program), re.S)
    assert precisions
    assert set(precisions) == {"(Precision.HIGHEST, Precision.HIGHEST)"}
