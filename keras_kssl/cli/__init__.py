"""The command line: kssl quickstart, pretrain, evaluate, extract, export and more."""

from keras_kssl.cli.running import COMMANDS, main

__all__ = ["COMMANDS", "main"]
