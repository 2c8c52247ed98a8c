"""python -m keras_kssl.cli, where the command kssl is not on the path."""

import sys

from keras_kssl.cli import main

if __name__ == "__main__":
    sys.exit(main())
