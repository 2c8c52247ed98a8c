"""The command that runs many recipes: sweep."""

import dataclasses
import functools
import pathlib
from typing import Annotated

import tyro

from keras_kssl import recipes
from keras_kssl._checks import check_that
from keras_kssl.cli.training import Kind, RunEnded
from keras_kssl.cli.words import changes_of, integers, numbers

_EXIT_FAILED = 1


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Run a grid of recipes and seeds, judge them, write one table; goes on if stopped.

    Example: kssl sweep --data folder:photos --eval-train folder:labelled --eval-test
    folder:test --grid method=ssl_hsic,sfrik --learning-rates 1e-3,2e-3 --out sweeps/a
    """

    recipe: Annotated[recipes.Recipe, tyro.conf.arg(name="")]
    out: pathlib.Path
    """Folder for the table and all runs; the same command goes on there."""
    file: Annotated[pathlib.Path | None, tyro.conf.Positional] = None
    """Rows and all else in a TOML or JSON file, see docs/sweeps.md; options given here
    take the place of those in it."""
    grid: tuple[str, ...] = ()
    """Rows without a file: OPTION=VALUE,VALUE, one or more, in all combinations."""
    learning_rates: str | None = None
    """Learning rates to choose from for each row of the grid, separated by commas."""
    base_learning_rates: str | None = None
    """Or base learning rates, likewise."""
    seeds: str | None = None
    """Seeds of pretraining, separated by commas. Default: 0,1,2."""
    protocols: str | None = None
    """What to measure, as in kssl evaluate. Default: knn,linear,finetune-1."""
    change: tuple[str, ...] = ()
    """Settings other than the protocols' own, such as finetune-1.epochs=5."""
    choose_by: str | None = None
    """Protocol by which learning rates are chosen. Default: knn."""
    validation: str | None = None
    """Labelled images to choose on. Default: a tenth of those to learn from."""
    tuning_seed: int | None = None
    """Seed of the runs among which is chosen. Default: the first one."""
    baselines: bool = True
    """Whether to judge raw pixels and untrained encoders too."""
    checkpoint_seconds: float = 300.0
    """Time between two checkpoints."""
    distribute: Kind = "auto"
    """Devices of each run, as in kssl pretrain."""
    typed: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Names of the recipe's options that stand on the command line."""

    def run(self):
        from keras_kssl import pretraining, sweeping

        plan = self._plan(sweeping)
        try:
            lines = sweeping.sweep(
                plan,
                self.out,
                self.checkpoint_seconds,
                self.distribute,
                # Hours may pass until a buffer is full.
                say=functools.partial(print, flush=True),
            )
        except pretraining.RunInterrupted as error:
            raise RunEnded(error, 128 + error.signal) from error
        print(f"\n{(self.out / 'table.md').read_text(encoding='utf-8')}")
        print(f"Written: {self.out}")
        failed = [line.name for line in lines if line.failed]
        if failed:
            text = f"Runs have failed, of {', '.join(failed)}. The same command tries"
            raise RunEnded(f"{text} them again.", _EXIT_FAILED)

    def _plan(self, sweeping):
        options = {name: getattr(self.recipe, name) for name in self.typed}
        changes = {
            "choose_by": self.choose_by,
            "validation": self.validation,
            "tuning_seed": self.tuning_seed,
            "seeds": self.seeds and integers("seeds", self.seeds),
            "protocols": self.protocols
            and [name.strip() for name in self.protocols.split(",")],
            "changes": changes_of(self.change) or None,
            "baselines": None if self.baselines else False,
        }
        changes = {k: value for k, value in changes.items() if value is not None}
        rates = {
            name.removesuffix("s"): numbers(name, getattr(self, name))
            for name in ("learning_rates", "base_learning_rates")
            if getattr(self, name) is not None
        }
        rule = "given once, as one of the two"
        check_that(len(rates) < 2, "kssl", "learning_rates", rule, self.learning_rates)
        if self.file is not None:
            rule = "left out where there is a file: its rows have their own"
            check_that(not self.grid, "kssl", "grid", rule, self.grid)
            check_that(not rates, "kssl", "learning_rates", rule, rates)
            return sweeping.read_plan(self.file, options, **changes)
        for option, values in rates.items():
            rows = sweeping.grid_rows(options, self.grid, values, option)
            return sweeping.Plan(rows, **changes)
        return sweeping.Plan(sweeping.grid_rows(options, self.grid), **changes)
