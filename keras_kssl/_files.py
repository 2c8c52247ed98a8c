"""Files and folders that appear whole or not at all, or that one process holds."""

import contextlib
import hashlib
import os
import pathlib
import re
import shutil
import tempfile

from keras_kssl._checks import check_that, message

_PARTIAL = ".partial"


def local_path(caller, path):
    """A path on this machine, `~` expanded."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(message(caller, "path", "a path", path))
    text = os.path.expanduser(os.fspath(path))
    check_that(
        # A path object makes one stroke of two; a drive has one letter.
        text and not re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text),
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


def write_whole(path, content):
    """Writes a file so that readers, at any moment, find the old or the new content.

    Args:
        path: file to write or to replace, in a folder that is there.
        content: text, bytes, or a function that writes to the open binary file.
    """
    path = pathlib.Path(path)
    # A name of its own for each process: two writers must not share one file.
    partial = path.with_name(f"{path.name}.{os.getpid()}{_PARTIAL}")
    try:
        with open(partial, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            # Without this a machine that loses power may keep the name and lose the
            # content.
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def remove_partial(folder):
    """Deletes what `write_whole` left in a folder when its process was killed."""
    for path in pathlib.Path(folder).glob(f"*{_PARTIAL}"):
        path.unlink(missing_ok=True)


def sha256(path):
    """SHA-256 of a file's content, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def held_by_this_process(folder, caller):
    """Holds a folder until the block ends or the process dies, however it dies.

    Raises `BlockingIOError` where another process holds it. On systems without POSIX
    locks nothing is held.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    path = pathlib.Path(folder) / ".lock"
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise BlockingIOError(
                f"{caller}: `out` must be a folder that no other process works in. "
                f"Received: out={str(folder)!r}, held by process {file.read().strip()}."
                " Wait for it to end, or take another folder."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        # The file stays: deleting it would let two others hold two files of one name.
        yield
