#!/usr/bin/env python3
"""Counts the instructions that a request costs, by library, with callgrind around inproc_infer.

usage: instructions.py PATH/TO/inproc_infer INPROC_INFER_OPTIONS...

Prints one JSON line: inproc_infer's own, with "instructions" added:
    total        of all measured requests, all threads, the program's own part included
    per_request  total / requests
    objects      the same by the library in which the instructions lie (self cost), per request

Start-up and warm-up are not counted: instrumentation is off until inproc_infer turns it on.

memcpy must cost the same for each byte at every size, or a copy hides: glibc switches to `rep movsb`
(counted once a byte) at some 2 KB and to wide non-temporal stores (some 0.1 a byte) above a good part
of the last-level cache, so that copying 16 MB can count less than copying 4 MB. Both are turned off.
"""

import json
import os
import re
import subprocess
import sys
import tempfile

LINEAR_MEMCPY = ":".join(
    f"glibc.cpu.{name}={value}"
    for name, value in (
        ("x86_rep_movsb_threshold", "0x3fffffffffffffff"),
        ("x86_rep_stosb_threshold", "0x3fffffffffffffff"),
        ("x86_non_temporal_threshold", "0xfffffffffffffff"),
    )
)


def self_costs(path):
    """{object path: instructions} of one callgrind output file."""
    names = {}
    costs = {}
    current = "?"
    callee = False
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith(("ob=", "cob=")):
                # A name is spelled out once and then known by its number, for both kinds of line.
                number, name = re.match(r"c?ob=(?:\((\d+)\))?\s*(.*)", line).groups()
                name = name.strip()
                if number is not None and name:
                    names[number] = name
                if line.startswith("ob="):
                    current = name if number is None else names.get(number, "?")
            elif line.startswith("calls="):
                # The next line is the callee's inclusive cost, counted where it was spent.
                callee = True
            elif line[:1].isdigit() or line[:1] in ("+", "-", "*"):
                fields = line.split()
                if not callee and len(fields) > 1:
                    costs[current] = costs.get(current, 0) + int(fields[1])
                callee = False
    return costs


def count(command):
    """Runs the command under callgrind; returns its JSON line with the instructions added."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "callgrind")
        environment = dict(os.environ, GLIBC_TUNABLES=LINEAR_MEMCPY)
        # Valgrind cannot duplicate a mapping: without this, shared memory would go another way.
        folder_of_build = os.path.dirname(os.path.dirname(os.path.abspath(command[0])))
        duplicate = os.path.join(folder_of_build, "lib", "libumo_duplicate.so")
        if os.path.exists(duplicate):
            environment["LD_PRELOAD"] = duplicate
        ran = subprocess.run(
            [
                "valgrind",
                "-q",
                "--tool=callgrind",
                "--instr-atstart=no",
                f"--callgrind-out-file={out}",
                *command,
            ],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if ran.returncode != 0:
            sys.exit(f"instructions.py: {command[0]} ended with {ran.returncode}")
        result = json.loads(ran.stdout.splitlines()[0])
        if not result["callgrind"]:
            sys.exit("instructions.py: inproc_infer was built without valgrind's header")
        # Part 1 is what was dumped when the last measured request was done.
        costs = self_costs(out + ".1")
    requests = result["requests"]
    objects = {}
    for path, cost in sorted(costs.items(), key=lambda item: -item[1]):
        name = os.path.basename(path)
        objects[name] = objects.get(name, 0) + cost
    total = sum(costs.values())
    result["instructions"] = {
        "total": total,
        "per_request": round(total / requests, 1),
        "objects": {name: round(cost / requests, 1) for name, cost in objects.items()},
    }
    return result


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    print(json.dumps(count(sys.argv[1:])))
