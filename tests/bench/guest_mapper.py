#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Run guest_mapper.c on the boards and print what the mapper's calls cost in instructions.

Baseline of the same run: a loop that stores (or loads) the same entries. One CPU,
-icount shift=0; built as platforms/boot builds the demo.
"""
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "platforms", "tools"))
# pylint: disable=wrong-import-position
import boot
import guest

KERNEL = "tests/bench/helix-bench.elf"
# "# bench guest map-512 kernel-riscv64 instructions 14.563 per-page"
FIGURE = re.compile(r"# (bench guest (\S+) (\S+)-\S+) instructions (\S+) (\S+)")


def figures_of(family):
    """-> (lines of the guest's figures as matches, was it well?)"""
    commands, kernel = boot.build_commands(family, boot.parse([family]), KERNEL)
    if not boot.build(commands):
        return [], False
    outcome = guest.run(guest.command(family, kernel, cpus=1, icount=True), 120, lambda _: None)
    well = not outcome.timed_out and guest.passed(family, outcome.status)
    found = [match for line in outcome.lines if (match := FIGURE.fullmatch(line))]
    said = [line for line in outcome.lines
            if line.startswith(("not ok", "Bail out!", "# counts differ"))]
    print("".join(f"{family}: {line}\n" for line in said), end="")
    return found, well and bool(found)


def table(family, figures):
    """A row for each workload, a column for each subject."""
    subjects = list(dict.fromkeys(f[3] for f in figures if f[3] != "baseline"))
    print(f"\nmapper on {family}: instructions of a call for one page, of each page of more")
    print(f"  {'':24}" + "".join(f"{s:>12}" for s in subjects))
    for workload in dict.fromkeys(f[2] for f in figures):
        row = {f[3]: f[4] for f in figures if f[2] == workload}
        if "baseline" in row:
            print(f"  {workload:24}{row['baseline']:>12}")
        else:
            print(f"  {workload:24}" + "".join(f"{row.get(s, ''):>12}" for s in subjects))


def ratio(figure, figures):
    """The line with the ratio of a figure for many pages to its baseline, if it has one."""
    if figure[5] != "per-page" or figure[3] == "baseline":
        return []
    name = "stream-load" if figure[2].startswith("translate") else "stream-store"
    base = next(f for f in figures if f[2] == name)
    return [f"{figure[1]} ratio-to-stream {float(figure[4]) / float(base[4]):.2f} x"]


def main():
    lines = []
    all_well = True
    for family in guest.MACHINES:
        figures, well = figures_of(family)
        all_well = all_well and well
        if figures:
            table(family, figures)
        for figure in figures:
            lines += [figure[0].removeprefix("# "), *ratio(figure, figures)]
    print("\n" + "\n".join(lines))
    return 0 if all_well else 1


if __name__ == "__main__":
    sys.exit(main())
