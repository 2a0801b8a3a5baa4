"""Figures by gnuplot, as SVG to stand inside a page."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import Dict, List, Optional, Sequence, Tuple

# Engines keep their colour from figure to figure; told apart also by those who see no red or green.
COLOURS = {"lmdb": "#0072b2", "sqlite": "#e69f00", "rocksdb": "#009e73", "jammdb": "#d55e00",
           "sled": "#cc79a7", "log:lmdb": "#56b4e9", "log:sqlite": "#f0c869", "log:rocksdb": "#7fcfb4",
           "log:jammdb": "#eaa377", "log:sled": "#e3b9d0", "raw": "#555555"}
SPARE = ("#333333", "#777777", "#999944", "#664488", "#117733", "#882255")

Point = Tuple[float, float, float]  # value, low, high


@dataclass
class Figure:
    """What is drawn: bars (a value of each name), lines (over x), or stacks (parts of each name)."""
    title: str
    kind: str
    unit: str
    names: List[str]
    series: Dict[str, List[Optional[Point]]] = field(default_factory=dict)  # one point a name
    log: bool = False
    note: str = ""

    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(point for points in self.series.values() for point in points)


def available() -> bool:
    """Whether gnuplot is there."""
    return shutil.which("gnuplot") is not None


def colour(name: str, number: int) -> str:
    """Of a series."""
    base = name.split("@")[0].replace("vfs:", "")
    return COLOURS.get(base, SPARE[number % len(SPARE)])


def quoted(text: str) -> str:
    """For gnuplot."""
    return '"' + text.replace("\\", "\\\\").replace('"', "'") + '"'


def block(number: int, rows: Sequence[str]) -> str:
    """Data that stands in the script."""
    return f"$d{number} << EOD\n" + "\n".join(rows) + "\nEOD\n"


def row(label: str, place: float, point: Optional[Point]) -> str:
    """A line of data; NaN for what was not measured."""
    values = " ".join(f"{value:.6g}" for value in point) if point else "NaN NaN NaN"
    return f"{quoted(label)} {place:.4f} {values}"


def header(figure: Figure, identity: str) -> List[str]:
    """Terminal and axes."""
    wide = max(640, min(1000, 120 + 22 * len(figure.names) * max(1, len(figure.series))))
    lines = [f'set terminal svg noenhanced size {wide},380 dynamic font "sans-serif,12" '
             f'name "{identity}" background "white"',
             "set output", "set grid ytics lc rgb '#dddddd'", "set border 3", "set tics nomirror",
             f"set ylabel {quoted(figure.unit)}", "set key outside right top",
             f"set format y '%.{0 if figure.log else 1}s%c'", "set bars front",
             "set datafile missing 'NaN'"]
    lines.append("set logscale y" if figure.log else "set yrange [0:*]")
    return lines


def ticks(figure: Figure) -> str:
    """Names below the figure."""
    marks = ", ".join(f"{quoted(name)} {place}" for place, name in enumerate(figure.names))
    return f"set xtics ({marks}) {'rotate by -30' if len(figure.names) > 6 else ''}"


def bars(figure: Figure) -> Tuple[List[str], List[str]]:
    """Data and plots of grouped bars with error bars."""
    count = len(figure.series)
    width = 0.8 / max(1, count)
    data, plots = [], []
    single = count == 1
    for number, (name, points) in enumerate(figure.series.items()):
        shift = (number - (count - 1) / 2) * width
        rows = [row(n, place + shift, point) for place, (n, point) in enumerate(zip(figure.names, points))]
        data.append(block(number, rows))
        if single:
            for place, label in enumerate(figure.names):
                plots.append(f"$d{number} every ::{place}::{place} using 2:3:({width:.3f}) with boxes fs solid "
                             f"0.8 lc rgb '{colour(label, place)}' notitle")
        else:
            plots.append(f"$d{number} using 2:3:({width:.3f}) with boxes fs solid 0.8 "
                         f"lc rgb '{colour(name, number)}' title {quoted(name)}")
        plots.append(f"$d{number} using 2:3:4:5 with yerrorbars ps 0 lw 1.5 lc rgb 'black' notitle")
    return data, plots


def lines_of(figure: Figure) -> Tuple[List[str], List[str]]:
    """Data and plots of lines with error bars."""
    data, plots = [], []
    for number, (name, points) in enumerate(figure.series.items()):
        data.append(block(number, [row(n, place, point) for place, (n, point)
                                   in enumerate(zip(figure.names, points))]))
        plots.append(f"$d{number} using 2:3:4:5 with yerrorlines pt 7 ps 0.5 lw 1.8 "
                     f"lc rgb '{colour(name, number)}' title {quoted(name)}")
    return data, plots


def stacks(figure: Figure) -> Tuple[List[str], List[str]]:
    """Data and plots of parts upon one another; the error bar is of the whole, the last series."""
    parts = list(figure.series.items())
    whole = parts.pop()
    below = [0.0] * len(figure.names)
    data, plots = [], []
    for number, (name, points) in enumerate(parts):
        rows = []
        for place, point in enumerate(points):
            top = below[place] + (point[0] if point else 0)
            rows.append(row(figure.names[place], place, (top, below[place], top)))
            below[place] = top
        data.append(block(number, rows))
        plots.append(f"$d{number} using 2:3:($2-0.35):($2+0.35):4:3 with boxxyerror fs solid 0.85 "
                     f"lc rgb '{SPAN_COLOURS[number % len(SPAN_COLOURS)]}' title {quoted(name)}")
    number = len(parts)
    data.append(block(number, [row(n, place, point) for place, (n, point)
                               in enumerate(zip(figure.names, whole[1]))]))
    plots.append(f"$d{number} using 2:3:4:5 with yerrorbars ps 0 lw 1.5 lc rgb 'black' "
                 f"title {quoted(whole[0])}")
    return data, plots


SPAN_COLOURS = ("#bbbbbb", "#888888", "#0072b2", "#56b4e9", "#e69f00", "#d55e00", "#009e73")
DRAW = {"bars": bars, "lines": lines_of, "stacks": stacks}


def script(figure: Figure, identity: str) -> str:
    """The whole of a gnuplot script."""
    data, plots = DRAW[figure.kind](figure)
    lines = header(figure, identity)
    lines.append(ticks(figure))
    lines.append(f"set xrange [-0.6:{len(figure.names) - 0.4:.1f}]")
    return "".join(data) + "\n".join(lines) + "\nplot " + ", \\\n     ".join(plots) + "\n"


def svg(figure: Figure, identity: str) -> Optional[str]:
    """The figure, or None without gnuplot; RuntimeError if gnuplot refuses it."""
    if not available():
        return None
    done = subprocess.run(["gnuplot", "-"], input=script(figure, identity), text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0 or "<svg" not in done.stdout:
        raise RuntimeError(f"gnuplot: {figure.title}: {done.stderr.strip()[:400]}")
    return inline(done.stdout, identity, figure.title)


def inline(text: str, identity: str, title: str) -> str:
    """SVG without its prologue, with names of its own, and a title for those who cannot see it."""
    text = text[text.index("<svg"):]
    for name in sorted(set(re.findall(r"""id=['"]([^'"]+)['"]""", text)), key=len, reverse=True):
        if not name.startswith(identity):
            text = re.sub(rf"""(id=['"]|#){re.escape(name)}(?=['")])""", rf"\g<1>{identity}{name}", text)
    safe = title.replace("&", "&amp;").replace("<", "&lt;")
    text = re.sub(r"<title>.*?</title>|<desc>.*?</desc>", "", text, flags=re.S)
    return text.replace(">", f' role="img"><title>{safe}</title>', 1)
