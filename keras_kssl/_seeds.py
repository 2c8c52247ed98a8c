"""Seeds: many from one, and their state in Keras files."""

import numpy as np
from keras import ops


def derived_seed(seed, *keys):
    """An integer seed of its own for each sequence of integers `keys`.

    `None` stays `None`: no seed was asked for.
    """
    if seed is None:
        return None
    return int(np.random.SeedSequence([seed, *keys]).generate_state(1)[0] >> 1)


class SavesSeedState:
    """Mixin for layers and models: saves and loads the state of `self.seed_generator`.

    Keras leaves the state of seed generators out of its files, so that a loaded model
    would draw again what it has already drawn.
    """

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["seed_state"] = ops.convert_to_numpy(self.seed_generator.state)

    def load_own_variables(self, store):
        # The store is no mapping: it has keys and items, and nothing more.
        weights = {key: store[key] for key in store.keys()}  # noqa: SIM118
        self.seed_generator.state.assign(weights.pop("seed_state")[()])
        super().load_own_variables(weights)
