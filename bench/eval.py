#!/usr/bin/env python3
"""The evaluation of every engine: see eval/cli.py and docs/EVALUATION.md."""

import sys

from eval.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
