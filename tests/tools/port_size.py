#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR MIT
"""port-size: the MMU part of each port is a page of code.

The MMU part is what the groups "page-table entries" and "TLB" of hal/include/hx/hal.h ask
for, and hx_hal_mmu_init() with the geometry:

    pte.h, mmu.c                  each line of code
    any other file of the port    the bodies of these groups' functions and macros there,
                                  such as hx_hal_pt_publish() in hx_port.h

Not counted is what a port has beside it: discovery (firmware's words, probes of what the
machine has), traps, the CPU services of hx_port.h, headers that only name registers and
instructions, and the plumbing that reaches another CPU. A function of these groups that is
found in no file is an error, so nothing can hide under another name.

A line of code is one that has more than blanks and comments. Prints a line a port; ends
with 1 when one is above the limit. With a folder as argument it counts that tree instead.
The simulated machine is an MMU, not a port to one; the template has no bodies.
"""
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIMIT = 150
WHOLE = ("pte.h", "mmu.c")
NO_PORTS = {"discovery", "include", "sim", "template"}
FUNCTIONS = ["hx_pte_geometry", "hx_hal_mmu_init", "hx_hal_root_load", "hx_hal_tlb_local",
             "hx_hal_tlb_broadcast", "hx_hal_pt_publish",
             *[f"hx_hal_pte_{n}" for n in ("prot", "leaf", "table", "kind", "pa", "flags", "soft",
                                           "payload")]]
# Ports may have these as macros.
OPTIONAL = ["hx_hal_pt_publish_page", "hx_hal_tlb_page", "hx_hal_pte_group",
            "hx_hal_pte_plain"]
COMMENT = re.compile(r'"(?:\\.|[^"\\])*"|/\*.*?\*/|//[^\n]*', re.DOTALL)


def code_lines(text):
    """Lines left when comments are gone; strings keep what looks like one."""
    bare = COMMENT.sub(lambda m: m[0] if m[0][0] == '"' else "\n" * m[0].count("\n"), text)
    return [line for line in bare.splitlines() if line.strip()]


def bodies(lines):
    """name -> lines of the definition, of functions laid out as .clang-format has them."""
    found, start = {}, None
    for i, line in enumerate(lines):
        if line == "{":
            start = i
        elif line == "}" and start is not None:
            head = start - 1
            while head > 0 and lines[head][0] in " \t":
                head -= 1  # arguments on lines of their own
            name = re.search(r"\b(hx_\w+)\(", " ".join(lines[head:start]))
            if name:
                found[name[1]] = i - head + 1
            start = None
    return found


def macros(lines):
    """The same for macros with arguments."""
    found, name = {}, None
    for line in lines:
        define = re.match(r"#define (hx_\w+)\(", line)
        name = define[1] if define else name
        if name:
            found[name] = found.get(name, 0) + 1
        name = name if line.endswith("\\") else None
    return found


def measure(folder):
    """-> (code lines of the MMU part, functions that are nowhere)"""
    total, missing = 0, set(FUNCTIONS)
    for name in sorted(os.listdir(folder)):
        if not name.endswith((".c", ".h")):
            continue
        with open(os.path.join(folder, name), encoding="utf-8") as f:
            lines = code_lines(f.read())
        mine = {n: size for n, size in {**bodies(lines), **macros(lines)}.items()
                if n in FUNCTIONS + OPTIONAL}
        missing -= set(mine)
        total += len(lines) if name in WHOLE else sum(mine.values())
    return total, sorted(missing)


def check(root):
    """-> [(port, lines, complaint or None)]"""
    hal = os.path.join(root, "hal")
    results = []
    for port in sorted(os.listdir(hal)):
        folder = os.path.join(hal, port)
        if port in NO_PORTS or not os.path.isdir(folder):
            continue
        lines, missing = measure(folder)
        complaint = None
        if missing:
            complaint = f"hal/{port}: not found: {', '.join(missing)}"
        elif lines > LIMIT:
            complaint = f"hal/{port}: the MMU part has {lines} code lines; {LIMIT} are allowed"
        results.append((port, lines, complaint))
    return results


def main(argv):
    results = check(argv[1] if len(argv) > 1 else ROOT)
    for port, lines, complaint in results:
        print(complaint or f"hal/{port}: {lines} of {LIMIT} code lines")
    return 1 if not results or any(complaint for _, _, complaint in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
