"""A run's folder: claimed by one process, described, and taken up again."""

import contextlib
import csv
import io
import json
import shutil

from keras_kssl._files import (
    held_by_this_process,
    local_path,
    remove_partial,
    write_whole,
)
from keras_kssl._versions import versions
from keras_kssl.recipes import Recipe


class RunFolder:
    """The folder of one run; no other process can claim it until `stack` is closed.

    Args:
        path: the folder. It must not exist or be empty; or hold a run, with
            `overwrite`, which is deleted when the new one begins, or with `resume`.
        overwrite, resume: see `path`.
        stack: `contextlib.ExitStack` that lets the folder go.
        is_chief: whether this is the worker that writes. Of several workers one claims
            the folder; for the others, who read, what writes does nothing.

    Raises:
        FileExistsError, FileNotFoundError, BlockingIOError, OSError: where the folder
            is another's, is not there, is in use, or cannot be written.
    """

    def __init__(self, path, overwrite, resume, stack, is_chief=True):
        self.path = local_path("pretrain", path)
        self._is_chief = is_chief
        if not is_chief:
            return
        self._check(overwrite, resume)
        is_new = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held_by_this_process(self.path, "pretrain"))
        except BlockingIOError:
            raise
        except OSError as error:
            raise OSError(
                "pretrain: `out` must be a folder that can be written. Received: "
                f"out={str(self.path)!r} ({error.strerror}). Take another folder."
            ) from None
        # What another process did between the check and the lock.
        self._check(overwrite, resume)
        remove_partial(self.path)
        if is_new:
            stack.callback(self._forget_unless_begun)

    def __truediv__(self, name):
        return self.path / name

    def begin(self, recipe, facts, listing=None):
        """Empties the folder and writes down what the run is made of.

        Args:
            recipe: the resolved recipe.
            facts: dictionary that says whether data are the same.
            listing: names of the files that are trained on, or `None`.
        """
        if not self._is_chief:
            return
        # A folder with a recipe holds a run: the recipe goes last, and comes last.
        for path in sorted(self.path.iterdir(), key=lambda p: p.name == "recipe.json"):
            if path.name == ".lock":
                continue
            is_folder = path.is_dir() and not path.is_symlink()
            shutil.rmtree(path) if is_folder else path.unlink()
        self._write_json("data.json", facts)
        self._write_json("versions.json", versions())
        if listing is not None:
            self._write_json("files.json", listing)
        self.keep_recipe(recipe)

    def keep_recipe(self, recipe):
        """Writes the recipe down."""
        if self._is_chief:
            write_whole(self / "recipe.json", recipe.to_json())

    def recipe(self):
        """The recipe of the run that is in the folder."""
        return Recipe.read(self / "recipe.json")

    def listing(self):
        """Names of the files that the run began with; `None` for other sources."""
        return self._read_json("files.json")

    def check_count(self, facts):
        """Raises `ValueError` where the data are more or fewer than they were."""
        before = (self._read_json("data.json") or facts)["images"]
        if before != facts["images"]:
            raise ValueError(
                f"pretrain: the run in {self.path} must go on with the data that it "
                f"began with, {before} images. Received: {facts['name']} with "
                f"{facts['images']}. Bring them back, or start a new run."
            )

    def changes(self, facts):
        """Sentences on what is not as it was when the run began."""
        lines, now = [], versions()
        for name, version in (self._read_json("versions.json") or {}).items():
            if now.get(name) != version:
                lines.append(f"{name} was {version} and is {now.get(name)}")
        for name, value in (self._read_json("data.json") or {}).items():
            if facts.get(name) != value:
                lines.append(f"the data's {name} was {value} and is {facts.get(name)}")
        return lines

    def cut_metrics(self, epochs):
        """Removes from metrics.csv all but the first `epochs` epochs."""
        path = self / "metrics.csv"
        if not self._is_chief or not path.is_file():
            return
        text = path.read_text(encoding="utf-8")
        rows = list(csv.reader(io.StringIO(text, newline="")))
        # A process that was killed may have left half of a row.
        kept = [row for row in rows[: epochs + 1] if len(row) == len(rows[0])]
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(kept)
        write_whole(path, text.getvalue())

    def last_metrics(self):
        """The last row of metrics.csv: numbers by name."""
        with open(self / "metrics.csv", newline="", encoding="utf-8") as file:
            *_, row = csv.DictReader(file)
        return {
            name: float(value)
            for name, value in row.items()
            if name != "epoch" and value not in ("NA", "nan")
        }

    def log(self, line):
        """Keeps a line in log.txt; a full disk does not matter here."""
        if not self._is_chief:
            return
        with (
            contextlib.suppress(OSError),
            open(self / "log.txt", "a", encoding="utf-8") as file,
        ):
            file.write(line + "\n")

    def report_broken(self, broken):
        """Keeps reasons by name in broken_images.txt; whether they are new."""
        path = self / "broken_images.txt"
        text = "".join(f"{name}: {why}\n" for name, why in sorted(broken.items()))
        if not self._is_chief or not text:
            return False
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return False
        write_whole(path, text)
        return True

    def write_summary(self, summary):
        """Keeps what has come of the run in summary.json."""
        self._write_json("summary.json", summary)

    def _write_json(self, name, value):
        text = json.dumps(value, indent=2, default=float) + "\n"
        write_whole(self / name, text)

    def _read_json(self, name):
        path = self / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def _check(self, overwrite, resume):
        path = self.path
        holds_run = (path / "recipe.json").is_file()
        if resume:
            if not holds_run:
                raise FileNotFoundError(
                    "pretrain: `out` must hold a run where `resume` is given. "
                    f"Received: out={str(path)!r}, which holds none. Start one without "
                    "--resume."
                )
            return
        if not path.exists():
            return
        is_empty = path.is_dir() and all(p.name == ".lock" for p in path.iterdir())
        if is_empty or (holds_run and overwrite):
            return
        holding = "another run" if holds_run else "other files"
        remedy = "Take another folder or empty it."
        if holds_run:
            remedy = (
                "Give --resume to go on with it, --overwrite to delete it, or take "
                "another folder."
            )
        raise FileExistsError(
            f"pretrain: `out` must be a new or an empty folder. Received: "
            f"out={str(path)!r}, which holds {holding}. {remedy}"
        )

    def _forget_unless_begun(self):
        if not (self / "recipe.json").is_file():
            shutil.rmtree(self.path, ignore_errors=True)
