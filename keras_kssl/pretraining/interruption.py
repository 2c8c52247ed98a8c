"""Ctrl-C and SIGTERM during a run: while it trains, the step is finished first."""

import contextlib
import os
import signal
import threading

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Context in which SIGINT and SIGTERM raise `KeyboardInterrupt`, or wait.

    Inside `waiting()` the first of them is only noted, in `signal`. The second one acts
    as it always does. Signals that the process was told to ignore stay ignored; outside
    the main thread, where Python allows no handlers, nothing changes.
    """

    def __init__(self):
        self.signal = None
        self._previous = {}
        self._waits = False

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *failure):
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    @contextlib.contextmanager
    def waiting(self):
        """Signals are noted; one that nobody has looked at is raised at the end."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False
        if self.signal:
            raise KeyboardInterrupt

    def _note(self, number, frame):
        self.signal = signal.Signals(number)
        self.__exit__()
        if not self._waits:
            raise KeyboardInterrupt
        # Not by print: the signal may have come in the middle of one.
        os.write(2, b"kssl: stopping after this step; once more to stop at once\n")
