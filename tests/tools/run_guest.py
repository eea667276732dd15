#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Run a TAP kernel on a board: its TAP goes to standard output, the rest behind "# ".

usage: run_guest.py FAMILY KERNEL [--machine M] [--mem SIZE] [--smp N] [--append ARGS]
                    [--icount] [--timeout S]

Ends with 0 only if plan, results and the machine's exit status agree on success; a hang or
an empty stream is a failure, shown with the last lines.
"""
import argparse
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..",
                                "platforms", "tools"))
# pylint: disable=wrong-import-position
import guest
import tap


def main(argv):
    p = argparse.ArgumentParser()
    p.add_argument("family", choices=list(guest.MACHINES))
    p.add_argument("kernel")
    p.add_argument("--machine")
    p.add_argument("--mem", default="256M")
    p.add_argument("--smp", type=int, default=4)
    p.add_argument("--cpu")
    p.add_argument("--append", default="")
    p.add_argument("--icount", action="store_true", help="time goes on with instructions")
    p.add_argument("--timeout", type=float, default=280)
    args = p.parse_args(argv)
    if args.machine == "iso":
        p.error("--machine iso: platforms/boot makes such images")

    print("TAP version 13")
    started = False

    def show(text):
        nonlocal started
        if text == "TAP version 13":
            started = True
        elif started and not text.startswith("#"):
            print(text, flush=True)
        else:
            print(f"# {text.removeprefix('# ')}", flush=True)

    line = guest.command(args.family, args.kernel, args.machine, args.mem, args.smp, args.append,
                         args.cpu, icount=args.icount)
    outcome = guest.run(line, args.timeout, show)
    begin = outcome.lines.index("TAP version 13") if "TAP version 13" in outcome.lines else \
        len(outcome.lines)
    cases, complaints = tap.read(outcome.lines[begin:])
    if outcome.timed_out:
        complaints.append(f"no end after {args.timeout:g} s")
    well = guest.passed(args.family, outcome.status)
    if well != all(c.passed for c in cases):
        complaints.append(f"exit status {outcome.status} does not agree with the results")
    for complaint in complaints:
        print(f"Bail out! {complaint}")
    if complaints:
        for text in outcome.lines[-12:]:
            print(f"# last: {text}")
    return 0 if well and not complaints else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
