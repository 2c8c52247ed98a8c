"""Running one command, and saying in one sentence why it failed."""

import contextlib
import dataclasses
import functools
import importlib.util
import operator
import os
import pathlib
import sys
import tempfile

import tyro

from keras_kssl.cli.converting import Convert
from keras_kssl.cli.judging import Evaluate, Report, Transfer
from keras_kssl.cli.looking import Doctor, Preview
from keras_kssl.cli.sweeping import Sweep
from keras_kssl.cli.training import Pretrain, Quickstart, RunEnded, typed_options
from keras_kssl.cli.using import Export, Extract
from keras_kssl.cli.zoo import Zoo

_EXIT_WRONG_INPUT = 2

COMMANDS = (
    Quickstart,
    Pretrain,
    Sweep,
    Evaluate,
    Transfer,
    Extract,
    Export,
    Convert,
    Report,
    Zoo,
    Preview,
    Doctor,
)


def main(arguments=None):
    """Runs one command.

    Returns:
        Its exit code: 0; 1 where it failed; 2 for wrong input; 128 and the number of
        the signal where one has stopped it.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    commands = functools.reduce(operator.or_, COMMANDS)
    try:
        command = tyro.cli(
            commands,
            args=arguments,
            prog="kssl",
            description="Kernel self-supervised learning of image encoders.",
            config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes),
        )
        if isinstance(command, Pretrain | Sweep):
            typed = typed_options(arguments)
            command = dataclasses.replace(command, typed=typed)
        choose_backend()
        with without_greetings():
            import keras  # noqa: F401
        command.run()
    except RunEnded as error:
        print(f"kssl: {error}", file=sys.stderr)
        if error.is_of_workers:
            # At its end the process would wait for those that are gone.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(error.code)
        return error.code
    except KeyboardInterrupt:
        print("kssl: interrupted", file=sys.stderr)
        return 130
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"kssl: {error}", file=sys.stderr)
        return _EXIT_WRONG_INPUT
    return 0


def choose_backend():
    """Takes the backend that is installed where the user has not chosen one."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow takes oneDNN's convolutions by itself on some processors of Intel only;
    # on AMD's a step without them needs more than twice the time.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    configured = pathlib.Path("~/.keras/keras.json").expanduser().is_file()
    if "KERAS_BACKEND" in os.environ or configured:
        return
    for backend in ("tensorflow", "jax"):
        if importlib.util.find_spec(backend) is not None:
            os.environ["KERAS_BACKEND"] = backend
            return
    raise OSError(
        "No Keras backend is installed. "
        "Install one: pip install 'keras_kssl[tensorflow]' (or [jax])."
    )


@contextlib.contextmanager
def without_greetings():
    """Keeps back what TensorFlow says while it is loaded, unless that fails.

    No setting silences the notes that its C++ code writes before logging is set up.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            yield
        except BaseException:
            notes.seek(0)
            os.write(terminal, notes.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
