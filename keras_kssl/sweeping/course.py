"""The course of a sweep: what runs when, what is known already, what is chosen."""

import dataclasses
import json
import time

from keras_kssl._checks import check_choice, check_that
from keras_kssl._files import held_by_this_process, local_path, write_whole
from keras_kssl.evaluation.protocols import PROTOCOLS, settings_of
from keras_kssl.pretraining.failures import RunInterrupted
from keras_kssl.pretraining.interruption import Interruption
from keras_kssl.recipes import Recipe
from keras_kssl.report.wording import duration
from keras_kssl.sweeping import table
from keras_kssl.sweeping.judgement import Judgement
from keras_kssl.sweeping.process import do

# Protocols that take features of any function of images.
_OF_FEATURES = ("knn", "linear", "logreg", "few-shot")
_ARCHITECTURE = ("encoder", "width", "stem", "padding", "mean", "std", "size")
_IMAGES = ("data", "limit", "per_class", "max_broken", "eval_train", "eval_test")


def sweep(plan, out, checkpoint_seconds=300.0, distribute="auto", say=print):
    """Runs all recipes and seeds of a plan, judges them, and writes one table.

    Each run is a process of its own: its memory is its own, and what ends it ends no
    other. Where a row has several learning rates, each is tried with one seed; the best
    one on the validation images (see `Plan`) is the row's, for all seeds. Nothing is
    chosen on test images, and no run sees a label.

    The same call goes on where it was stopped, in the middle of a run too. What is
    known is kept: rows, seeds, learning rates and protocols may be added. Runs that
    failed are tried again.

    The folder `out` gets table.md, table.csv, runs.csv (a line for each run),
    scores.png, the run folders in runs/ROW/, the baselines' in baselines/, and all that
    was said in logs/.

    Args:
        plan: `Plan`.
        out: folder, this process's until it ends.
        checkpoint_seconds: time between two checkpoints of a run. Default 300.
        distribute: devices of each run, as in `distribution.choose`. Default "auto".
        say: function that prints a line.

    Returns:
        List of `table.Line`s, in the order of the table.

    Raises:
        ValueError: before anything is run, for wrong protocols, and for a row whose
            runs in `out` have another recipe.
        RunInterrupted: for Ctrl-C and SIGTERM, once the step is done and a checkpoint
            written.
    """
    for name in plan.changes:
        check_choice("sweep", "changes", name, (*plan.protocols, plan.choose_by))
    for name in (*plan.protocols, plan.choose_by):
        settings_of(name, plan.changes.get(name, {}))
        rule = "those of whole images"
        check_that(not PROTOCOLS[name].is_dense, "sweep", "protocols", rule, name)
    out = local_path("sweep", out)
    out.mkdir(parents=True, exist_ok=True)
    course = _Course(plan, out, checkpoint_seconds, distribute, say)
    with held_by_this_process(out, "sweep"), Interruption() as interruption:
        try:
            course.keep_recipes()
            return course.run()
        except KeyboardInterrupt:
            text = "The sweep was stopped. The same command goes on with it."
            raise RunInterrupted(text, interruption.signal or 2) from None


@dataclasses.dataclass(frozen=True)
class _Task:
    """One process's work: what is made of which recipe, where, and how it is judged."""

    title: str
    kind: str
    recipe: Recipe
    folder: object
    judgements: tuple

    def is_done(self):
        has_ended = self.kind != "run" or (self.folder / "summary.json").is_file()
        return has_ended and all(j.results(self.folder) for j in self.judgements)


class _Course:
    def __init__(self, plan, out, checkpoint_seconds, distribute, say):
        self.plan, self.out, self.say = plan, out, say
        self._options = {
            "checkpoint_seconds": checkpoint_seconds,
            "distribute": distribute,
        }
        self._reasons = {}
        self._lines = []

    def keep_recipes(self):
        """Writes each row's recipe down; refuses one that its runs do not have."""
        for row in self.plan.rows:
            path = self.out / "runs" / row.slug / "row.json"
            recipe = row.run(0)
            if path.is_file():
                _check_same(row, recipe, Recipe.read(path), path.parent)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, recipe.to_json())
        known = {row.slug for row in self.plan.rows}
        for path in sorted((self.out / "runs").iterdir()):
            if path.name not in known:
                self.say(f"{path} is of no row of this sweep and is left out")

    def run(self):
        baselines = self._baselines() if self.plan.baselines else []
        tasks = [task for _, members in baselines for _, task in members]
        for row in self.plan.rows:
            # As many as there will be: which rate is chosen makes no difference.
            guess = row.rates[0] if row.rates else None
            tasks += self._trials(row).values()
            tasks += [self._final(row, seed, guess) for seed in self.plan.seeds]
        self._total = len({task.folder for task in tasks})
        self._place = 0
        for name, members in baselines:
            line = self._new_line(name)
            for seed, task in members:
                self._make(line, seed, task)
        for row in self.plan.rows:
            self._run_row(row)
        table.draw(self._lines, self.plan, self.out)
        return self._lines

    def _run_row(self, row):
        line = self._new_line(row.name)
        rate = row.rates[0] if row.rates else None
        trials = self._trials(row)
        for tried, task in trials.items():
            if not self._do(task):
                why = self._reasons[task.folder]
                line.failed.append(f"learning rate {tried:g}: {why}")
                continue
            (result,) = task.judgements[0].results(task.folder)
            scores = {n: s["mean"] for n, s in result["scores"].items()}
            line.tried[tried] = scores[table.headline(scores)]
        if trials:
            if not line.tried:
                self._write()
                return
            rate = max(line.tried, key=line.tried.get)
            self.say(f"{row.name}: learning rate {rate:g} is chosen")
        for seed in self.plan.seeds:
            task = self._final(row, seed, rate)
            self._make(line, seed, task)
            if not line.rate and (task.folder / "recipe.json").is_file():
                line.rate = table.resolved_rate(task.folder)

    def _trials(self, row):
        """The runs among which a row's learning rate is chosen, by rate."""
        if len(row.rates) < 2:
            return {}
        plan = self.plan
        judgement = Judgement(
            "choice.json",
            row.recipe,
            (plan.choose_by,),
            (0,),
            plan.changes,
            chooses=True,
            validation=plan.validation,
        )
        return {
            rate: self._run_task(row, plan.tuning_seed, rate, judgement)
            for rate in row.rates
        }

    def _final(self, row, seed, rate):
        return self._run_task(row, seed, rate, self._judgement(row.recipe, seed))

    def _run_task(self, row, seed, rate, judgement):
        named = f"seed_{seed}" if rate is None else f"rate_{rate:g}_seed_{seed}"
        title = f"{row.name}, seed {seed}"
        title += "" if rate is None else f", learning rate {rate:g}"
        folder = self.out / "runs" / row.slug / named
        return _Task(title, "run", row.run(seed, rate), folder, (judgement,))

    def _judgement(self, recipe, seed, protocols=None):
        plan = self.plan
        return Judgement(
            "evaluation.json",
            recipe,
            protocols or plan.protocols,
            (seed,),
            plan.changes,
            validation=plan.validation,
        )

    def _baselines(self):
        """Name of a baseline, its seeds and tasks: one for each kind of encoder."""
        folder, found = self.out / "baselines", []
        features = tuple(p for p in self.plan.protocols if p in _OF_FEATURES)
        for names, row in _different(self.plan.rows, _IMAGES):
            name = f"raw pixels{names}"
            seed = self.plan.seeds[0]
            judgement = self._judgement(row.recipe, seed, features)
            path = folder / f"raw_pixels_{row.slug}"
            task = _Task(name, "raw_pixels", row.run(seed), path, (judgement,))
            if features:
                found.append((name, [(seed, task)]))
        for names, row in _different(self.plan.rows, _IMAGES + _ARCHITECTURE):
            name = f"untrained encoder{names}"
            members = []
            for seed in self.plan.seeds:
                judgements = (self._judgement(row.recipe, seed),)
                path = folder / f"untrained_{row.slug}" / f"seed_{seed}"
                title = f"{name}, seed {seed}"
                task = _Task(title, "untrained", row.run(seed), path, judgements)
                members.append((seed, task))
            found.append((name, members))
        return found

    def _new_line(self, name):
        line = table.Line(name)
        self._lines.append(line)
        return line

    def _make(self, line, seed, task):
        """Does a task and adds what was found to a line."""
        if self._do(task):
            results = task.judgements[0].results(task.folder)
            line.add(seed, task.folder, results)
        else:
            line.failed.append(f"seed {seed}: {self._reasons[task.folder]}")
        self._write()

    def _do(self, task):
        """Does a task, unless it is done; whether it is."""
        is_new = task.folder not in self._reasons
        if is_new:
            self._place += 1
        if task.is_done():
            self._reasons[task.folder] = ""
            return True
        if not is_new and self._reasons[task.folder]:
            return False
        self.say(f"[{self._place}/{self._total}] {task.title}{self._time_left()}")
        began = time.monotonic()
        log = self.out / "logs" / f"{'_'.join(task.folder.parts[-2:])}.log"
        job = {
            "kind": task.kind,
            "recipe": dataclasses.asdict(task.recipe),
            "folder": str(task.folder),
            "judgements": [dataclasses.asdict(j) for j in task.judgements],
            **self._options,
        }
        reason = do(job, log, lambda line: self.say(f"  {line}"))
        if not reason and not task.is_done():
            reason = f"its process has left nothing behind; see {log}"
        self._reasons[task.folder] = reason
        self.say(f"  failed: {reason}" if reason else f"  done in {_since(began)}")
        return not reason

    def _time_left(self):
        """What the runs that are left may take, judged by those that are done."""
        paths = sorted((self.out / "runs").glob("*/*/summary.json"))
        known = [table.seconds_of(path.parent) for path in paths]
        if not known:
            return ""
        left = (self._total - self._place + 1) * sum(known) / len(known)
        return f"; about {duration(left)} left"

    def _write(self):
        table.write(self._lines, self.plan, self.out)


def _different(rows, options):
    """Rows that differ in some options, one of each kind, and a name for the kind."""
    kinds = {}
    for row in rows:
        key = json.dumps([getattr(row.recipe, name) for name in options])
        kinds.setdefault(key, []).append(row)
    for members in kinds.values():
        named = f" ({', '.join(row.name for row in members)})"
        yield named * (len(kinds) > 1), members[0]


def _check_same(row, recipe, kept, folder):
    changed = [
        f"{field.name}={getattr(recipe, field.name)!r} (its runs have "
        f"{getattr(kept, field.name)!r})"
        for field in dataclasses.fields(recipe)
        if getattr(recipe, field.name) != getattr(kept, field.name)
    ]
    if changed:
        raise ValueError(
            f"sweep: a row that has runs must keep its recipe. Received: {row.name} "
            f"with {', '.join(changed)}. Give the row another name, take another "
            f"folder, or delete {folder}."
        )


def _since(began):
    return duration(time.monotonic() - began)
