"""Results of protocols in a file that other programs read."""

import datetime
import json

from keras_kssl._files import write_whole
from keras_kssl._versions import versions

_FORMAT = 1


class Record:
    """What was found of one encoder, written to disk whenever there is more of it.

    The file is JSON: `format`, `encoder`, `train`, `test`, `date` (UTC), `versions`,
    and `results`, the dictionaries that `evaluate` returns.

    Args:
        encoder, train, test: what people call them.
        path: file to write; `None` to keep nothing.
    """

    def __init__(self, encoder, train, test, path):
        self._path = path
        self.facts = {
            "format": _FORMAT,
            "encoder": str(encoder),
            "train": train,
            "test": test,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            "results": [],
        }

    def add(self, result):
        """Adds one result and writes the file."""
        self.facts["results"].append(result)
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, json.dumps(self.facts, indent=2) + "\n")


def known_results(path, asked):
    """The results of a file that holds all that is asked for; else `None`.

    Args:
        path: file that a `Record` has written, there or not.
        asked: what the record's `facts["asked"]` must be, as JSON gives it back; its
            `protocols` say how many results make the whole.
    """
    if not path.is_file():
        return None
    kept = json.loads(path.read_text(encoding="utf-8"))
    is_whole = len(kept["results"]) == len(asked["protocols"])
    return kept["results"] if kept.get("asked") == asked and is_whole else None
