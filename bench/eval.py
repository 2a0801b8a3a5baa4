#!/usr/bin/env python3
"""The evaluation of every engine: see eval/cli.py and docs/EVALUATION.md."""

import sys

sys.dont_write_bytecode = True  # the tree may be read-only, and stays as it is

from eval.cli import main  # noqa: E402  # pylint: disable=wrong-import-position

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
