#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Everything that tests/run runs: steps, each of which reports named results.

A result's full name is STEP/TEST/CASE; a PATTERN (regular expression) picks results, and
steps in which none can match are not built. The last line is the count.
"""
import argparse
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

TOOLS = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(TOOLS))
BUILD = os.path.join(ROOT, "build", "tests")
sys.path.insert(0, TOOLS)
sys.path.insert(0, os.path.join(ROOT, "platforms", "tools"))
# pylint: disable=wrong-import-position
import check_layers
import guest
import port_size
import tap

JOBS = max(1, min(2, os.cpu_count() or 1))


class Report:
    """Counts results and prints each as it comes."""

    def __init__(self, pattern):
        self.pattern = pattern
        self.passed = self.failed = self.skipped = 0
        self.failures = []
        self.stress = 0  # operations

    def wants(self, name):
        return not self.pattern or re.search(self.pattern, name)

    def result(self, name, passed, detail="", skipped=None, always=False):
        if not always and not self.wants(name):
            return
        if skipped is not None and passed:
            self.skipped += 1
            print(f"skip  {name}  # {skipped}", flush=True)
        elif passed:
            self.passed += 1
            print(f"ok    {name}", flush=True)
        else:
            self.failed += 1
            self.failures.append(name)
            print(f"FAIL  {name}", flush=True)
            for line in detail.splitlines()[-40:]:
                print(f"      | {line}", flush=True)


def run(command, timeout=600, env=None, cwd=ROOT):
    """-> (status, output); a time-out is status 124 with a line that says so."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=timeout, check=False, cwd=cwd,
                              env={**os.environ, **(env or {})})
        return done.returncode, done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as e:
        output = (e.stdout or b"").decode(errors="replace")
        return 124, f"{output}\nno end after {timeout} s"


# ---- Steps that look at the tree ----

PLANTED = [
    ("memory/core/planted.c", '#include "../../hal/x86_64/pte.h"\n'),
    ("memory/core/planted.c", "#include <stdio.h>\n"),
    ("memory/core/planted.c", "#include <hx/platform.h>\n"),
    ("memory/core/planted.c", "#ifdef __x86_64__\n#endif\n"),
    ("hal/riscv64/planted.c", "#include <hx/frames.h>\n"),
    ("hal/riscv64/planted.c", '#include "../x86_64/pte.h"\n'),
    ("hal/sim/planted.c", '#include "../x86_64/hx_port.h"\n'),
    ("hal/x86_64/planted.c", None),  # no SPDX line
]


def step_layers(report, name):
    complaints = check_layers.check(ROOT)
    report.result(f"{name}/tree", not complaints, "\n".join(complaints))
    # The check must be able to fail: plant one violation at a time.
    for number, (path, text) in enumerate(PLANTED, 1):
        with tempfile.TemporaryDirectory() as copy:
            for folder in ("hal", "memory", "platforms"):
                shutil.copytree(os.path.join(ROOT, folder), os.path.join(copy, folder))
            with open(os.path.join(copy, path), "w", encoding="utf-8") as f:
                f.write("int x;\n" if text is None else
                        f"/* SPDX-License-Identifier: Apache-2.0 OR MIT */\n{text}")
            report.result(f"{name}/planted-{number}", bool(check_layers.check(copy)),
                          f"not seen: {path}: {text}")


def step_port_size(report, name):
    """The MMU part of each port fits on a page; a line too many is seen."""
    for port, lines, complaint in port_size.check(ROOT):
        report.result(f"{name}/{port}", not complaint, complaint or "")
        with tempfile.TemporaryDirectory() as copy:
            shutil.copytree(os.path.join(ROOT, "hal", port), os.path.join(copy, "hal", port))
            with open(os.path.join(copy, "hal", port, "mmu.c"), "a", encoding="utf-8") as f:
                f.write("int x;\n" * (port_size.LIMIT + 1 - lines))
            report.result(f"{name}/{port}-planted", bool(port_size.check(copy)[0][2]),
                          "a line above the limit is not seen")


# (profile text, options, what the refusal must name; None: accepted)
PROFILES = [
    ("", [], None),
    ('[memory]\nwx = "off"\n', [], None),
    ('[memory]\nwx = "maybe"\n', [], ["memory.wx", "'maybe'", "force, refuse, off"]),
    ("[memory]\nhuge_pages = 1\n", [], ["memory.huge_pages", "true or false"]),
    ("[memory]\nheap_size_kb = -1\n", [], ["memory.heap_size_kb", "KiB"]),
    ("[memory]\nheap_size_kb = true\n", [], ["memory.heap_size_kb"]),
    ("[memory]\ncolour = 1\n", [], ["memory.colour", "unknown key", "heap_size_kb"]),
    ("[memery]\n", [], ["memery", "memory, allocator"]),
    ('[allocator]\nphysical = "best"\n', [], ["allocator.physical", "'best'", "buddy"]),
    ('[allocator]\nheap = "glibc"\n', [], ["allocator.heap", "'glibc'", "simple"]),
    ('[allocator]\nbuiltin_physical = []\n', [], ["allocator.builtin_physical"]),
    ('[allocator]\nbuiltin_physical = ["bump", "bump"]\n', [], ["builtin_physical", "twice"]),
    ('[allocator]\nphysical = "buddy"\nbuiltin_physical = ["bump"]\n', [],
     ["allocator.physical", "builtin_physical"]),
    ('[allocator]\nphysical = "slab"\nbuiltin_physical = ["slab", "bitmap"]\n', [],
     ["physical_backing", "'buddy'"]),
    ('[allocator]\nbuiltin_heap = ["simple"]\nheap = "simple"\n', [], ["builtin_heap", "bump"]),
    ('[allocator]\nphysical = "buddy"\n', ["physical=bitmap"], None),
    ("", ["physical=best"], ["option physical", "'best'"]),
    ("[allocator\n", [], ["helix.toml"]),
]


def step_profiles(report, name):
    script = os.path.join(ROOT, "platforms", "tools", "profile.py")
    for number, (text, options, needles) in enumerate(PROFILES, 1):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "helix.toml")
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
            status, output = run([sys.executable, script, path, *options])
        if needles is None:
            well = status == 0 and "physical=" in output
        else:
            well = status == 1 and len(output.strip().splitlines()) == 1 and \
                all(needle in output for needle in needles)
            well = well and (path in output or "option " in output)
        report.result(f"{name}/case-{number}", well, f"{text}\n{options}\n-> {status}: {output}")
    status, output = run([sys.executable, script, os.path.join(ROOT, "platforms", "hosted",
                                                               "helix.toml"),
                          "physical=bitmap"])
    report.result(f"{name}/option-over-profile",
                  status == 0 and "physical=bitmap\n" in output, output)


def step_unsupported_family(report, name):
    """An unknown CPU stops configuration with a line that names the porting guide."""
    with tempfile.TemporaryDirectory() as directory:
        cross = os.path.join(directory, "m68k.ini")
        with open(cross, "w", encoding="utf-8") as f:
            f.write("[binaries]\nc = 'gcc'\nar = 'ar'\n[host_machine]\nsystem = 'none'\n"
                    "cpu_family = 'm68k'\ncpu = 'm68k'\nendian = 'big'\n"
                    "[properties]\nskip_sanity_check = true\n")
        status, output = run(["meson", "setup", os.path.join(directory, "b"), ROOT,
                              "--cross-file", cross])
    report.result(name, status != 0 and "hal/PORTING.md" in output and "m68k" in output, output)


def step_headers(report, name):
    """Each public header compiles alone, with both compilers, as C11."""
    # hx/config.h as the hosted step before this one made it
    config = next((c for c in (os.path.join(BUILD, b, "memory", "include")
                               for b in ("hosted-gcc", "hosted-quick")) if os.path.exists(c)),
                  BUILD)
    for compiler in ("gcc", "clang"):
        if not shutil.which(compiler):
            report.result(f"{name}/{compiler}", True, skipped=f"{compiler} is not installed")
            continue
        for base in ("hal/include", "memory/include", "platforms/include"):
            folder = os.path.join(ROOT, base, "hx")
            for header in sorted(h for h in os.listdir(folder) if h.endswith(".h")):
                if header == "pte_access.h":
                    continue  # a piece of a port's header, by its own words
                with tempfile.NamedTemporaryFile("w", suffix=".c") as alone:
                    alone.write(f"#include <hx/{header}>\n")
                    alone.flush()
                    status, output = run(
                        [compiler, "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only",
                         "-DHX_SIM_CODEC_X86_64", "-DHX_SIM_LEVELS=4",
                         *[f"-I{os.path.join(ROOT, d)}" for d in
                           ("hal/include", "memory/include", "platforms/include", "hal/sim")],
                         f"-I{config}",
                         alone.name])
                report.result(f"{name}/{compiler}/{header}", status == 0, output)


def step_consumer(report, name):
    """Somebody else's project takes the library as a Meson subproject."""
    with tempfile.TemporaryDirectory() as directory:
        project = os.path.join(directory, "kernel")
        shutil.copytree(os.path.join(ROOT, "tests", "consumer"), project)
        os.makedirs(os.path.join(project, "subprojects"))
        os.symlink(ROOT, os.path.join(project, "subprojects", "helix-memory"))
        folder = os.path.join(directory, "b")
        status, output = run(["meson", "setup", folder, project])
        if status == 0:
            status, output = run(["meson", "compile", "-C", folder])
        if status == 0:
            status, output = run([os.path.join(folder, "consumer")])
        report.result(f"{name}/subproject", status == 0, output)
        status, output = run(["meson", "introspect", "--installed", folder])
        report.result(f"{name}/installs-nothing", status == 0 and output.strip() == "{}", output)


# Each folder below; what a bare target alone builds is taken from its own configuration.
LINTED = ["hal", "memory", "platforms", "tests"]
LINT_CONFIGURATIONS = [
    ("hosted", ["-Dtests=enabled"]),
    ("riscv64", ["--cross-file", os.path.join(ROOT, "platforms", "cross", "riscv64-clang.ini")]),
    ("x86_64", ["--cross-file", os.path.join(ROOT, "platforms", "cross", "x86_64-clang.ini")]),
    ("aarch64", ["--cross-file", os.path.join(ROOT, "platforms", "cross", "aarch64-clang.ini")]),
]
# The analyzer's paths through a function end after so many steps. Its own limit, ten times
# as much, costs eight times the time and found nothing more in hal/ and memory/.
LINT_STEPS = 20000
CLANG_TIDY = ["clang-tidy", "--quiet",
              *[f"--extra-arg={word}" for word in
                ("-Xclang", "-analyzer-config", "-Xclang", f"max-nodes={LINT_STEPS}")]]
CPPCHECK = ["cppcheck", "--quiet", "--enable=warning,performance,portability", "--std=c11",
            "--inline-suppr", "--error-exitcode=1",
            "--template={file}:{line}: {severity}: {message} [{id}]",
            *[f"-I{os.path.join(ROOT, d, 'include')}" for d in ("hal", "memory", "platforms")]]
LINT_PLANTED = """int planted(int c)
{
	int *p = 0, a[2];
	return c ? *p : a[1];
}
"""


def compile_commands(folder):
    """Configure as LINT_CONFIGURATIONS say and write one command a source file to
    @folder/compile_commands.json. -> {file: its place in the tree}, or the error's text."""
    commands = {}
    for name, options in LINT_CONFIGURATIONS:
        build_folder = os.path.join(folder, name)
        command = ["meson", "setup", build_folder, ROOT, *options]
        if os.path.exists(os.path.join(build_folder, "build.ninja")):
            command.append("--reconfigure")
        status, output = run(command, env={"CC": "gcc"})
        if status != 0:
            return output
        with open(os.path.join(build_folder, "compile_commands.json"), encoding="utf-8") as f:
            for entry in json.load(f):
                path = os.path.normpath(os.path.join(entry["directory"], entry["file"]))
                if path.endswith(".c") and path.startswith(ROOT + os.sep):
                    commands.setdefault(path, {**entry, "file": path})
    with open(os.path.join(folder, "compile_commands.json"), "w", encoding="utf-8") as f:
        json.dump(list(commands.values()), f)
    return {path: os.path.relpath(path, ROOT) for path in sorted(commands)}


def step_lint(report, name):
    """clang-tidy and cppcheck have nothing to say of any folder, and can say something."""
    folder = os.path.join(BUILD, "lint")
    tools = [tool for tool in ("clang-tidy", "cppcheck")
             if any(report.wants(f"{name}/{tool}/{part}") for part in [*LINTED, "planted"])]
    for tool in [tool for tool in tools if not shutil.which(tool)]:
        report.result(f"{name}/{tool}", True, skipped=f"{tool} is not installed")
        tools.remove(tool)
    if not tools:
        return
    files = compile_commands(folder)
    if isinstance(files, str):
        report.result(f"{name}/configure", False, files)
        return

    def tidy(path):
        return run([*CLANG_TIDY, "-p", folder, path])

    for part in LINTED:
        if "clang-tidy" in tools and report.wants(f"{name}/clang-tidy/{part}"):
            mine = [path for path, place in files.items() if place.startswith(part + os.sep)]
            with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
                said = [output for status, output in pool.map(tidy, mine) if status != 0]
            lines = [line for output in said for line in output.splitlines()
                     if re.search(r": (error|warning): ", line)] or said
            report.result(f"{name}/clang-tidy/{part}", bool(mine) and not said,
                          "\n".join(lines) or "no files")
        if "cppcheck" in tools and report.wants(f"{name}/cppcheck/{part}"):
            status, output = run([*CPPCHECK, f"-j{JOBS}",
                                  f"-I{os.path.join(folder, 'hosted', 'memory', 'include')}",
                                  part])
            report.result(f"{name}/cppcheck/{part}", status == 0, output)

    with tempfile.TemporaryDirectory() as directory:
        planted = os.path.join(directory, "planted.c")
        with open(planted, "w", encoding="utf-8") as f:
            f.write(LINT_PLANTED)
        config = f"--config-file={os.path.join(ROOT, '.clang-tidy')}"
        for tool, command in (("clang-tidy", [*CLANG_TIDY, config, planted, "--"]),
                              ("cppcheck", [*CPPCHECK, planted])):
            if tool in tools:
                status, output = run(command)
                report.result(f"{name}/{tool}/planted", status != 0 and "planted.c:" in output,
                              f"a null pointer is not seen\n{output}")


# ---- Steps that build and run ----

def build(report, name, options, cross=None, env=None, keep=None):
    """Configure and compile with -Werror, all or what the tests to @keep need.
    -> the build folder, or None after a report."""
    folder = os.path.join(BUILD, name)
    command = ["meson", "setup", folder, ROOT, "-Dwerror=true", *options]
    if cross:
        command += ["--cross-file", os.path.join(ROOT, "platforms", "cross", f"{cross}.ini")]
    if os.path.exists(os.path.join(folder, "build.ninja")):
        command.append("--reconfigure")
    elif os.path.exists(folder):
        shutil.rmtree(folder)
    status, output = run(command, env=env)
    if status == 0:
        programs = {os.path.relpath(test["cmd"][0], folder)
                    for test in known_tests(folder, keep)} if keep else []
        status, output = run(["ninja", "-C", folder, f"-j{JOBS}", *sorted(programs)], timeout=900)
    if status != 0:
        report.result(f"{name}/build", False, output, always=True)
        return None
    if report.wants(f"{name}/build"):
        report.result(f"{name}/build", True)
    return folder


def known_tests(folder, keep):
    """The tests that Meson knows in @folder, as it describes them, whose names are to @keep."""
    status, output = run(["meson", "introspect", "--tests", folder])
    return [t for t in json.loads(output) if keep(t["name"])] if status == 0 else []


def case_name(text):
    """Check writes file:case:function: message; guests write suite.case."""
    match = re.fullmatch(r"[^:]*:([^:]+):[^:]+:.*", text)
    return match[1] if match else text


def run_test(test, folder, extra_env):
    start = time.monotonic()
    # As Meson does: paths among the arguments are relative to the build folder.
    status, output = run(test["cmd"], timeout=test["timeout"] or 300,
                         env={**test["env"], **extra_env}, cwd=test["workdir"] or folder)
    return test, status, output, time.monotonic() - start


def meson_tests(report, name, folder, env=None, keep=lambda test: True):
    """Run the tests that Meson knows in @folder, each case a result of its own."""
    tests = known_tests(folder, keep)
    if not tests:
        report.result(f"{name}/tests", False, "no tests")
        return
    # A pattern that names tests of this step runs only those.
    named = [t for t in tests if report.pattern and
             re.search(report.pattern, f"{name}/{t['name']}/")]
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        for test, status, output, seconds in pool.map(lambda t: run_test(t, folder, env or {}),
                                                      named or tests):
            full = f"{name}/{test['name']}"
            cases, complaints = tap.read(output.splitlines())
            for case in cases:
                report.result(f"{full}/{case_name(case.name)}", case.passed, output,
                              case.skipped)
            failed = [c for c in cases if not c.passed]
            if complaints or (status != 0) != bool(failed):
                report.result(f"{full}/stream", False,
                              "\n".join([output, *complaints, f"exit status {status}",
                                         f"{seconds:.1f} s"]))


SANITIZED = ["-Db_sanitize=address,undefined", "-Db_lundef=false", "--buildtype=debugoptimized"]
SANITIZER_ENV = {"UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
                 "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0"}


def on_the_machine(test):
    """Tests that see what the page tables of the simulated machine look like."""
    return re.match("boot|bringup|capability|conformance|heap|mapper|recovery|sim|space", test)


def hosted(compiler, options, keep=None):
    def step(report, name):
        env = {"CC": compiler}
        if not shutil.which(compiler):
            report.result(f"{name}/build", True, skipped=f"{compiler} is not installed")
            return
        folder = build(report, name, ["-Dtests=enabled", *options], env=env, keep=keep)
        if folder:
            meson_tests(report, name, folder, SANITIZER_ENV, keep or (lambda test: True))
    return step


def check_image(report, name, kernel):
    """What a guest image must not have: undefined symbols, libgcc, W+X segments."""
    status, output = run(["readelf", "-W", "-s", "-l", kernel])
    undefined = [line for line in output.splitlines()
                 if re.search(r"\bUND\s+\S", line)]
    report.result(f"{name}/no-undefined-symbols", status == 0 and not undefined,
                  "\n".join(undefined) or output[-500:])
    libgcc = [line for line in output.splitlines()
              if re.search(r"\s__(\w+[sdt]i[234]|clzdi2|ctzdi2|popcountdi2)$", line)]
    report.result(f"{name}/no-libgcc", not libgcc, "\n".join(libgcc))
    both = [line for line in output.splitlines() if re.search(r"LOAD.*\bRWE\b", line)]
    report.result(f"{name}/no-writable-executable-segment", not both, "\n".join(both))


def guests(family, compiler):
    def step(report, name):
        folder = build(report, name, ["--buildtype=release"], cross=f"{family}-{compiler}")
        if not folder:
            return
        check_image(report, name, os.path.join(folder, "tests", "guest", "helix-tests.elf"))
        check_image(report, f"{name}/demo",
                    os.path.join(folder, "platforms", "demo", "helix-demo.elf"))
        # Other modes and CPUs are the machine's difference, not the compiler's.
        meson_tests(report, name, folder,
                    keep=lambda test: compiler == "gcc" or " " not in test)
    return step


def memory_dtb(path, words):
    """The device tree of the riscv64 board as QEMU writes it, with other words for its RAM."""
    commands = [["qemu-system-riscv64", "-M", f"virt,dumpdtb={path}", "-m", "256M", "-smp", "4"],
                ["fdtput", "-t", "x", path, "/memory@80000000", "reg",
                 *[f"{half:x}" for word in words for value in word
                   for half in (value >> 32, value & 0xffffffff)]]]
    for command in commands:
        status, output = run(command, timeout=20)
        if status != 0:
            raise RuntimeError(f"{command}: {output}")
    return path


# RAM in pieces: unsorted, overlapping, touching, empty, wrapping, and one with the image.
PIECES = [(0x8a000000, 0x2000000), (0x80000000, 0x3000000), (0x82000000, 0x3000000),
          (0x88000000, 0x3000000), (0x86000000, 0), (0xfffffffffffff000, 0x2000),
          (0x8e000000, 0x2000000)]
# What normalising makes of them, up to what the kernel itself takes.
PIECES_SEEN = ["0x000088000000 + 0x000004000000  node 0  RAM",
               "0x00008e000000 + 0x000001e00000  node 0  RAM"]


# (name, family, arguments of platforms/boot or what makes them, words that must stand in the
# log, exit well?)
def boots(directory):
    for family in ("riscv64", "x86_64", "aarch64"):
        yield f"{family}-default", family, [], [], True
        for profile in ("minimal", "server"):
            yield f"{family}-{profile}", family, ["--profile", profile], [], True
        yield (f"{family}-tree", family, ["--append", "hx.physical=tree"],
               ["physical tree, heap slab"], True)
        yield (f"{family}-chosen", family,
               ["--append", "hx.physical=bitmap hx.heap=simple"],
               ["physical bitmap, heap simple"], True)
        yield (f"{family}-bump", family, ["--append", "hx.physical=bump"],
               ["physical bump never frees"], True)
        yield (f"{family}-unknown-name", family, ["--append", "hx.physical=best"],
               ["hx.physical=best is not built in; allowed: bump bitmap buddy slab tree"], False)
        yield (f"{family}-smallest", family, ["--mem", "32M", "--smp", "1"], [], True)
        yield (f"{family}-smallest-minimal", family,
               ["--mem", "32M", "--smp", "1", "--profile", "minimal"], [], True)
        yield f"{family}-64G-8-cpus", family, ["--mem", "64G", "--smp", "8"], [], True
        yield f"{family}-1T", family, ["--mem", "1T", "--profile", "server"], [], True
        yield (f"{family}-initrd", family, ["--initrd", os.path.join(ROOT, "README.md")],
               ["  node 0  initrd"], True)
        yield f"{family}-clang", family, ["--compiler", "clang"], [], True
    for machine in ("pc", "microvm", "iso"):
        yield f"x86_64-{machine}", "x86_64", ["--machine", machine], [], True
    yield ("x86_64-iso-initrd", "x86_64",
           ["--machine=iso", "--initrd", os.path.join(ROOT, "README.md")],
           ["  node 0  initrd"], True)
    yield "x86_64-qemu64", "x86_64", ["--cpu", "qemu64"], [], True
    for machine in ("gicv3", "el2"):
        yield f"aarch64-{machine}", "aarch64", ["--machine", machine], [], True
    # No hardware-managed ACCESSED and DIRTY, no PAN, identifiers of 8 bits.
    yield "aarch64-cortex-a53", "aarch64", ["--cpu", "cortex-a53"], [], True
    yield "riscv64-sv39", "riscv64", ["--append", "hx.paging=sv39"], ["3 levels"], True
    yield "riscv64-sv57", "riscv64", ["--append", "hx.paging=sv57"], ["5 levels"], True
    yield ("riscv64-svnapot", "riscv64", ["--cpu", "rv64,svnapot=true"],
           ["4 levels, leaves in groups"], True)
    yield "x86_64-la57", "x86_64", ["--append", "hx.paging=la57"], ["5 levels"], True
    yield ("x86_64-iso-la57", "x86_64", ["--machine=iso", "--append", "hx.paging=la57"],
           ["5 levels"], True)
    yield ("x86_64-without-la57", "x86_64", ["--cpu=qemu64", "--append", "hx.paging=la57"],
           ["refused: this machine has no la57"], False)
    yield ("x86_64-paging-misspelt", "x86_64", ["--append", "hx.paging=la75"],
           ["hx.paging=la75; allowed: la48 la57"], False)
    yield ("riscv64-pieces", "riscv64",
           lambda: ["--dtb", memory_dtb(os.path.join(directory, "pieces.dtb"), PIECES)],
           PIECES_SEEN, True)
    yield ("riscv64-no-memory", "riscv64",
           lambda: ["--dtb", memory_dtb(os.path.join(directory, "none.dtb"),
                                        [(0x80000000, 0)])],
           ["firmware names no usable RAM"], False)
    # The image and little more; QEMU itself refuses less than 9 MiB on riscv64.
    yield ("riscv64-too-small", "riscv64",
           lambda: ["--dtb", memory_dtb(os.path.join(directory, "small.dtb"),
                                        [(0x80200000, 0x4d0000)])],
           ["refused", "OUT_OF_MEMORY"], False)
    yield "x86_64-too-small", "x86_64", ["--mem", "6M"], ["refused", "OUT_OF_MEMORY"], False


def step_boots(report, name):
    with tempfile.TemporaryDirectory() as directory:
        for boot, family, arguments, needles, well in boots(directory):
            full = f"{name}/{boot}"
            if not report.wants(full):
                continue
            if callable(arguments):
                arguments = arguments()
            status, output = run([os.path.join(ROOT, "platforms", "boot"), family, *arguments,
                                  "--timeout", "90"], timeout=400)
            missing = [n for n in needles if n not in output]
            hung = "no end after" in output
            report.result(full, (status == 0) == well and not missing and not hung,
                          f"{output}\nmissing: {missing}\nstatus {status}, expected "
                          f"{'0' if well else 'not 0'}")


def step_stress(report, name):
    """Random programs against the mapper, as many operations as --stress says."""
    for paging in ("x86_64", "sv39", "sv48", "bbm"):
        full = f"{name}/{paging}"
        if not report.wants(full):
            continue
        folder = build(report, full, ["-Dtests=enabled", "--buildtype=release",
                                      f"-Dsim_paging={paging}"])
        if folder:
            seconds = 600 + report.stress // 10_000
            status, output = run(
                [os.path.join(folder, "tests", "unit", "test-mapper_stress")], timeout=seconds,
                env={"HX_STRESS_OPERATIONS": str(report.stress),
                     "CK_TIMEOUT_MULTIPLIER": str(seconds)})
            report.result(full, status == 0 and "not ok" not in output, output)


def mutation(*options):
    def step(report, name):
        command = [os.path.join(ROOT, "tests", "mutation", "run"), *options]
        status, output = run(command, timeout=7200)
        report.result(name, status == 0, "\n".join(
            line for line in output.splitlines() if not line.startswith("killed")))
    return step


QUICK, FULL, BOTH = "with --quick", "without --quick", "always"
STRESS, MUTATION = "with --stress alone", "with --mutation alone"

STEPS = [
    # name (results' names begin with it), function, when it runs
    ("layers", step_layers, BOTH),
    ("port-size", step_port_size, BOTH),
    ("profiles", step_profiles, BOTH),
    ("unsupported-family", step_unsupported_family, BOTH),
    # Without optimisation and sanitizers the same tests build and run within the minute.
    ("hosted-quick", hosted("gcc", ["--buildtype=debug"]), QUICK),
    ("hosted-gcc", hosted("gcc", SANITIZED), FULL),
    ("headers", step_headers, BOTH),
    ("consumer", step_consumer, FULL),
    ("lint", step_lint, FULL),
    ("hosted-gcc-sv48", hosted("gcc", [*SANITIZED, "-Doptimization=1", "-Dsim_paging=sv48"],
                               on_the_machine), FULL),
    ("hosted-gcc-sv39", hosted("gcc", ["--buildtype=release", "-Dsim_paging=sv39"],
                               on_the_machine), FULL),
    ("hosted-gcc-sv57", hosted("gcc", ["--buildtype=release", "-Dsim_paging=sv57"],
                               on_the_machine), FULL),
    ("hosted-gcc-aarch64", hosted("gcc", ["--buildtype=release", "-Dsim_paging=aarch64"],
                               on_the_machine), FULL),
    ("hosted-gcc-bbm", hosted("gcc", [*SANITIZED, "-Doptimization=1", "-Dsim_paging=bbm"],
                               on_the_machine), FULL),
    ("hosted-clang", hosted("clang", ["-Dasserts=debug", "--buildtype=debugoptimized"]), FULL),
    ("hosted-tsan", hosted("gcc", ["-Db_sanitize=thread", "-Db_lundef=false"],
                           lambda test: "threads" in test or test in ("conformance", "frames_tree")),
     FULL),
    ("hosted-minimal", hosted("gcc", ["-Dprofile=minimal", "--buildtype=release"]), FULL),
    ("mutation-list", mutation("--check"), BOTH),
    ("mutation-quick", mutation("--quick"), FULL),
    ("mutation", mutation(), MUTATION),
    ("stress", step_stress, STRESS),
    ("guest-riscv64-gcc", guests("riscv64", "gcc"), FULL),
    ("guest-riscv64-clang", guests("riscv64", "clang"), FULL),
    ("guest-x86_64-gcc", guests("x86_64", "gcc"), FULL),
    ("guest-x86_64-clang", guests("x86_64", "clang"), FULL),
    ("guest-aarch64-gcc", guests("aarch64", "gcc"), FULL),
    ("guest-aarch64-clang", guests("aarch64", "clang"), FULL),
    ("boots", step_boots, FULL),
]


def main(argv):
    p = argparse.ArgumentParser(prog="tests/run", description="Run the tests; see the README.")
    p.add_argument("--quick", action="store_true", help="the hosted part, within a minute")
    p.add_argument("--stress", type=int, metavar="N",
                   help="only random programs against the mapper, N operations a page-table format")
    p.add_argument("--mutation", action="store_true",
                   help="only mutations of the mapper: all of them must make a suite fail")
    p.add_argument("--list", action="store_true", help="name the steps")
    p.add_argument("pattern", nargs="?", metavar="PATTERN",
                   help="regular expression on STEP/TEST/CASE")
    args = p.parse_args(argv)
    wanted = (STRESS,) if args.stress else (MUTATION,) if args.mutation else \
        (BOTH, QUICK if args.quick else FULL)
    steps = [s for s in STEPS if s[2] in wanted]
    if args.list:
        print("\n".join(s[0] for s in steps))
        return 0
    report = Report(args.pattern)
    report.stress = args.stress
    # A pattern that begins with a step's name runs that step alone.
    if args.pattern:
        alone = [s for s in steps
                 if re.match(re.escape(s[0]) + r"(/|$)", args.pattern.removeprefix("^"))]
        steps = alone or steps
    start = time.monotonic()
    for name, function, _ in steps:
        begin = time.monotonic()
        function(report, name)
        print(f"      {name}: {time.monotonic() - begin:.1f} s", flush=True)
    for failure in report.failures:
        print(f"FAILED {failure}")
    print(f"      all: {time.monotonic() - start:.0f} s")
    print(f"{report.passed} passed, {report.failed} failed, {report.skipped} skipped")
    return 0 if report.failed == 0 and report.passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
