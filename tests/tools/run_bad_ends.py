#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Have the smoke kernel end badly in every way it knows; each must be said and must fail.

usage: run_bad_ends.py FAMILY SMOKE_KERNEL
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..",
                                "platforms", "tools"))
# pylint: disable=wrong-import-position
import guest

# what the kernel is told to do, what it must say in its last line
ENDS = [("fault", "[hx:trap]"), ("overflow", "(stack overflow)"), ("panic", "[hx:panic]"),
        ("return", "hx_main() returned")]


def main(argv):
    family, kernel = argv
    print("TAP version 13")
    print(f"1..{len(ENDS)}")
    well = True
    for number, (end, word) in enumerate(ENDS, 1):
        line = guest.command(family, kernel, append=f"smoke={end}")
        outcome = guest.run(line, 60, lambda text: None)
        last = outcome.lines[-1] if outcome.lines else ""
        passed = word in last and not outcome.timed_out and \
            not guest.passed(family, outcome.status)
        well = well and passed
        print(f"{'' if passed else 'not '}ok {number} - {end} is reported and fails")
        print(f"# exit status {outcome.status}: {last.removeprefix('# ')}")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
