"""Files that cannot be read, said in one sentence."""

import contextlib

from keras_kssl._checks import message

AGAIN = "It is damaged or not whole: copy or download it again."


class Unreadable(Exception):
    """A file is not what it should be: `reason`, a sentence, and what to do."""

    def __init__(self, reason, remedy=AGAIN):
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


@contextlib.contextmanager
def explained(caller, source, rule):
    """Turns `Unreadable` into the library's `ValueError` about `source`."""
    try:
        yield
    except Unreadable as error:
        remedy = f"{error.reason} {error.remedy}"
        raise ValueError(message(caller, "source", rule, source, remedy)) from error
