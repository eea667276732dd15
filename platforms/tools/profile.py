#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Read a profile (helix.toml), apply Meson options over it, print the configuration.

usage: profile.py FILE [KEY=VALUE ...]

KEY=VALUE are Meson options by the profile's key names; the value "profile" leaves the
profile's. Output: one KEY=VALUE line for each setting, lists joined by commas. An unknown
section, key or value ends with status 1 and one line that names file, key and what is
allowed.
"""
import sys
import tomllib

PHYSICAL = ["bump", "bitmap", "buddy", "slab", "tree"]
BACKING = ["bitmap", "buddy"]
HEAP = ["bump", "simple", "slab"]
WX = ["force", "refuse", "off"]


class Refused(Exception):
    """A profile that must not be built; its text is for the user."""


def one_of(*names):
    def check(value):
        if value not in names:
            raise Refused(f'{value!r} is not one of {", ".join(names)}')
        return value
    return check


def some_of(*names):
    def check(value):
        if not isinstance(value, list) or not value:
            raise Refused(f'{value!r} is not a list of {", ".join(names)}')
        for name in value:
            one_of(*names)(name)
        if len(set(value)) != len(value):
            raise Refused("a name stands twice")
        return [n for n in names if n in value]
    return check


def boolean(value):
    if not isinstance(value, bool):
        raise Refused(f"{value!r} is not true or false")
    return value


def kilobytes(value):
    # bool is an int in Python; 2^32 KiB (4 TiB) is beyond any kernel heap.
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise Refused(f"{value!r} is not a number of KiB from 0 (no limit) to {(1 << 32) - 1}")
    return value


# section -> key -> (check, default); README.md describes them for people.
SCHEMA = {
    "memory": {
        "heap_size_kb": (kilobytes, 0),
        "huge_pages": (boolean, True),
        "wx": (one_of(*WX), "force"),
    },
    "allocator": {
        "physical": (one_of(*PHYSICAL), "buddy"),
        "physical_backing": (one_of(*BACKING), "buddy"),
        "heap": (one_of(*HEAP), "slab"),
        "builtin_physical": (some_of(*PHYSICAL), PHYSICAL),
        "builtin_heap": (some_of(*HEAP), HEAP),
    },
}


def read(path):
    try:
        with open(path, "rb") as f:
            given = tomllib.load(f)
    except (OSError, tomllib.TOMLDecodeError) as e:
        raise Refused(f"{path}: {e}") from e
    settings = {}
    for section, keys in SCHEMA.items():
        for key, (_, default) in keys.items():
            settings[key] = default
    for section, values in given.items():
        if section not in SCHEMA or not isinstance(values, dict):
            raise Refused(f"{path}: {section}: unknown; allowed sections: {', '.join(SCHEMA)}")
        for key, value in values.items():
            if key not in SCHEMA[section]:
                raise Refused(f"{path}: {section}.{key}: unknown key; allowed: "
                              f"{', '.join(SCHEMA[section])}")
            try:
                settings[key] = SCHEMA[section][key][0](value)
            except Refused as e:
                raise Refused(f"{path}: {section}.{key}: {e}") from e
    return settings


def apply_options(path, settings, options):
    for option in options:
        key, _, value = option.partition("=")
        if value == "profile":
            continue
        check = next((keys[key][0] for keys in SCHEMA.values() if key in keys), None)
        if check is None:
            raise Refused(f"option {key}: unknown")
        try:
            settings[key] = check(value)
        except Refused as e:
            raise Refused(f"option {key}: {e}") from e


def agree(path, settings):
    """What is chosen must be built in, and what it stands on as well."""
    for key, builtin in (("physical", "builtin_physical"), ("heap", "builtin_heap")):
        if settings[key] not in settings[builtin]:
            raise Refused(f"{path}: allocator.{key}: {settings[key]!r} is not among "
                          f"{builtin} ({', '.join(settings[builtin])})")
    if "slab" in settings["builtin_physical"]:
        if settings["physical_backing"] not in settings["builtin_physical"]:
            raise Refused(f"{path}: allocator.physical_backing: "
                          f"{settings['physical_backing']!r} is not among builtin_physical "
                          f"({', '.join(settings['builtin_physical'])})")
    if "bump" not in settings["builtin_heap"]:
        raise Refused(f"{path}: allocator.builtin_heap: bump is needed to boot")


def text(value):
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, list):
        return ",".join(value)
    return str(value)


def main(argv):
    path, options = argv[1], argv[2:]
    try:
        settings = read(path)
        apply_options(path, settings, options)
        agree(path, settings)
    except Refused as e:
        print(e)
        return 1
    for key, value in settings.items():
        print(f"{key}={text(value)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
