"""How models take the batches of `data.load` in their `fit`."""


class FitsBatches:
    """Mixin for Keras models with an `augment`: `fit` takes `data.Batches` as well.

    It knows how long an epoch of theirs is, and ends their threads however it ends.
    """

    def fit(self, x=None, *args, steps_per_epoch=None, **options):
        """`keras.Model.fit`, which also takes the batches of `data.load`."""
        if not hasattr(x, "feed"):
            return super().fit(x, *args, steps_per_epoch=steps_per_epoch, **options)
        if steps_per_epoch is None:
            steps_per_epoch = x.steps_per_epoch
        options.setdefault("shuffle", False)
        options["steps_per_epoch"] = steps_per_epoch
        try:
            strategy = getattr(self, "distribute_strategy", None)
            return super().fit(x.feed(self.augment, strategy), *args, **options)
        except Exception:
            x.raise_failure()
            raise
        finally:
            # A generator that nobody closes would keep its thread.
            x.stop()
