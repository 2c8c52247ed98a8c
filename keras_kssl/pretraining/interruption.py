"""Ctrl-C and SIGTERM during training: the step is finished and the state written."""

import signal
import threading

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Context in which the first SIGINT or SIGTERM is only noted, in `signal`.

    The second one acts as it always does. Outside the main thread, where Python allows
    no handlers, nothing changes.
    """

    def __init__(self):
        self.signal = None
        self._previous = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *failure):
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _note(self, number, frame):
        self.signal = signal.Signals(number)
        self.__exit__()
