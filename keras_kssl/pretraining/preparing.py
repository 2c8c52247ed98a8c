"""From what was asked for to what is trained on, with nothing left open."""

import dataclasses

import keras
import numpy as np

from keras_kssl import data
from keras_kssl._checks import check_that
from keras_kssl.distribution import has_accelerator
from keras_kssl.pretraining.building import build_model
from keras_kssl.pretraining.judging import Judges
from keras_kssl.recipes import Facts, Recipe

# Options that a run may change when it is gone on with.
_CHANGEABLE = ("max_broken",)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A resolved recipe and what it names, opened."""

    recipe: Recipe
    source: object
    judges: Judges | None
    notes: tuple[str, ...] = ()
    """Sentences on files that came or went since the run began."""

    @property
    def steps_per_epoch(self):
        return self.batches().steps_per_epoch

    @property
    def total_steps(self):
        return self.recipe.epochs * self.steps_per_epoch

    def batches(self, start_step=0, batch_size=None):
        """Batches to train on, from a step on."""
        size, seed = batch_size or self.recipe.batch_size, self.recipe.seed
        return data.Batches(self.source, size, seed, start_step, with_labels=False)

    def build_model(self, batch_size=None):
        """The compiled model; `batch_size` to try another one."""
        recipe = self.recipe
        if batch_size is not None:
            recipe = dataclasses.replace(
                recipe, batch_size=batch_size, steps_per_execution=1
            )
        keras.utils.set_random_seed(recipe.seed)
        keras.config.set_dtype_policy(recipe.precision)
        try:
            channels = self.source.image_shape[-1]
            return build_model(recipe, channels, self.steps_per_epoch)
        finally:
            keras.config.set_dtype_policy("float32")

    def facts(self):
        """What says whether the data are still the same."""
        return {
            "name": self.source.name,
            "images": len(self.source),
            "content": self.source.fingerprint(),
        }


def prepare(recipe, listing=None):
    """Opens what a recipe names and fills in what it leaves open.

    Args:
        recipe: `recipes.Recipe`.
        listing: files that a run began with, whatever is there now; `None` for all.

    Raises:
        ValueError, TypeError, OSError: for whatever is wrong with recipe or data.
    """
    rule = "given: images such as folder:DIR"
    check_that(recipe.data is not None, "recipe", "data", rule, recipe.data)
    notes = ()
    if listing is None:
        source = data.open_source(
            recipe.data, recipe.limit, recipe.max_broken, recipe.per_class
        )
    else:
        # All files, because a new one may have come before those that began.
        found = data.open_source(recipe.data, max_broken=1.0)
        source = found.listed_as(listing, recipe.max_broken)
        notes = _changes(found, listing, recipe.limit or recipe.per_class)
    recipe = _resolved(recipe, source)
    judges = None
    if recipe.eval_test is not None:
        judges = Judges(recipe, source)
    prepared = Prepared(recipe, source, judges, notes)
    # What is wrong with the size of a batch is found here.
    prepared.batches()
    return prepared


def continued(recipe, own, asked=None):
    """The recipe with which a run is gone on with: its own.

    Args:
        recipe: what was asked for.
        own: the recipe of the run.
        asked: names of options that count. Default: those not left to their defaults.

    Raises:
        ValueError: where another value was asked for than the run has.
    """
    changed = recipe.differences(own, asked)
    allowed = {name: changed.pop(name)[0] for name in _CHANGEABLE if name in changed}
    if changed:
        named = ", ".join(
            f"{name}={here!r} (the run has {name}={there!r})"
            for name, (here, there) in changed.items()
        )
        raise ValueError(
            "pretrain: a run that is gone on with must keep its recipe. Received: "
            f"{named}. Leave these out, or start a new run in another folder."
        )
    return dataclasses.replace(own, **allowed)


def facts_of(source):
    """The `recipes.Facts` of a source on this machine."""
    height, width = source.image_shape[:2]
    sizes = np.array([[height, width]]) if height else source.some_sizes()
    side = int(np.median(sizes.min(axis=1)))
    return Facts(len(source), side, has_accelerator())


def _resolved(recipe, source):
    recipe = recipe.resolved(facts_of(source))
    if source.image_shape[-1] != 3 and None in (recipe.mean, recipe.std):
        mean, std = data.channel_moments(source)
        recipe = dataclasses.replace(
            recipe, mean=recipe.mean or mean, std=recipe.std or std
        )
    return recipe


def _changes(found, listing, limit):
    now = set(found.files)
    gone = [file for file in listing if file not in now]
    new = len(now.difference(listing)) if limit is None else 0
    if not gone and not new:
        return ()
    named = ", ".join(gone[:3]) or "none"
    return (
        f"{len(gone)} files are gone ({named}) and count as broken; {new} are new and "
        "left out",
    )
