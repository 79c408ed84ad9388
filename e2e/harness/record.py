"""Scenarios and what came of them: a registry, the run, and the closing line.

A scenario is a function that raises `AssertionError` when something is not as it must be, and `Skip`
or `peers.Missing` when it cannot run here. What is skipped is named in the output, never hidden.
"""

import json
import shutil
import tempfile
import time
import traceback
from pathlib import Path

from . import peers, processes

EXPECTED = Path(__file__).resolve().parents[1] / "expected"
SCENARIOS = []


class Skip(Exception):
    """The scenario cannot run here, and why."""


def scenario(name, quick=False):
    """Registers a scenario; a quick one also runs with `--quick`."""

    def register(function):
        SCENARIOS.append((name, quick, function))
        return function

    return register


class Stage:
    """What a scenario gets: a folder of its own, and the way to expected results."""

    def __init__(self, name, folder, recording):
        self.name = name
        self.folder = folder
        self.recording = recording

    def expect(self, file, actual):
        """Compares with an expected file, difference by difference, or records it."""
        path = EXPECTED / file
        if self.recording:
            path.write_text(json.dumps(actual, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
            return
        same(json.loads(path.read_text(encoding="utf-8")), actual, f"expected/{file}", "this run")


def same(wanted, got, left="direct", right="through Writ"):
    """Asserts that two JSON values are equal, naming each place where they differ."""
    found = list(differences(wanted, got))
    if found:
        shown = "\n".join(f"  {place}: {left} {_short(a)}, {right} {_short(b)}" for place, a, b in found[:20])
        raise AssertionError(f"{len(found)} differences\n{shown}")


ABSENT = object()


def _short(value):
    text = "nothing" if value is ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else text[:157] + "..."


def differences(a, b, place=""):
    """Every place where two JSON values differ, with both values."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            yield from differences(a.get(key, ABSENT), b.get(key, ABSENT), f"{place}/{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for number, (one, other) in enumerate(zip(a, b)):
            yield from differences(one, other, f"{place}/{number}")
    elif a is ABSENT or b is ABSENT or a != b:
        yield place or "/", a, b


def run(wanted, quick, recording, keep):
    """Runs the scenarios whose name contains the text; gives the number that failed."""
    passed, failed, skipped = [], [], []
    for name, is_quick, function in SCENARIOS:
        if wanted not in name or (quick and not is_quick):
            continue
        folder = Path(tempfile.mkdtemp(prefix="writ-e2e-"))
        began = time.monotonic()
        try:
            function(Stage(name, folder, recording))
            outcome, detail, group = "ok", "", passed
        except (Skip, peers.Missing) as reason:
            outcome, detail, group = "SKIPPED", f": {reason}", skipped
        except (AssertionError, processes.DidNotStart) as error:
            outcome, detail, group = "FAILED", f"\n{error}", failed
        except Exception:
            outcome, detail, group = "FAILED", "\n" + traceback.format_exc(limit=4), failed
        group.append(name)
        print(f"e2e {name} ... {outcome} ({time.monotonic() - began:.1f} s){detail}", flush=True)
        if keep or (group is failed):
            print(f"    its files: {folder}", flush=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if skipped:
        print(f"skipped: {', '.join(skipped)}")
    print(f"e2e: {len(passed)} passed, {len(failed)} failed, {len(skipped)} skipped")
    return len(failed) if passed or failed else 1
