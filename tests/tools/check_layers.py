#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR MIT
"""check-layers: the arrows between the folders run one way.

    platforms -> memory -> hal contract <- hal/<port>

Looks at every #include, at architecture names in preprocessor conditions of memory/, and at
SPDX lines. Prints one line a violation; ends with 1 if there is any. With a folder as
argument it checks that tree instead (the test of this test plants violations in a copy).
"""
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FREESTANDING = {"stdarg.h", "stdbool.h", "stddef.h", "stdint.h", "stdalign.h", "limits.h",
                "float.h", "iso646.h", "stdnoreturn.h", "stdatomic.h"}
PORTS = ["x86_64", "riscv64", "aarch64", "sim", "template"]
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
CONDITION = re.compile(r"^\s*#\s*(?:if|ifdef|ifndef|elif)\b(.*)$", re.MULTILINE)
ARCHITECTURE = re.compile(r"__(x86_64|amd64|i386|riscv|aarch64|arm)(_|\b)", re.IGNORECASE)
# The one place that may ask for an instruction: hx/bits.h picks builtins by it.
ARCHITECTURE_ALLOWED = {"memory/include/hx/bits.h"}


def headers_of(root, folder):
    """Names by which files below folder/include can be included."""
    names = set()
    base = os.path.join(root, folder)
    for directory, _, files in os.walk(base):
        for name in files:
            if name.endswith(".h"):
                names.add(os.path.relpath(os.path.join(directory, name), base))
    return names


def sources(root, folder):
    for directory, folders, files in os.walk(os.path.join(root, folder)):
        folders[:] = [f for f in folders if not f.startswith(".")]
        for name in sorted(files):
            if name.endswith((".c", ".h", ".S")):
                yield os.path.relpath(os.path.join(directory, name), root)


def check(root):
    hal = headers_of(root, "hal/include")
    memory = headers_of(root, "memory/include") | {"hx/config.h"}
    platform = headers_of(root, "platforms/include")
    complaints = []

    def complain(path, text):
        complaints.append(f"{path}: {text}")

    for folder in ("hal", "memory", "platforms"):
        for path in sources(root, folder):
            with open(os.path.join(root, path), encoding="utf-8") as f:
                text = f.read()
            if "SPDX-License-Identifier: Apache-2.0 OR MIT" not in text[:400]:
                complain(path, "no SPDX line")
            port = next((p for p in PORTS if path.startswith(f"hal/{p}/")), None)
            for quote, name in INCLUDE.findall(text):
                local = os.path.normpath(os.path.join(os.path.dirname(path), name))
                is_local = quote == '"' and os.path.exists(os.path.join(root, local))
                if folder == "hal":
                    if name in memory or (is_local and not local.startswith("hal/")):
                        complain(path, f"hal includes {name} of memory or platforms")
                    if name in platform:
                        complain(path, f"hal includes {name} of platforms")
                    other = next((p for p in PORTS if is_local and
                                  local.startswith(f"hal/{p}/") and p != port), None)
                    if other and not (port == "sim" and local.endswith("/pte.h")):
                        complain(path, f"port includes {name} of port {other}")
                if folder == "memory":
                    if name in platform or (is_local and not local.startswith("memory/")):
                        complain(path, f"memory includes {name} from outside")
                    known = name in hal or name in memory or name in FREESTANDING
                    if not known and not is_local:
                        complain(path, f"memory includes <{name}>: neither its own, the HAL "
                                       "contract nor freestanding")
                    if name == "hx_port.h":
                        complain(path, "memory includes a port header by name")
            if folder == "memory" and path not in ARCHITECTURE_ALLOWED:
                for condition in CONDITION.findall(text):
                    if ARCHITECTURE.search(condition):
                        complain(path, f"condition on an architecture: {condition.strip()}")
    return complaints


def main(argv):
    complaints = check(argv[1] if len(argv) > 1 else ROOT)
    for complaint in complaints:
        print(complaint)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
