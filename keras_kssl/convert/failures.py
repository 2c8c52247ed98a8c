"""Files that cannot be read, said in one sentence."""

import contextlib

from keras_kssl._checks import message

_LONGEST = 100
AGAIN = "It is damaged or not whole: copy or download it again."


class Unreadable(Exception):
    """A file is not what it should be: `reason`, a sentence, and what to do."""

    def __init__(self, reason, remedy=AGAIN):
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


def listed(names, number=4):
    """The first of the names in a file, which may be long and hold anything."""
    names, shown = list(names), []
    for name in names[:number]:
        is_plain = name.isprintable() and len(name) <= _LONGEST
        shown.append(name if is_plain else f"{name!r:.{_LONGEST}}")
    return ", ".join(shown) + (", ..." if len(names) > number else "")


@contextlib.contextmanager
def explained(caller, source, rule):
    """Turns `Unreadable` into the library's `ValueError` about `source`."""
    try:
        yield
    except Unreadable as error:
        remedy = f"{error.reason} {error.remedy}"
        raise ValueError(message(caller, "source", rule, source, remedy)) from error
