"""Images of a run, and what its encoder makes of them."""

import dataclasses

import keras
import numpy as np

import keras_kssl.models  # noqa: F401  (registers the encoders)
from keras_kssl import data, evaluation
from keras_kssl.data.arrays import unit_images
from keras_kssl.pretraining.building import build_encoder
from keras_kssl.report.reading import Missing

# Share of their mean square below which features count as all alike.
_NO_VARIANCE = 1e-10


@dataclasses.dataclass(frozen=True)
class Sample:
    """Images of one source, at the size that the encoder was trained on.

    Attributes:
        source: what users call the source.
        total: number of images in it.
        images: float32 in [0, 1], (n, H, W, C), at equal distances in the source.
        names: n file names or positions.
        labels: classes (n,), -1 where not known; `None` without labels.
        class_names: a name for each class, or `None`.
    """

    source: str
    total: int
    images: np.ndarray
    names: list[str]
    labels: np.ndarray | None
    class_names: list[str] | None

    def __len__(self):
        return len(self.images)

    def class_of(self, position):
        """Name of an image's class; `None` where it is not known."""
        if self.labels is None or self.labels[position] < 0:
            return None
        label = int(self.labels[position])
        return str(label) if self.class_names is None else str(self.class_names[label])

    @property
    def classes(self):
        """The known classes of the images, in order."""
        if self.labels is None:
            return []
        return [int(label) for label in np.unique(self.labels) if label >= 0]


def open_sample(record, count):
    """Images that a run is tested on, or else those that it was trained on.

    Args:
        record: `reading.Record`.
        count: number of images, at most.

    Raises:
        Missing: where the images are not there, or cannot be read.
    """
    recipe = record.recipe
    try:
        if recipe.eval_test is not None:
            source = data.open_source(recipe.eval_test, max_broken=1.0)
        else:
            source = data.open_source(
                recipe.data, recipe.limit, max_broken=1.0, per_class=recipe.per_class
            )
        if source.image_shape[0] is None:
            source = source.at_size(recipe.size)
        # Not the first ones: folders list their images class by class.
        places = np.linspace(0, len(source) - 1, min(count, len(source)))
        images, positions = source.read(places.round().astype(int))
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise Missing(
            f"The images, {recipe.eval_test or recipe.data}, cannot be opened: {error} "
            "Write the report again where they are; relative names start at the "
            "folder in which the run was started."
        ) from None
    if len(images) < 2:
        raise Missing(f"Of {source.name}, fewer than two images can be read.")
    encoded = getattr(source, "source", None)
    return Sample(
        source=source.name,
        total=len(source),
        images=unit_images(images),
        names=[str(i) if encoded is None else encoded.name_of(i) for i in positions],
        labels=None if source.labels is None else source.labels[positions],
        class_names=source.class_names,
    )


def load_encoder(record):
    """The trained encoder of a run. Raises `Missing` where there is none."""
    path = record.path / "encoder.keras"
    if not path.is_file():
        raise Missing(
            "encoder.keras is not there: the run writes it when it ends.",
            record.resume_command,
        )
    try:
        return keras.saving.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Missing(f"encoder.keras cannot be loaded: {error}") from None


def untrained_encoder(record, channels):
    """The encoder of a run as it was before training."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(record.recipe.precision)
    try:
        return build_encoder(record.recipe, channels)
    finally:
        keras.config.set_dtype_policy(before)


def features_of(encoder, sample):
    """Features (n, d) of a sample's images.

    Raises:
        Missing: where the encoder tells no image from another, or returns no numbers.
    """
    features, _ = evaluation.extract_features(encoder, sample.images, batch_size=100)
    if not np.isfinite(features).all():
        raise Missing(
            "The encoder's features are not finite: its training was lost. Look at the "
            "loss, and start a new run with a lower learning rate."
        )
    variance = features.var(axis=0, dtype=np.float64).sum()
    if variance <= _NO_VARIANCE * np.square(features, dtype=np.float64).sum(1).mean():
        raise Missing(
            "The encoder has collapsed: its features are the same for all images."
        )
    return features
