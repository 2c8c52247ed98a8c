"""A job of a sweep in a process of its own."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import keras

_MODULE = "keras_kssl.sweeping.worker"


def do(job, log, say):
    """Does a job in a process of its own, so that it fails alone.

    A process that this one is interrupted in finishes its step first and keeps a
    checkpoint; a second interruption ends it at once.

    Args:
        job: dictionary, see `worker`.
        log: file that its output is added to.
        say: function that prints a line of it.

    Returns:
        "" or the sentence that says what has failed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"KERAS_BACKEND": keras.backend.backend()}
    reason = ""
    with open(log, "a", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            encoding="utf-8",
            errors="backslashreplace",
            env=environment,
            # A terminal's Ctrl-C is passed on below, once.
            start_new_session=True,
        )
        # It may end before it has read anything.
        with contextlib.suppress(BrokenPipeError), process:
            try:
                # The process reads on, until it or this one ends.
                process.stdin.write(json.dumps(job) + "\n")
                process.stdin.flush()
                for line in process.stdout:
                    file.write(line)
                    file.flush()
                    if line.startswith("kssl: "):
                        reason = line.removeprefix("kssl: ").strip()
                    else:
                        say(line.rstrip("\n"))
            except KeyboardInterrupt:
                _end(process, file)
                raise
    code = process.returncode
    return reason if code == 1 and reason else _explained(code, log)


def _end(process, file):
    """Lets a process finish its step; at once where this is interrupted again."""
    try:
        process.send_signal(signal.SIGTERM)
        for line in process.stdout:
            file.write(line)
        process.wait()
    except KeyboardInterrupt:
        process.kill()
        raise


def _explained(code, log):
    if code == 0:
        return ""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        more = ", as where there is too little memory" * (name == "SIGKILL")
        return f"its process was killed ({name}{more}); see {log}"
    return f"its process ended with code {code}; see {log}"
