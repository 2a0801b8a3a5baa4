#!/usr/bin/env bash
# The evaluation: its statistics, plan, interruptions and bad input; nothing is measured.
set -euo pipefail
command -v gnuplot >/dev/null || exit 77
cd "$(dirname "$0")"
exec /usr/bin/env python3 -B -m unittest -f eval.tests.test_eval eval.tests.test_memory
