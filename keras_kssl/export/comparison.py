"""What an encoder computes, recorded to compare with what a file of it computes."""

import keras
import numpy as np

# What is compared, in the words of messages. Further parts are named by their callers.
FEATURES = "features"
TRAINING = "features with training=True"
STATISTICS = "the update of the statistics"

# Largest difference from the encoder, as a share of its largest value: of features,
# and of what training mode gives. Compiled graphs fuse operations and round
# differently; the statistics of a few small images amplify that.
_TOLERANCES = {
    "float64": (3e-5, 1e-3),
    "float32": (3e-5, 1e-3),
    "float16": (1e-2, 0.1),
    "bfloat16": (5e-2, 0.4),
}


def record(caller, encoder, images, random_state_of=None):
    """Features in both modes, and what the training call changes in the variables.

    The encoder's variables are left as they are. Training mode is left out where the
    encoder does not repeat itself, because it draws numbers from elsewhere.
    """
    source = random_state_of or encoder
    random_state = [
        (mine, theirs.value)
        for mine, theirs in zip(encoder.variables, source.variables, strict=True)
        if not keras.backend.is_float_dtype(mine.dtype)
    ]

    def run(training):
        with keras.StatelessScope(state_mapping=random_state) as scope:
            features = encoder(images, training=training)
            check_features(caller, features)
        updated = [scope.get_current_value(v) for v in encoder.variables]
        pairs = zip(encoder.variables, updated, strict=True)
        after = flat([v.value if new is None else new for v, new in pairs])
        return to_numpy(features), after

    record = {FEATURES: run(training=False)[0]}
    if not np.isfinite(record[FEATURES]).all():
        raise ValueError(
            f"{caller}: `encoder` must give finite features. Received: "
            f"{np.mean(~np.isfinite(record[FEATURES])):.0%} NaN or infinite on "
            "random images in [0, 1]. It may have diverged in training."
        )
    training, after = run(training=True)
    again, _ = run(training=True)
    if _difference(again, training) <= _tolerances(encoder)[1]:
        before = flat([v.value for v in encoder.variables])
        record.update({TRAINING: training, STATISTICS: after - before})
    return record


def check_features(caller, features):
    is_tensor = keras.ops.is_tensor(features)
    if (
        not is_tensor
        or len(features.shape) < 2
        or not keras.backend.is_float_dtype(
            keras.backend.standardize_dtype(features.dtype)
        )
    ):
        received = (
            f"{keras.backend.standardize_dtype(features.dtype)} of shape "
            f"{tuple(features.shape)}"
            if is_tensor
            else f"a {type(features).__name__} of outputs"
        )
        raise ValueError(
            f"{caller}: `encoder` must give one tensor of floats, (batch, features) or "
            f"(batch, ..., features). Received: {received}. Pick one output with "
            "keras.Model(encoder.input, output)."
        )


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor).astype("float32")


def flat(variables):
    """All floating-point values in one vector, so that they share one scale."""
    arrays = [keras.ops.convert_to_numpy(variable) for variable in variables]
    floats = [array.ravel() for array in arrays if array.dtype.kind not in "biu"]
    return np.concatenate([np.zeros(1), *floats]).astype("float32")


def _difference(found, expected):
    """Largest absolute difference, as a share of the largest expected magnitude."""
    if found.shape != expected.shape:
        return np.inf
    if not expected.size or np.array_equal(found, expected):
        return 0.0
    scale = np.max(np.abs(expected)) or 1.0
    difference = np.max(np.abs(found - expected)) / scale
    return float(difference) if np.isfinite(difference) else np.inf


def _tolerances(layer):
    """The tolerances for the coarsest precision in which a layer computes."""
    inner = [_tolerances(each) for each in getattr(layer, "layers", ())]
    return max([_TOLERANCES[layer.compute_dtype], *inner])


def compare(caller, encoder, expected, found):
    """Raises `RuntimeError` unless what is in both records agrees."""
    inference, training = _tolerances(encoder)
    for part in (name for name in expected if name in found):
        tolerance = training if part in (TRAINING, STATISTICS) else inference
        difference = _difference(found[part], expected[part])
        if not difference <= tolerance:
            raise RuntimeError(
                f"{caller}: what was written must compute what the encoder computes. "
                f"Received: after loading, a relative difference of {difference:.2g} "
                f"in {part}, where {tolerance:.2g} is allowed. Nothing was left at the "
                "path."
            )
