"""Where downloaded files lie, and what the environment says about downloads."""

import contextlib
import hashlib
import os
import pathlib
import time

from keras_kssl._files import held_by_this_process

_SECONDS_BETWEEN_LOOKS = 0.1


def folder():
    """The folder of all downloads: KSSL_CACHE, or else ~/.cache/keras_kssl."""
    chosen = os.environ.get("KSSL_CACHE") or "~/.cache/keras_kssl"
    return pathlib.Path(chosen).expanduser().absolute()


def is_offline():
    """Whether KSSL_OFFLINE forbids all downloads."""
    return os.environ.get("KSSL_OFFLINE", "").lower() not in ("", "0", "false", "no")


def mirror():
    """KSSL_MIRROR, which takes the place of scheme and host; "" for none."""
    return os.environ.get("KSSL_MIRROR", "").rstrip("/")


def place_of(address, name):
    """The file that an address is kept in, whatever mirror it comes from.

    Args:
        address: checked address.
        name: checked name of the file.
    """
    digest = hashlib.sha256(address.encode()).hexdigest()[:16]
    return folder() / "files" / digest / name


@contextlib.contextmanager
def held(place, say):
    """Holds the folder of a file; waits for another process that holds it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    has_said = False
    while True:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(held_by_this_process(place.parent, "zoo.load"))
            except BlockingIOError:
                if not has_said:
                    say(f"Another process fetches {place.name}: waiting for it.")
                    has_said = True
            else:
                yield
                return
        time.sleep(_SECONDS_BETWEEN_LOOKS)
