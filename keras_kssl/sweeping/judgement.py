"""One judgement of an encoder in a sweep: on the test images, or to choose by."""

import dataclasses
import json

from keras_kssl import data, evaluation
from keras_kssl.evaluation.protocols import settings_of
from keras_kssl.evaluation.record import known_results
from keras_kssl.evaluation.subsets import HELD_OUT, split_off


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What to measure, and the file that keeps it.

    Attributes:
        file: name of the file, in the folder of what is judged.
        recipe: `recipes.Recipe` whose `eval_train` (or, without it, `data`) the judges
            learn from, and whose `eval_test` is measured on.
        protocols, seeds, changes: as in `evaluation.evaluate`.
        chooses: whether it is for a choice, which test images have no part in: then
            it is measured on the validation images, or on a tenth of those to learn
            from.
        validation: labelled images, or `None`.
    """

    file: str
    recipe: object
    protocols: tuple[str, ...]
    seeds: tuple[int, ...]
    changes: dict
    chooses: bool = False
    validation: str | None = None

    def asked(self):
        """All that the numbers depend on beside the encoder, as JSON gives it back."""
        names = ("data", "limit", "per_class", "eval_train")
        images = {name: getattr(self.recipe, name) for name in names}
        if not self.chooses:
            images["eval_test"] = self.recipe.eval_test
        changes = {p: self.changes.get(p, {}) for p in self.protocols}
        asked = {
            "protocols": {p: settings_of(p, changes[p]) for p in self.protocols},
            "seeds": self.seeds,
            "images": images,
            "validation": self.validation,
        }
        return json.loads(json.dumps(asked))

    def results(self, folder):
        """What was measured, if it was measured as a whole and just so; else `None`."""
        return known_results(folder / self.file, self.asked())

    def make(self, encoder, folder, size, say=print):
        """Judges an encoder and keeps the results in the folder."""
        train, test, validation = self._sources()
        learned = self.recipe.eval_train or self.recipe.data
        measured = self.recipe.eval_test
        if self.chooses:
            measured = self.validation or f"a tenth of {learned}"
        record = evaluation.Record(folder, learned, measured, folder / self.file)
        record.facts["asked"] = self.asked()
        evaluation.evaluate(
            encoder,
            train,
            test,
            self.protocols,
            validation,
            self.seeds,
            {p: self.changes[p] for p in self.protocols if p in self.changes},
            size=size,
            say=say,
            record=record.add,
        )

    def _sources(self):
        recipe, validation = self.recipe, self.validation
        if recipe.eval_train is not None:
            train = data.open_source(recipe.eval_train)
        else:
            train = data.open_source(
                recipe.data, recipe.limit, recipe.max_broken, recipe.per_class
            )
        if not self.chooses:
            return train, data.open_source(recipe.eval_test), validation
        if validation is not None:
            return train, data.open_source(validation), None
        kept, held = split_off("sweep", len(train), HELD_OUT, seed=0)
        return train.only(kept), train.only(held), None
