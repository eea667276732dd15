#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Compare the page table that a guest says it has with the one that the machine sees.

usage: run_monitor.py FAMILY KERNEL [--append ARGS] [--cpu CPU] [--timeout S]

The TAP kernel, told show=leaves, loads a table, prints each leaf of it ("leaf VA PA BYTES
FLAGS") and holds still. QEMU's monitor, which walks the tables by code of its own, is then
asked for its view, and both must agree in addresses, sizes and rights:

    info tlb   x86_64: one line a leaf, with the bits of the entry
    info mem   x86_64: runs of equal rights, those of upper levels taken into account;
               riscv64: runs of contiguous memory with equal bits

ACCESSED and DIRTY are left out: the guest runs on between the two answers. The comparison
is itself tested: with one leaf changed it must fail. Prints TAP.
"""
import argparse
import json
import os
import re
import socket
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..",
                                "platforms", "tools"))
# pylint: disable=wrong-import-position
import guest

WRITABLE, USER, WRITE_THROUGH, NO_CACHE, GLOBAL, NO_EXECUTE = \
    (1 << b for b in (1, 2, 3, 4, 8, 63))


class Monitor:
    """QEMU's machine protocol on a socket of its own."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self.file = self.socket.makefile("rw")
        self.file.readline()  # its greeting
        self.execute("qmp_capabilities")

    def execute(self, command, **arguments):
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            answer = json.loads(self.file.readline())
            if "event" not in answer:
                return answer["return"]

    def say(self, line):
        return self.execute("human-monitor-command", **{"command-line": line}).splitlines()


def merged(runs):
    """[(va, pa or None, bytes, rights)] -> the same with neighbours joined."""
    out = []
    for va, pa, size, rights in sorted(runs, key=lambda run: run[0]):
        if out:
            last_va, last_pa, last_size, last_rights = out[-1]
            follows = last_va + last_size == va and last_rights == rights and \
                (pa is None or last_pa + last_size == pa)
            if follows:
                out[-1] = (last_va, last_pa, last_size + size, rights)
                continue
        out.append((va, pa, size, rights))
    return out


# Each view: what the monitor's lines say, and what the guest's leaves would look like there.

def tlb_of_monitor(lines):
    seen = []
    for line in lines:
        m = re.fullmatch(r"([0-9a-f]{16}): ([0-9a-f]{16}) ([-XGPDACTUW]{9})", line.strip())
        if not m:
            raise ValueError(f"info tlb: {line!r}")
        x, g, p, _, _, c, t, u, w = m[3]
        seen.append((int(m[1], 16), int(m[2], 16), f"{x}{g}{p}{c}{t}{u}{w}"))
    return sorted(seen)


def tlb_of_leaves(leaves):
    def letters(size, flags):
        return "".join(letter if flag else "-" for letter, flag in
                       (("X", flags & NO_EXECUTE), ("G", flags & GLOBAL), ("P", size > 4096),
                        ("C", flags & NO_CACHE), ("T", flags & WRITE_THROUGH),
                        ("U", flags & USER), ("W", flags & WRITABLE)))
    return sorted((va, pa, letters(size, flags)) for va, pa, size, flags in leaves)


def rights_of_monitor(lines):
    runs = []
    for line in lines:
        m = re.fullmatch(r"([0-9a-f]{16})-([0-9a-f]{16}) ([0-9a-f]{16}) ([-urw]{3})",
                         line.strip())
        if not m or int(m[2], 16) - int(m[1], 16) != int(m[3], 16):
            raise ValueError(f"info mem: {line!r}")
        runs.append((int(m[1], 16), None, int(m[3], 16), m[4]))
    return merged(runs)


def rights_of_leaves(leaves):
    return merged((va, None, size, ("u" if flags & USER else "-") + "r" +
                   ("w" if flags & WRITABLE else "-")) for va, _, size, flags in leaves)


def memory_of_monitor(lines):
    runs = []
    for line in lines[2:]:  # below the heading
        m = re.fullmatch(r"([0-9a-f]{16}) ([0-9a-f]{16}) ([0-9a-f]{16}) ([-rwxugad]{7})",
                         line.strip())
        if not m:
            raise ValueError(f"info mem: {line!r}")
        runs.append((int(m[1], 16), int(m[2], 16), int(m[3], 16), m[4][:5]))
    return merged(runs)


def memory_of_leaves(leaves):
    def letters(flags):
        return "r" + "".join(letter if flag else "-" for letter, flag in
                             (("w", flags & WRITABLE), ("x", not flags & NO_EXECUTE),
                              ("u", flags & USER), ("g", flags & GLOBAL)))
    return merged((va, pa, size, letters(flags)) for va, pa, size, flags in leaves)


TLB = ("info tlb", tlb_of_monitor, tlb_of_leaves)
RIGHTS = ("info mem", rights_of_monitor, rights_of_leaves)
MEMORY = ("info mem", memory_of_monitor, memory_of_leaves)


def views(family, append):
    if family == "riscv64":
        return [MEMORY]
    # With five levels QEMU 7.2 takes most of a minute for "info mem" and says nothing.
    return [TLB] if "la57" in append else [TLB, RIGHTS]


def planted(leaves):
    """The leaves with one thing wrong, in the middle of them; -> (what, leaves)."""
    i = len(leaves) // 2
    va, pa, size, flags = leaves[i]
    for what, wrong in (("address", [(va ^ 1 << 40, pa, size, flags)]),
                        ("right", [(va, pa, size, flags ^ WRITABLE)]),
                        ("user", [(va, pa, size, flags ^ USER)]),
                        ("missing", [])):
        yield what, leaves[:i] + wrong + leaves[i + 1:]


def compare(family, append, leaves, answers):
    """-> [(name, passed, detail)]"""
    results = []
    for (command, of_monitor, of_leaves), lines in zip(views(family, append), answers):
        try:
            theirs, ours = of_monitor(lines), of_leaves(leaves)
        except ValueError as e:
            results.append((f"{command} is understood", False, str(e)))
            continue
        odd = sorted(set(map(str, theirs)) ^ set(map(str, ours)))
        results.append((f"{len(leaves)} leaves agree with {command}",
                        theirs == ours and len(ours) > 0, "\n".join(odd[:8])))
        unseen = [what for what, wrong in planted(leaves) if of_leaves(wrong) == theirs]
        results.append((f"a wrong leaf does not agree with {command}", not unseen,
                        f"not seen: {unseen}"))
    return results


def main(argv):
    p = argparse.ArgumentParser()
    p.add_argument("family", choices=list(guest.MACHINES))
    p.add_argument("kernel")
    p.add_argument("--cpu")
    p.add_argument("--append", default="")
    p.add_argument("--timeout", type=float, default=100)
    args = p.parse_args(argv)
    answers = []
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "monitor")
        line = guest.command(args.family, args.kernel, cpus=1, append=f"show=leaves {args.append}",
                             cpu=args.cpu, extra=["-qmp", f"unix:{path},server=on,wait=off"])

        def on_line(text):
            if text == "leaves end":
                monitor = Monitor(path)
                monitor.execute("stop")
                for command, _, _ in views(args.family, args.append):
                    answers.append(monitor.say(command))
                monitor.execute("quit")

        outcome = guest.run(line, args.timeout, on_line)
    leaves = [tuple(int(word, 16) for word in text.split()[1:]) for text in outcome.lines
              if re.fullmatch(r"leaf( [0-9a-f]+){4}", text)]
    print("TAP version 13")
    if not answers or not leaves:
        print("Bail out! the guest shows no leaves")
        for text in outcome.lines[-12:]:
            print(f"# last: {text}")
        return 1
    results = compare(args.family, args.append, leaves, answers)
    print(f"1..{len(results)}")
    for number, (name, passed, detail) in enumerate(results, 1):
        print(f"{'' if passed else 'not '}ok {number} - {name}")
        for text in [] if passed else detail.splitlines():
            print(f"# {text}")
    return 0 if all(passed for _, passed, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
