"""Commands that train: quickstart and pretrain."""

import dataclasses
import pathlib
import re
from typing import Annotated, Literal

import tyro

from keras_kssl import recipes
from keras_kssl._checks import check_that
from keras_kssl.cli.words import unused

_EXIT_FAILED = 1

Kind = Literal["auto", "none", "mirrored", "multi_worker", "tpu", "jax"]


@dataclasses.dataclass(frozen=True)
class Quickstart:
    """Pretrain on a built-in set in minutes, judge it before and after, export it.

    Example: kssl quickstart --method sfrik
    """

    method: recipes.Method = "ssl_hsic"
    """How to train."""
    out: pathlib.Path | None = None
    """Run folder. Default: runs/quickstart_METHOD."""
    seed: int = 0
    """Seed of everything random."""
    overwrite: bool = False
    """Replace a run that is in the folder."""

    def run(self):
        out = self.out or pathlib.Path("runs") / f"quickstart_{self.method}"
        recipe = recipes.quickstart(self.method, seed=self.seed)
        pretrain(recipe, out, self.overwrite)
        print("\nNext, on images of your own (kssl pretrain --help lists the options):")
        print(f"  kssl pretrain --method {self.method} --data folder:DIR --out runs/a")


@dataclasses.dataclass(frozen=True)
class Pretrain:
    """Pretrain an encoder on images without labels.

    Example: kssl pretrain --method sfrik --data folder:photos --out runs/a
    """

    recipe: Annotated[recipes.Recipe, tyro.conf.arg(name="")]
    out: pathlib.Path | None = None
    """Run folder; must be new or empty. Default: a new one, runs/METHOD_DATA."""
    resume: bool = False
    """Go on with the run in the folder, from its last checkpoint."""
    checkpoint_seconds: float = 300.0
    """Time between two checkpoints."""
    stop_on_collapse: bool = False
    """End the run when its embeddings collapse or its training stands still, which by
    default is a warning."""
    distribute: Kind = "auto"
    """Devices to train on: none (one), mirrored (all GPUs), multi_worker (machines of
    TF_CONFIG), tpu, jax (all devices, of all processes); auto asks the machine."""
    worker_timeout: float = 600.0
    """Seconds for which workers wait for each other before they give up."""
    typed: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Names of the recipe's options that stand on the command line."""
    preset: str | None = None
    """A preset of kssl zoo, whose options hold unless they are typed here too."""
    recipe_file: pathlib.Path | None = None
    """A recipe.json, for example of another run; takes the place of all other options
    of the recipe."""
    overwrite: bool = False
    """Replace a run that is in the folder."""

    def run(self):
        recipe, asked = self.recipe, self.typed
        if self.preset is not None:
            recipe, asked = self._from_preset()
        if self.recipe_file is not None:
            check_that(
                not asked,
                "pretrain",
                "recipe_file",
                "given without a preset and options of the recipe",
                str(self.recipe_file),
                f"Options given: {', '.join(asked)}. Edit a copy of the file.",
            )
            recipe = recipes.Recipe.read(self.recipe_file)
        out = self.out
        if out is None:
            check_that(
                not self.resume,
                "pretrain",
                "out",
                "given with --resume",
                None,
                "Name the run's folder.",
            )
            out = _new_folder(recipe, self.preset)
        # Before anything else is asked of the backend.
        from keras_kssl import distribution

        chosen = distribution.choose(self.distribute, self.worker_timeout)
        options = {"resume": self.resume, "checkpoint_seconds": self.checkpoint_seconds}
        options["stop_on_collapse"] = self.stop_on_collapse
        options["distribution"] = chosen
        if self.resume and self.recipe_file is None:
            options["asked"] = asked
        pretrain(recipe, out, self.overwrite, **options)
        if chosen.is_chief:
            print(f"\nNext: kssl evaluate {out} --train SOURCE --test SOURCE")

    def _from_preset(self):
        """The preset's recipe with what was typed, and the options that are asked."""
        from keras_kssl import zoo

        preset = zoo.preset(self.preset, "pretrain")
        typed = {name: getattr(self.recipe, name) for name in self.typed}
        recipe = dataclasses.replace(preset.recipe, **typed)
        check_that(
            self.resume or recipe.data is not None,
            "pretrain",
            "data",
            f"given for {preset.name}",
            None,
            preset.data,
        )
        options = {
            field.name
            for field in dataclasses.fields(recipe)
            if getattr(recipe, field.name) != field.default
        }
        return recipe, tuple(sorted(options | set(typed)))


class RunEnded(Exception):
    """A run that ended before its time, and the exit code that says so."""

    def __init__(self, error, code, is_of_workers=False):
        super().__init__(str(error))
        self.code = code
        self.is_of_workers = is_of_workers


def typed_options(arguments):
    """Names of a recipe's options that stand on the command line."""
    words = [word.partition("=")[0] for word in arguments if word.startswith("--")]
    typed = {word[2:].replace("-", "_").removeprefix("no_") for word in words}
    names = {field.name for field in dataclasses.fields(recipes.Recipe)}
    return tuple(sorted(names & typed))


def _new_folder(recipe, preset=None):
    """A run folder that is not there yet, named after the preset or method and data."""
    if preset is not None:
        return unused(pathlib.Path("runs") / preset)
    kind, _, rest = (recipe.data or "").partition(":")
    name = rest if kind == "builtin" else pathlib.PurePath(rest).stem
    name = re.sub(r"[^\w-]+", "_", name) or kind or "none"
    return unused(pathlib.Path("runs") / f"{recipe.method}_{name}")


def pretrain(recipe, out, overwrite, **options):
    from keras_kssl import pretraining

    run = pretraining.Run(recipe, out, overwrite, **options)
    is_of_workers = run.distribution.num_workers > 1
    try:
        summary = run.execute()
    except pretraining.RunInterrupted as error:
        run.folder.log(f"kssl: {error}")
        raise RunEnded(error, 128 + error.signal, is_of_workers) from error
    except pretraining.RunFailed as error:
        run.folder.log(f"kssl: {error}")
        raise RunEnded(error, _EXIT_FAILED, is_of_workers) from error
    except (ValueError, TypeError, OSError) as error:
        # What goes wrong from here on is no wrong input: it deserves its traceback.
        raise RuntimeError(f"The run in {out} failed: {error}") from error
    if summary is not None:
        for line in pretraining.describe_summary(summary, run.folder.path):
            run.say(line)
