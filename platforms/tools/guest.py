# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Boards as QEMU emulates them: command lines, and running a guest to its end."""
import os
import re
import selectors
import shutil
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# family -> its machines, the first one is the default
MACHINES = {
    "riscv64": ["virt"],
    "x86_64": ["q35", "pc", "microvm", "iso"],
    "aarch64": ["virt", "gicv3", "el2"],
}
BOARDS = {"riscv64": "qemu-virt-riscv64", "x86_64": "qemu-q35-x86_64",
          "aarch64": "qemu-virt-aarch64"}
# Versions of the interrupt controller; with el2 the kernel is entered at EL2.
AARCH64_OPTIONS = {"virt": "gic-version=2", "gicv3": "gic-version=3",
                   "el2": "gic-version=3,virtualization=on"}
OBJCOPY = "aarch64-linux-gnu-objcopy"


def mebibytes(size):
    """"64G", "256M", "1T" -> MiB."""
    match = re.fullmatch(r"(\d+)([MGT])", size)
    if not match:
        raise ValueError(f"size {size!r}: a number and M, G or T, such as 256M")
    return int(match[1]) << {"M": 0, "G": 10, "T": 20}[match[2]]


def cpus_on(machine, cpus):
    """CPUs that the machine gives of those asked for: microvm, without ACPI tables, has one."""
    return 1 if machine == "microvm" else cpus


def grub_quoted(word):
    """One word of GRUB's script: nothing in it is special."""
    return "'" + word.replace("'", "'\\''") + "'"


def make_iso(kernel, command_line, directory, initrd=None):
    """A GRUB image that boots the kernel by multiboot2."""
    words = " ".join(grub_quoted(word) for word in command_line.split())
    tree = os.path.join(directory, "iso")
    os.makedirs(os.path.join(tree, "boot", "grub"))
    shutil.copy(kernel, os.path.join(tree, "boot", "kernel.elf"))
    module = ""
    if initrd:
        shutil.copy(initrd, os.path.join(tree, "boot", "initrd"))
        module = "\tmodule2 /boot/initrd\n"
    with open(os.path.join(tree, "boot", "grub", "grub.cfg"), "w", encoding="utf-8") as f:
        f.write("set timeout=0\nset default=0\n"
                "serial --unit=0 --speed=115200\nterminal_input serial\nterminal_output serial\n"
                f'menuentry "helix" {{\n\tmultiboot2 /boot/kernel.elf {words}\n'
                f"{module}\tboot\n}}\n")
    image = os.path.join(directory, "helix.iso")
    subprocess.run(["grub-mkrescue", "-o", image, tree], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return image


def command(family, kernel, machine=None, memory="256M", cpus=4, append="", cpu=None,
            initrd=None, dtb=None, icount=False, extra=()):
    """QEMU's argument list. With machine "iso", kernel is the image of make_iso(), which holds
    the command line and the initrd."""
    machine = machine or MACHINES[family][0]
    size = mebibytes(memory)
    # reserve=off: a terabyte of guest RAM costs what the guest touches.
    backend = ["-object", f"memory-backend-ram,id=ram0,size={size}M,reserve=off"]
    options = "memory-backend=ram0"
    if family == "riscv64":
        line = ["qemu-system-riscv64", "-M", f"{machine},{options}", "-bios", "default"]
    elif family == "aarch64":
        line = ["qemu-system-aarch64", "-M", f"virt,{AARCH64_OPTIONS[machine]},{options}",
                "-cpu", cpu or "max", "-semihosting"]
    else:
        board = "q35" if machine == "iso" else machine
        # -cpu max has 40 bits of physical address unless told otherwise.
        cpu = cpu or ("max" if size < mebibytes("512G") else "max,phys-bits=46")
        line = ["qemu-system-x86_64", "-M", f"{board},{options}", "-cpu", cpu,
                "-nodefaults", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
        cpus = cpus_on(machine, cpus)
    if family == "riscv64" and cpu:
        line += ["-cpu", cpu]
    line += [*backend, "-m", f"{size}M", "-smp", str(cpus), "-display", "none",
             "-serial", "stdio", "-monitor", "none", "-no-reboot"]
    if icount:
        line += ["-icount", "shift=0,sleep=off"]
    if machine == "iso":
        line += ["-cdrom", kernel, "-boot", "d"]
    else:
        line += ["-kernel", kernel]
        if append:
            line += ["-append", append]
        if initrd:
            line += ["-initrd", initrd]
        if dtb:
            line += ["-dtb", dtb]
    return [*line, *extra]


def passed(family, status):
    """Did the guest end the machine with success?"""
    return status == (33 if family == "x86_64" else 0)


class Outcome:
    """How a guest's run ended."""

    def __init__(self, status, lines, timed_out, seconds):
        self.status = status
        self.lines = lines
        self.timed_out = timed_out
        self.seconds = seconds


def run(line, timeout, on_line):
    """Run QEMU; on_line(text) for each line as it comes. Always ends within the timeout."""
    start = time.monotonic()
    lines = []
    timed_out = False
    ended = False
    with subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as process:
        selector = selectors.DefaultSelector()
        selector.register(process.stdout, selectors.EVENT_READ)
        pending = b""
        try:
            while True:
                left = timeout - (time.monotonic() - start)
                if left <= 0:
                    timed_out = True
                    break
                if not selector.select(left):
                    continue
                chunk = os.read(process.stdout.fileno(), 65536)
                if not chunk:
                    ended = True
                    break
                *whole, pending = (pending + chunk).split(b"\n")
                for raw in whole:
                    text = raw.decode(errors="replace").rstrip("\r")
                    lines.append(text)
                    on_line(text)
            if pending:
                text = pending.decode(errors="replace").rstrip("\r")
                lines.append(text)
                on_line(text)
            if ended:
                process.wait(10)  # its output is closed: it is about to end
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            process.kill()  # does nothing to one that has ended
        status = process.wait()
    return Outcome(status, lines, timed_out, time.monotonic() - start)


def temporary():
    return tempfile.TemporaryDirectory(prefix="helix-")
