"""What one process of a sweep does: `python -m keras_kssl.sweeping.worker`.

The first line of its input is a job, JSON; it ends when its input does, so that it
never outlives the sweep.
"""

import json
import os
import pathlib
import shutil
import signal
import sys
import threading
import time
import traceback

# Seconds in which the process of a sweep that was killed lets go of its run.
_PATIENCE = 120


def main():
    """Does the job; returns the exit code. The last line says what has failed."""
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        _do(**job)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        traceback.print_exc()
        sentence = str(error).partition("\n")[0]
        is_told = isinstance(error, ValueError | TypeError | OSError | ImportError)
        if not is_told and type(error).__name__ != "RunFailed":
            sentence = f"{type(error).__name__}: {sentence}"
        print(f"kssl: {sentence}", flush=True)
        return 1
    return 0


def _end_with_input():
    # Not by sys.stdin: its lock would be held for ever when the process ends.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _do(kind, recipe, folder, judgements, checkpoint_seconds, distribute):
    from keras_kssl.recipes import Recipe
    from keras_kssl.sweeping.judgement import Judgement

    recipe, folder = Recipe(**recipe), pathlib.Path(folder)
    if kind == "run":
        encoder, size = _trained(recipe, folder, checkpoint_seconds, distribute)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        encoder, size = _baseline(kind, recipe)
    for values in judgements:
        values["recipe"] = Recipe(**values["recipe"])
        judgement = Judgement(**values)
        if judgement.results(folder) is None:
            judgement.make(encoder, folder, size, say=_say)


def _trained(recipe, folder, checkpoint_seconds, distribute):
    """The encoder of a run, which is begun, gone on with or found at its end."""
    from keras_kssl import distribution, zoo
    from keras_kssl.recipes import Recipe

    if not (folder / "summary.json").is_file():
        resumes = (folder / "recipe.json").is_file()
        if not resumes:
            # What a process has left that was killed before its run began.
            shutil.rmtree(folder, ignore_errors=True)
        run = _claimed(
            recipe,
            folder,
            resume=resumes,
            checkpoint_seconds=checkpoint_seconds,
            distribution=distribution.choose(distribute),
            say=_say,
        )
        run.execute()
    return zoo.load(folder), Recipe.read(folder / "recipe.json").size


def _claimed(recipe, folder, **options):
    from keras_kssl import pretraining

    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return pretraining.Run(recipe, folder, **options)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(1.0)


def _baseline(kind, recipe):
    """The untrained encoder of a recipe, or raw pixels, and the size of its images."""
    from keras_kssl.pretraining import judging
    from keras_kssl.pretraining.building import build_encoder
    from keras_kssl.pretraining.preparing import prepare

    if kind == "raw_pixels":
        return judging.flatten_pixels, judging.RAW_SIZE
    prepared = prepare(recipe)
    channels = prepared.source.image_shape[-1]
    return build_encoder(prepared.recipe, channels), prepared.recipe.size


def _say(line):
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
