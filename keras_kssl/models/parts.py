"""Embeddings of a batch part by part, to train on large batches with small memory."""

import keras
from keras import ops

from keras_kssl._checks import check_that
from keras_kssl.micro_batches import map_parts


def embed_in_parts(model, views, count):
    """`model.embed(views, training=True)`, `count` parts of the batch one by one.

    Differentiable by the model's trainable variables, and exact: whatever is computed
    from all embeddings. Activations are kept for one part only and computed anew for
    the gradient; running statistics, seeds of dropout and the like move on once for
    each part, from one to the next.
    """
    rows = views[0].shape[0]
    check_that(
        rows is not None and rows % count == 0 and rows >= 2 * count,
        type(model).__name__,
        "micro_batches",
        f"a divisor of the {rows} images that a device has of a batch, with two or "
        "more in a part",
        count,
        "Batches of a size that is not known beforehand cannot be divided.",
    )
    variables = {id(v): v for layer in model.embedding_layers for v in layer.variables}
    # Averages move between steps only.
    for variable in model.averaged_variables:
        variables.pop(id(variable), None)
    trained = [v for v in variables.values() if v.trainable]
    others = [v for v in variables.values() if not v.trainable]
    constant = [(v, ops.stop_gradient(v)) for v in model.averaged_variables]

    def embed_part(parameters, state, part):
        values = zip([*trained, *others], [*parameters, *state], strict=True)
        with keras.StatelessScope(state_mapping=[*constant, *values]) as scope:
            outputs = model.embed(part, training=True)
            moved = [scope.get_current_value(v) for v in others]
        outputs = [*outputs["embeddings"], outputs["features"]]
        return [ops.cast(array, "float32") for array in outputs], moved

    widths = [model.embeddings_shape[-1]] * model.num_embeddings
    outputs, moved = map_parts(
        embed_part,
        trained,
        others,
        views,
        count,
        [*widths, model.features_shape[-1]],
    )
    for variable, value in zip(others, moved, strict=True):
        variable.assign(value)
    *embeddings, features = outputs
    return {"embeddings": embeddings, "features": features}
