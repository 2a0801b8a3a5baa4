#!/usr/bin/env bash
# test-eval-report.sh REPORT SCREENSHOT: open it in a browser; no script errors, no empty figure.
set -euo pipefail
report=$(realpath "$1") picture=$2
work=$(mktemp -d "${TMPDIR:-/tmp}/kvfs-browser.XXXXXX")
trap 'rm -rf "$work"' EXIT
browse() {
    HOME=$work timeout 120 chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars \
        --user-data-dir="$work/profile" --enable-logging=stderr --v=0 --window-size=1200,6000 "$@" "file://$report"
}
browse --dump-dom >"$work/dom" 2>"$work/log"
browse --screenshot="$picture" >/dev/null 2>>"$work/log"
if grep -E 'CONSOLE|Uncaught|ERR_FILE|Refused to' "$work/log"; then
    echo "the browser complains" >&2
    exit 1
fi
[ -s "$picture" ]
python3 - "$work/dom" <<'PY'
import re, sys
dom = open(sys.argv[1], encoding="utf-8").read()
figures = re.findall(r"<figure>.*?</figure>", dom, re.S)
if not figures:
    sys.exit("no figure in the report")
for figure in figures:
    title = re.search(r"<figcaption><b>(.*?)</b>", figure, re.S).group(1)
    # What stands for a value: a filled shape or a line of a colour of a series.
    shapes = re.findall(r"<(?:polygon|path)[^>]*(?:fill|stroke)=['\"]\s*(?:rgb\([^)]*\)|#[0-9a-fA-F]{6})", figure)
    if "<svg" not in figure or len(shapes) < 4 or len(re.findall(r"<text", figure)) < 3:
        sys.exit(f"an empty figure: {title}")
if re.search(r"<script|(?:src|href)=['\"](?:https?:|file:|/)", dom):
    sys.exit("the report is not self-contained")
print(f"{len(figures)} figures")
PY
