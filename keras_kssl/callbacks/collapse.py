"""A warning in words when embeddings collapse or training stands still."""

import collections
import math
import warnings

import keras

from keras_kssl._checks import check_integer, check_number
from keras_kssl.objectives import BYOL, HSIC, SFRIK

# Below this spread, or above this uniformity, all embeddings count as equal.
_SMALLEST_SPREAD, _LARGEST_UNIFORMITY = 0.3, -0.3
# Uniformity is -1.6 on a circle and -0.7 at two points; below the spread embeddings are
# on their way to being equal.
_UNIFORMITY_OF_FEW, _SPREAD_OF_FEW = -1.5, 0.5
# Ranks below this share of the best, or below this number, count as few directions.
_RANK_SHARE, _SMALLEST_RANK = 0.2, 2.0
# How near to its value at collapse the loss sits, relative to that value; with more
# spread than that of few it is there by chance.
_LOSS_TOLERANCE = 0.01
# Mean squared distance of two views, as a share of that of any two images.
_APART = 0.97
# Share of its former norm below which a gradient counts as gone; and the distance of
# views, as above, below which that is what a trained network should have.
_GRADIENT_SHARE, _TOGETHER = 0.01, 0.1
# Patiences that views may be apart, and over which gradients are compared.
_LONG = 10
# Patiences for what an untrained network may be like, and then recovers from.
_FROM_THE_START, _OF_UNTRAINED = 2, ("total", "dead", "dimensional", "rank")
# Blocks of steps in a patience, each of which is judged by its means.
_BLOCKS = 10

_RATE = "the learning rate is too high (try a third of it and a longer warm-up)"
_VIEWS = "augmentation leaves views too little in common (try larger crops)"
_BATCH = "the batch is too small (try twice as many images)"
# Causes by kind and objective, likeliest first; None for objectives not known here.
_CAUSES = {
    "total": {
        HSIC: (
            "outputs are not batch-normalised (set normalize_output)",
            "regularizer_weight is too high: its term rewards small variance (try 1)",
            _RATE,
            _VIEWS,
        ),
        SFRIK: (
            "the uniformity term weighs too little (raise mmd_weight, or lower "
            "invariance_weight to a third)",
            _RATE,
        ),
        BYOL: (
            "the target network follows too fast (raise target_decay)",
            _RATE,
            _VIEWS,
        ),
        None: (
            "what keeps images apart weighs too little (raise its weight)",
            "outputs are not batch-normalised",
            _RATE,
        ),
    },
    "dimensional": {
        HSIC: ("regularizer_weight is too low (the default is 3)", _BATCH, _RATE),
        SFRIK: (
            "the uniformity term weighs too little (raise mmd_weight and keep the "
            "second of the coefficients)",
            _BATCH,
            _RATE,
        ),
        None: ("what spreads embeddings weighs too little", _BATCH, _RATE),
    },
    "apart": {
        SFRIK: (_VIEWS, "invariance_weight is too low (try three times it)", _BATCH),
        None: (_VIEWS, _BATCH, "the learning rate is too low, or far too high"),
    },
    "stalled": {
        None: (
            "the learning rate is far too high, and weights have grown so large that "
            "normalisation lets no gradient through (try a tenth of it, start anew)",
        )
    },
}
_CAUSES["dead"] = _CAUSES["total"]


class CollapseMonitor(keras.callbacks.Callback):
    """Warns in words, once for each kind, when self-supervised training is in vain.

    Reads what the logs hold of `spread`, `uniformity`, `alignment`, `gradient_norm`,
    the loss (`ssl_loss`, else `loss`) and, between epochs, `effective_rank`: metrics
    that every `SelfSupervisedModel` has, and any other model may have. As Keras's
    metrics do, they are to hold means since the epoch began. Costs nothing: no array is
    looked at.

    Each kind must have lasted for `patience` steps, twice as many where nothing else
    has been seen since the start, because untrained networks may give all images
    nearly the same embedding and recover:

    - `total`: all embeddings are nearly equal, spread below 0.3 or uniformity above
      -0.3.
    - `dead`: the loss stays within 1% of its value for equal embeddings, and the spread
      is below 0.5.
    - `dimensional`: embeddings cover few directions or places, uniformity above -1.5
      with a spread of 0.5 and more; or, for two epochs, an effective rank below 2 or a
      fifth of the best.
    - `apart`: two views of an image are as far apart as any two images, a ratio of mean
      squared distances above 0.97, for ten times the patience.
    - `stalled`: the gradient's norm is below a hundredth of what it was at most ten
      times the patience before, and views are still apart (above 0.1, likewise).

    Args:
        patience: steps, at least 10. Default 200. Embeddings that are equal from the
            start must have come apart within twice as many steps.
        stop: whether `fit` ends when a kind is found. Default False.
        say: function that is given each warning. Default `warnings.warn`.
        collapse_loss: loss of equal embeddings. Default: that of the model's objective,
            where it is known.
        start_step: steps of the first epoch that were done before, where training goes
            on in the middle of it.

    Attributes:
        found: dictionary of the warnings by kind.
        reason: the first of them; `None` while all is well.
    """

    def __init__(
        self, patience=200, stop=False, say=None, collapse_loss=None, start_step=0
    ):
        super().__init__()
        caller = "CollapseMonitor"
        self.patience = check_integer(caller, "patience", patience, minimum=_BLOCKS)
        self.stop = stop
        self.say = warnings.warn if say is None else say
        if collapse_loss is not None:
            check_number(caller, "collapse_loss", collapse_loss)
        self.collapse_loss = collapse_loss
        self.found = {}
        self._start_step = check_integer(caller, "start_step", start_step, minimum=0)
        # Steps of this epoch before this `fit`, steps since it began, and their sums.
        self._offset, self._done, self._totals = 0, 0, {}
        # The block of steps that is being filled; the first step is one of its own.
        self._sums, self._steps, self._is_first = collections.Counter(), 0, True
        # For how many steps each sign has been there, and which have been away.
        self._lasted, self._was_away = collections.Counter(), set()
        self._norms = collections.deque(maxlen=_LONG * _BLOCKS)
        self._ranks = []

    @property
    def reason(self):
        return next(iter(self.found.values()), None)

    def on_train_begin(self, logs=None):
        if self.collapse_loss is None:
            self.collapse_loss = getattr(self.model, "collapse_loss", None)

    def on_epoch_begin(self, epoch, logs=None):
        self._offset = self._done = self._start_step
        # What was summed up before this `fit` is not known.
        self._totals = None if self._offset else {}
        self._start_step = 0

    def on_train_batch_end(self, batch, logs=None):
        done = self._offset + batch + 1
        # Means since the epoch began, times the steps: the differences of these sums
        # belong to the steps in between.
        totals = {name: done * float(value) for name, value in (logs or {}).items()}
        if self._totals is not None:
            for name, total in totals.items():
                self._sums[name] += total - self._totals.get(name, 0.0)
            self._steps += done - self._done
        self._totals, self._done = totals, done
        if self._steps and (self._is_first or self._steps >= self.patience // _BLOCKS):
            means = {name: total / self._steps for name, total in self._sums.items()}
            self._look_at(means)
            self._sums, self._steps, self._is_first = collections.Counter(), 0, False

    def on_epoch_end(self, epoch, logs=None):
        rank = float((logs or {}).get("effective_rank", math.nan))
        self._ranks.append(rank)
        limit = max(_SMALLEST_RANK, _RANK_SHARE * max(self._ranks))
        # The steps of the first of two epochs do not count.
        is_low = len(self._ranks) > 1 and all(r < limit for r in self._ranks[-2:])
        # Once all embeddings are equal, that says nothing new.
        is_low = is_low and "total" not in self.found
        words = (
            "embeddings have had few directions, an effective rank of "
            f"{rank:.1f} after {max(self._ranks):.1f}"
        )
        self._note("rank", is_low, self._done - self._offset, words)

    def _look_at(self, means):
        """Judges the means over a block of steps."""
        names = ("spread", "uniformity", "alignment", "gradient_norm")
        # No comparison with NaN is true.
        values = {name: means.get(name, math.nan) for name in names}
        spread, uniformity, alignment, norm = values.values()
        loss = means.get("ssl_loss", means.get("loss", math.nan))
        known = ", ".join(
            f"{name.replace('_', ' ')} {value:.3g}"
            for name, value in {**values, "loss": loss}.items()
            if not math.isnan(value)
        )
        self._norms.append(norm)
        at_collapse = self.collapse_loss or math.nan
        distance = abs(loss - at_collapse) / abs(at_collapse)
        # Mean squared distance of any two images, where all coordinates vary alike.
        of_any_two = 2.0 * spread**2
        is_equal = spread < _SMALLEST_SPREAD or uniformity > _LARGEST_UNIFORMITY
        signs = {
            "total": (is_equal, "all embeddings have been nearly equal"),
            "dead": (
                distance < _LOSS_TOLERANCE and not spread >= _SPREAD_OF_FEW,
                f"the loss has sat at {at_collapse:.3g}, as for equal embeddings",
            ),
            "dimensional": (
                uniformity > _UNIFORMITY_OF_FEW and not spread < _SPREAD_OF_FEW,
                "embeddings have covered few directions or places",
            ),
            "apart": (
                alignment > _APART * of_any_two,
                "two views of an image have been as far apart as any two images",
            ),
            "stalled": (
                norm < _GRADIENT_SHARE * self._norms[0]
                and not alignment < _TOGETHER * of_any_two,
                f"hardly any gradient has been left of a norm of {self._norms[0]:.3g}",
            ),
        }
        for sign, (is_there, words) in signs.items():
            is_there = is_there and (sign == "total" or not is_equal)
            self._note(sign, is_there, self._steps, f"{words} ({known})")

    def _note(self, sign, is_there, steps, words):
        """Takes a sign into account; warns where it has been there for long enough."""
        if not is_there:
            self._lasted[sign] = 0
            self._was_away.add(sign)
            return
        self._lasted[sign] += steps
        patience = self.patience * (_LONG if sign == "apart" else 1)
        if sign in _OF_UNTRAINED and sign not in self._was_away:
            patience *= _FROM_THE_START
        kind = "dimensional" if sign == "rank" else sign
        if self._lasted[sign] < patience or kind in self.found:
            return
        causes = _causes(kind, getattr(self.model, "objective", None))
        text = (
            f"For {self._lasted[sign]} steps {words}. Likely causes: "
            f"{'; '.join(causes)}."
        )
        self.found[kind] = text
        self.say(text)
        if self.stop:
            self.model.stop_training = True


def _causes(kind, objective):
    by_objective = _CAUSES[kind]
    for known, causes in by_objective.items():
        if known is not None and isinstance(objective, known):
            return causes
    return by_objective[None]
