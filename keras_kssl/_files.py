"""Files and folders that appear whole or not at all."""

import contextlib
import os
import pathlib
import shutil
import tempfile

from keras_kssl._checks import check_that, message


def local_path(caller, path):
    """A path on this machine, `~` expanded."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(message(caller, "path", "a path", path))
    text = os.path.expanduser(os.fspath(path))
    check_that(
        text and "://" not in text,
        caller,
        "path",
        "a local path",
        path,
        "Write to a local folder and copy it from there.",
    )
    return pathlib.Path(text)


@contextlib.contextmanager
def staged(caller, path, overwrite, is_replaceable):
    """Yields a temporary path, moved to `path` if the block succeeds, and `path`.

    Whatever fails, nothing new is left behind and what stood at `path` stands there.
    """
    final = local_path(caller, path)

    def check_free():
        if os.path.lexists(final) and not (overwrite and is_replaceable(final)):
            remedy = "Choose another path" + (
                ": what stands there was not written by this function."
                if overwrite
                else " or set overwrite=True."
            )
            raise FileExistsError(message(caller, "path", "free", str(path), remedy))

    check_free()
    made = [folder for folder in final.parents if not folder.exists()]
    temporary = None
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent)
        # One level below, so that the result gets the usual permissions rather than
        # the private ones of a temporary folder.
        staged = os.path.join(temporary, final.name)
        yield staged, str(final)
        check_free()
        previous = os.path.join(temporary, "previous")
        if final.is_dir():  # a folder cannot be replaced in one move
            os.rename(final, previous)
        try:
            os.replace(staged, final)
        except OSError:
            if os.path.lexists(previous):
                os.rename(previous, final)
            raise
        made = []
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
