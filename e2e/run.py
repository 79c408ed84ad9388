#!/usr/bin/env python3
"""Runs the end-to-end scenarios: `e2e/run.py [TEXT] [--quick] [--list] [--record] [--keep] [--no-build] [--install]`.

TEXT picks the scenarios whose name contains it; `--record` writes expected results anew instead of
comparing; `--keep` leaves the folders of the scenarios; `--no-build` uses the programs as they are; `--install` only installs
the peers.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True

from harness import peers, record, servers  # noqa: E402
from scenarios import client, clock, crash, direct, disk, exec, hostile, issuers, log, oauth, program, through  # noqa: E402, F401


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("text", nargs="?", default="")
    for flag in ("quick", "list", "record", "keep", "no-build", "install"):
        arguments.add_argument(f"--{flag}", action="store_true")
    chosen = arguments.parse_args()
    if chosen.install:
        peers.install_all()
        return 0
    if chosen.list:
        print("\n".join(name for name, _, _ in record.SCENARIOS))
        return 0
    if not chosen.no_build:
        servers.cargo_build()
    return min(1, record.run(chosen.text, chosen.quick, chosen.record, chosen.keep))


if __name__ == "__main__":
    sys.exit(main())
