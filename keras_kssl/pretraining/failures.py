"""What can go wrong while a run trains, in sentences that say how to go on."""

import contextlib
import errno
import shlex
import signal
import traceback

from keras_kssl.data import TooManyBroken

_MEMORY_SIGNS = (
    "resource_exhausted",
    "resourceexhausted",
    "oom when allocating",
    "out of memory",
)


# How TensorFlow's gRPC and JAX's Gloo say that the other end is closed.
_LOST_WORKER_SIGNS = (
    "unavailable",
    "aborted",
    "cancelled",
    "deadline",
    "connection",
    "gloo",
    "heartbeat",
    "collective",
)


class RunFailed(RuntimeError):
    """A run has ended before its time; the message says why and what to do."""


class RunInterrupted(KeyboardInterrupt):
    """A run was stopped from outside; the message says how it goes on."""

    def __init__(self, text, number):
        super().__init__(text)
        self.signal = number


@contextlib.contextmanager
def explained(run, interruption):
    """Turns whatever ends a run into a sentence about it."""
    try:
        yield
    except RunFailed:
        raise
    except KeyboardInterrupt:
        number = interruption.signal or signal.SIGINT
        raise RunInterrupted(f"Stopped. {how_to_go_on(run)}", number) from None
    except FloatingPointError as error:
        raise RunFailed(
            f"Training was lost: {error}. Start a new run with a lower learning rate "
            "or a longer warm-up; with mixed_float16, try mixed_bfloat16. "
            f"{last_checkpoint(run)}"
        ) from None
    except TooManyBroken as error:
        raise RunFailed(str(error)) from None
    except Exception as error:
        if is_full_disk(error):
            raise RunFailed(
                f"The disk of {run.folder.path} is full. Free some space. "
                f"{how_to_go_on(run)}"
            ) from error
        if run.distribution.num_workers > 1 and is_lost_worker(error):
            raise RunFailed(
                f"Another worker is gone ({type(error).__name__})."
                f"{run.distribution.name_silent_workers()} Start all of them again. "
                f"{how_to_go_on(run)}"
            ) from error
        # Several workers cannot try batches, each at another time.
        if not is_out_of_memory(error) or run.distribution.num_workers > 1:
            raise
        # The arrays that did not fit are alive in the frames that the error has seen.
        traceback.clear_frames(error.__traceback__)
        run.forget_model()
        raise RunFailed(
            f"The memory does not hold a batch of {run.recipe.batch_size}. "
            f"{largest_batch(run)} If other programs took the memory: "
            f"{how_to_go_on(run)}"
        ) from error


def collapsed(run, reason):
    """The end of a run that was to stop where embeddings collapse."""
    return RunFailed(
        f"{reason} Start a new run with other settings. {last_checkpoint(run)} To go "
        f"on all the same, without --stop-on-collapse: {_resume_command(run)}"
    )


def how_to_go_on(run):
    return f"{last_checkpoint(run)} Go on: {_resume_command(run)}"


def _resume_command(run):
    return f"kssl pretrain --resume --out {shlex.quote(str(run.folder.path))}"


def last_checkpoint(run):
    """What is kept: the step of the last checkpoint."""
    steps = run.checkpoints.steps()
    if not steps:
        return "No checkpoint was written yet; the run begins again from its start."
    return f"The last checkpoint is of step {steps[0]} of {run.prepared.total_steps}."


def is_full_disk(error):
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "No space left on device" in str(error)


def is_lost_worker(error):
    is_of_backend = type(error).__module__.startswith(("tensorflow", "jax"))
    text = f"{type(error).__name__} {error}".lower()
    return is_of_backend and any(sign in text for sign in _LOST_WORKER_SIGNS)


def is_out_of_memory(error):
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in _MEMORY_SIGNS)


def largest_batch(run):
    """A sentence on the largest half of a batch that trains, found by trying."""
    size = run.recipe.batch_size
    while size > 2:
        size = max(2, size // 2)
        try:
            run.try_batch(size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)
        else:
            return f"A batch of {size} fits: start a new run with --batch-size {size}."
    return "Not even a batch of 2 fits: take a smaller encoder or smaller views."
