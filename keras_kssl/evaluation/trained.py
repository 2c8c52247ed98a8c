"""Protocols that train classifiers on augmented images: linear ones and fine-tuning."""

import numpy as np

from keras_kssl import augment, optimizers
from keras_kssl._seeds import derived_seed
from keras_kssl.data import join
from keras_kssl.evaluation.classifier import Classifier, CosinePerEpoch
from keras_kssl.evaluation.metrics import score_predictions
from keras_kssl.evaluation.subsets import (
    HELD_OUT,
    balanced_subset,
    listed_subset,
    split_off,
)


def linear_as_sfrik(task, settings, seed):
    """A linear classifier on frozen features of augmented images, as SFRIK's is."""
    classifier = _classifier(
        task,
        seed,
        rates=(settings["learning_rate"],),
        weight_decay=settings["weight_decay"],
    )
    _train_epochs(task, classifier, task.train, settings, seed)
    return _of_frozen(task, "linear_sfrik", classifier)


def linear_as_hsic(task, settings, seed):
    """A linear classifier on frozen features of augmented images, as SSL-HSIC's is."""
    source, size = task.train, _batch_size(task.train, settings)
    steps = settings["epochs"] * (len(source) // size)
    classifier = _classifier(
        task,
        seed,
        antialias=False,
        rates=(settings["base_learning_rate"] * size / 256,),
    )
    classifier.train(
        source,
        size,
        steps,
        optimizers.warmup_cosine(1.0, min(settings["warmup_steps"], steps - 1), steps),
        average=settings["average_decay"],
        seed=seed,
        callbacks=task.callbacks(size),
    )
    return _of_frozen(task, "linear_hsic", classifier)


def fine_tune_part(task, settings, seed):
    """The encoder and a classifier, trained on a part of the labels."""
    if settings["files"] is not None:
        rows = listed_subset(task.train, settings["files"])
    else:
        # The part does not change with the seed of the training.
        rows = balanced_subset(task.train.labels, settings["fraction"], seed=0)
    source = task.train.only(rows)
    classifier = _classifier(
        task,
        seed,
        rates=(settings["head_learning_rate"],),
        encoder_rate=settings["encoder_learning_rate"],
    )
    _train_epochs(task, classifier, source, settings, seed)
    score = _score(task, classifier)
    return {"scores": {task.protocol: score}, "chosen": {"images": len(source)}}


def fine_tune_whole(task, settings, seed):
    """The encoder and a classifier, trained on all labels at the rate that suits."""
    grid = [
        (rate, decay)
        for rate in np.ravel(settings["learning_rates"]).tolist()
        for decay in np.ravel(settings["weight_decays"]).tolist()
    ]
    steps = settings["steps"]
    size = _batch_size(task.train, settings)
    whole = task.train
    if task.validation is not None:
        whole = join(task.train, task.validation)
    classifier = _classifier(task, seed, encoder_rate=1.0)

    def train(source, rate, decay):
        classifier.restart(task.encoder, rate, rate, decay, _augment_seed(seed))
        classifier.train(
            source,
            min(size, len(source)),
            steps,
            optimizers.warmup_cosine(1.0, 0, steps),
            nesterov=True,
            seed=seed,
            callbacks=task.callbacks(size),
        )

    chosen = {}
    if len(grid) > 1:
        part, held_out = task.train, task.validation
        if held_out is None:
            kept, held = split_off("finetune-100", len(part), HELD_OUT, seed)
            part, held_out = whole.only(kept), whole.only(held)
        scores = []
        for rate, decay in grid:
            train(part, rate, decay)
            scores.append(_score(task, classifier, held_out))
        best = int(np.argmax(scores))
        grid, chosen = grid[best : best + 1], {"held_out": scores[best]}
    ((rate, decay),) = grid
    train(whole, rate, decay)
    chosen |= {"learning_rate": rate, "weight_decay": decay}
    return {"scores": {task.protocol: _score(task, classifier)}, "chosen": chosen}


def _train_epochs(task, classifier, source, settings, seed):
    """Trains for a number of epochs, the learning rate falling once in each."""
    size = _batch_size(source, settings)
    steps_per_epoch = len(source) // size
    classifier.train(
        source,
        size,
        settings["epochs"] * steps_per_epoch,
        CosinePerEpoch(steps_per_epoch, settings["epochs"]),
        seed=seed,
        callbacks=task.callbacks(size),
    )


def _classifier(task, seed, antialias=True, **options):
    policy = augment.crop_flip(task.size, antialias=antialias)
    return Classifier(
        task.encoder,
        (task.size, task.size, task.train.image_shape[-1]),
        task.num_classes,
        augment=policy,
        seed=_augment_seed(seed),
        **options,
    )


def _augment_seed(seed):
    return derived_seed(seed, 0)


def _of_frozen(task, name, classifier):
    """Scores of a classifier whose encoder is the task's."""
    _, _, features, labels = task.features()
    (scores,) = classifier.scores_of_features(features)
    return {"scores": {name: score_predictions(scores, labels, task.metric)}}


def _score(task, classifier, source=None):
    """Score of a classifier with an encoder of its own."""
    source = task.test if source is None else source
    (scores,), labels = classifier.scores(source, task.batch_size, task.size)
    return score_predictions(scores, task.numbers(source, labels), task.metric)


def _batch_size(source, settings):
    return min(settings["batch_size"], len(source))
