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
FIGURE = re.compile(r"# (?P<line>(?P<name>bench guest (?P<workload>\S+) (?P<subject>\S+)-\S+) "
                    r"instructions (?P<value>\S+) (?P<unit>\S+))")


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
    """A row for each workload, a column for each subject; the baseline is alone in its row."""
    subjects = dict.fromkeys(f["subject"] for f in figures if f["subject"] != "baseline")
    print(f"\nmapper on {family}: instructions of a call for one page, of each page of more")
    print(f"  {'':24}" + "".join(f"{s:>12}" for s in subjects))
    for workload in dict.fromkeys(f["workload"] for f in figures):
        row = {f["subject"]: f["value"] for f in figures if f["workload"] == workload}
        values = row.values() if "baseline" in row else [row.get(s, "") for s in subjects]
        print(f"  {workload:24}" + "".join(f"{value:>12}" for value in values).rstrip())


def ratio(figure, figures):
    """The line with the ratio of a figure for many pages to its baseline, if it has one."""
    if figure["unit"] != "per-page" or figure["subject"] == "baseline":
        return []
    name = "stream-load" if figure["workload"].startswith("translate") else "stream-store"
    base = next(f for f in figures if f["workload"] == name)
    return [f"{figure['name']} ratio-to-stream "
            f"{float(figure['value']) / float(base['value']):.2f} x"]


def main():
    lines = []
    all_well = True
    for family in guest.MACHINES:
        figures, well = figures_of(family)
        all_well = all_well and well
        if figures:
            table(family, figures)
        for figure in figures:
            lines += [figure["line"], *ratio(figure, figures)]
    print("\n" + "\n".join(lines))
    return 0 if all_well else 1


if __name__ == "__main__":
    sys.exit(main())
