#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Build the demo kernel and boot it; success only if the guest said that all is well."""
import argparse
import os
import shlex
import subprocess
import sys

import guest

VERDICT = "# hx.verdict all is well"


def parse(argv):
    p = argparse.ArgumentParser(
        prog="platforms/boot",
        description="Build the demo kernel, boot it under QEMU, show its log as it comes.",
        epilog="Exit status 0 only if every board booted said that all is well.")
    p.add_argument("board", nargs="?", default="all", choices=[*guest.MACHINES, "all"])
    p.add_argument("--profile", default="", metavar="NAME",
                   help="minimal, server (platforms/profiles), or the path of a helix.toml; "
                        "default: the board's own")
    p.add_argument("--mem", default="256M", metavar="SIZE", help="32M to 1T and beyond")
    p.add_argument("--smp", type=int, default=4, metavar="N", help="1 to 8 CPUs")
    p.add_argument("--append", default="", metavar="ARGS",
                   help='kernel command line, such as "hx.physical=bitmap hx.heap=simple"')
    p.add_argument("--machine", metavar="NAME", default=None,
                   help="x86_64: q35 (default), pc, microvm, iso (GRUB image, multiboot2); "
                        "aarch64: virt (default), gicv3, el2")
    p.add_argument("--cpu", default=None, metavar="MODEL", help="QEMU's CPU model")
    p.add_argument("--initrd", default=None, metavar="FILE")
    p.add_argument("--dtb", default=None, metavar="FILE",
                   help="riscv64, aarch64: the device tree to boot with; default: QEMU's own")
    p.add_argument("--compiler", default="gcc", choices=["gcc", "clang"])
    p.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    p.add_argument("--timeout", type=float, default=120, metavar="S", help="for each boot")
    args = p.parse_args(argv)
    if not 1 <= args.smp <= 8:
        p.error("--smp: 1 to 8")
    try:
        if guest.mebibytes(args.mem) == 0:
            raise ValueError("none at all")
    except ValueError as e:
        p.error(f"--mem: {e}")
    for option, path in (("--initrd", args.initrd), ("--dtb", args.dtb)):
        if path and not os.path.isfile(path):
            p.error(f"{option}: no file {path}")
    if args.dtb and args.board not in ("riscv64", "aarch64"):
        p.error("--dtb: for riscv64 or aarch64 alone")
    return args


def build_commands(family, args, kernel="platforms/demo/helix-demo.elf"):
    """-> (what to run to build @kernel, where it is then)"""
    name = os.path.splitext(os.path.basename(args.profile))[0] if args.profile else "default"
    directory = os.path.join(guest.ROOT, "build", f"{family}-{args.compiler}-{name}")
    profile = args.profile
    if profile.endswith(".toml"):
        profile = os.path.abspath(profile)
    options = [f"-Dprofile={profile}", "--buildtype=release"]
    if os.path.exists(os.path.join(directory, "build.ninja")):
        setup = ["meson", "configure", directory, *options]
    else:
        cross = os.path.join(guest.ROOT, "platforms", "cross", f"{family}-{args.compiler}.ini")
        setup = ["meson", "setup", directory, guest.ROOT, "--cross-file", cross, *options]
    # Not "meson compile": a folder configured before there was such a kernel has no name for it.
    return [setup, ["ninja", "-C", directory, kernel]], os.path.join(directory, kernel)


def build(commands):
    for command in commands:
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                check=False)
        if result.returncode != 0:
            sys.stdout.write(result.stdout.decode(errors="replace"))
            print(f"# building failed: {shlex.join(command)}")
            return False
    return True


def boot(family, args):
    commands, kernel = build_commands(family, args)
    machine = args.machine or guest.MACHINES[family][0]
    if machine not in guest.MACHINES[family]:
        print(f"# {family} has no machine {machine}: {', '.join(guest.MACHINES[family])}")
        return False
    with guest.temporary() as directory:
        image = kernel
        if machine == "iso":
            image = os.path.join(directory, "helix.iso")
        flat = family == "aarch64" and args.initrd
        if flat:  # QEMU tells a flat image alone where the initrd is
            image = os.path.join(directory, "helix.bin")
            commands.append([guest.OBJCOPY, "-O", "binary", kernel, image])
        line = guest.command(family, image, machine, args.mem, args.smp, args.append, args.cpu,
                             args.initrd, args.dtb)
        if args.dry_run:
            for command in [*commands, line]:
                print(shlex.join(command))
            return True
        print(f"# building {family}, profile {args.profile or 'of the board'}", flush=True)
        if not build(commands):
            return False
        if machine == "iso":
            guest.make_iso(kernel, args.append, directory, args.initrd)
        print(f"# booting {family} on {machine}: {args.mem}, "
              f"{guest.cpus_on(machine, args.smp)} CPUs", flush=True)
        outcome = guest.run(line, args.timeout, lambda text: print(text, flush=True))
    if outcome.timed_out:
        print(f"# {family}: no end after {args.timeout:g} s; stopped")
        return False
    well = VERDICT in outcome.lines and guest.passed(family, outcome.status)
    print(f"# {family} on {machine}: {'well' if well else 'FAILED'}, exit status "
          f"{outcome.status}, {outcome.seconds:.2f} s")
    return well


def main(argv):
    args = parse(argv)
    families = list(guest.MACHINES) if args.board == "all" else [args.board]
    try:
        results = [boot(family, args) for family in families]
    except KeyboardInterrupt:
        print("# stopped")
        return 130
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
