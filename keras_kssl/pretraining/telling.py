"""What a run says to people: what begins, and what has come of it."""

import keras

from keras_kssl.pretraining.judging import describe_scores


def describe_beginning(prepared, model):
    """One line on what is trained on what and how."""
    recipe = prepared.recipe
    millions = model.encoder.count_params() / 1e6
    return (
        f"{recipe.method}: {recipe.encoder} ({millions:.2f} million parameters) on "
        f"{len(prepared.source):,} images of {prepared.source.name}, views of "
        f"{recipe.size} x {recipe.size}, {recipe.epochs} epochs of "
        f"{prepared.steps_per_epoch} steps, batch {recipe.batch_size}, "
        f"{recipe.optimizer} at {recipe.learning_rate:g}, "
        f"{keras.backend.backend()} backend, seed {recipe.seed}"
    )


def describe_summary(summary, out):
    """The closing lines of a run: what was gained, and where everything is."""
    lines = []
    accuracies = summary["accuracies"]
    if accuracies is not None:
        lines.append("")
        for name, scores in accuracies.items():
            lines.append(f"{name.replace('_', ' '):>10}: {describe_scores(scores)}")
    lines += ["", f"Pictures:    {out / 'pictures'}/"]
    for name, path in summary["files"].items():
        lines.append(f"{name.replace('_', ' ').capitalize() + ':':<13}{path}")
    lines.append(f"Summary:     {out / 'summary.json'}")
    return lines
