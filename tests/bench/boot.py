#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Boot the demo on both boards and print wall time: to the end of stage 6, and to the end.

Baseline of the same run: the same kernel with 256 MiB. Medians of five boots; the server
profile, 4 CPUs. Under emulation and on a busy machine only ratios say much.
"""
import os
import statistics
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "platforms", "tools"))
# pylint: disable=wrong-import-position
import boot
import guest

ROUNDS = 5
SIZES = ["256M", "64G", "1T"]


def once(family, kernel, size):
    """-> (seconds to stage 6, seconds to the end), or None when the guest was not well."""
    start = time.monotonic()
    stage6 = []

    def look(text):
        if text.startswith("# [hx:stage 6]"):
            stage6.append(time.monotonic() - start)

    outcome = guest.run(guest.command(family, kernel, memory=size), 120, look)
    if outcome.timed_out or not guest.passed(family, outcome.status) or not stage6:
        return None
    return stage6[0], outcome.seconds


def main():
    print(f"{'board':10} {'RAM':>6} {'to stage 6':>12} {'whole demo':>12}")
    figures = []
    for family in guest.MACHINES:
        args = boot.parse([family, "--profile", "server"])
        commands, kernel = boot.build_commands(family, args)
        if not boot.build(commands):
            return 1
        base = None
        for size in SIZES:
            runs = [once(family, kernel, size) for _ in range(ROUNDS)]
            if None in runs:
                print(f"{family} with {size}: the guest was not well")
                return 1
            early, whole = (statistics.median(column) for column in zip(*runs))
            base = base or (early, whole)
            print(f"{family:10} {size:>6} {early:10.2f} s {whole:10.2f} s")
            for workload, value, first in (("stage-6", early, base[0]), ("demo", whole, base[1])):
                name = f"bench boot {workload}-{size} {family}"
                figures.append(f"{name} wall {value:.2f} s")
                figures.append(f"{name} ratio-to-256M {value / first:.2f} x")
    print("\n".join(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
