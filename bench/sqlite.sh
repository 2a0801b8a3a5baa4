#!/usr/bin/env bash
# sqlite.sh: SQLite on the VFS `kvfs` beside the stock one.  README.md says how to read it;
# --help lists the options.
exec python3 "$(dirname "$0")/sqlite/run.py" "$@"
