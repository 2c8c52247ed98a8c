"""How long the command line takes to answer, and quickstart to make its first step.

    python -m benchmarks.startup [--rounds 5]

Both in processes of their own, from their start on. Also how often the training step is
traced, up to the middle of the second epoch.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time

# A step in Python runs once for each time that it is traced.
_QUICKSTART = """
import json, os, sys, time
import keras
import keras_kssl as kssl
from keras_kssl.cli import main

model_class = kssl.models.SelfSupervisedModel
fit, train_step = model_class.fit, model_class.train_step
traces, steps, first = 0, 0, None

class Watch(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        global steps, first
        first = first or time.time()
        steps += 1
        if steps == 3 * self.params["steps"] // 2:
            print("\\n" + json.dumps({"first": first, "traces": traces}), flush=True)
            os._exit(0)

def watched_fit(self, *args, callbacks=(), **keywords):
    return fit(self, *args, callbacks=[*callbacks, Watch()], **keywords)

def counted_step(self, *args):
    global traces
    traces += 1
    return train_step(self, *args)

model_class.fit, model_class.train_step = watched_fit, counted_step
main(["quickstart", "--out", sys.argv[1]])
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    answers, first_steps = [], []
    for _ in range(options.rounds):
        began = time.time()
        command = [sys.executable, "-m", "keras_kssl.cli", "--help"]
        subprocess.run(command, check=True, capture_output=True)
        answers.append(time.time() - began)
        with tempfile.TemporaryDirectory() as folder:
            began = time.time()
            run = subprocess.run(
                [sys.executable, "-c", _QUICKSTART, f"{folder}/run"],
                capture_output=True,
                text=True,
            )
            found = json.loads(run.stdout.splitlines()[-1])
        first_steps.append(found["first"] - began)
    print(f"kssl --help: {statistics.median(answers):.2f} s")
    print(
        f"kssl quickstart to the end of its first step: "
        f"{statistics.median(first_steps):.1f} s, at best {min(first_steps):.1f} s; "
        f"traced {found['traces']} times"
    )


if __name__ == "__main__":
    main()
