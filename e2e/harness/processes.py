"""Processes that a scenario starts: each in its own group, its output in a file, stopped with the
scenario however that ends. A server counts as started when it answers, never because time has passed.
"""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request


class DidNotStart(Exception):
    """A server did not answer in time; the text holds the end of its output."""


def free_port():
    """A port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url, timeout=2.0):
    """Whether anything speaks HTTP at the URL, whatever it says."""
    try:
        urllib.request.urlopen(url, timeout=timeout).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


class Service:
    """A process that serves until the `with` block ends."""

    def __init__(self, command, log, url=None, ready=None, environment=None, seconds=20, cwd=None):
        self.command = [str(part) for part in command]
        self.log = log
        self.url = url
        self.ready = ready or (lambda: answers(url))
        self.environment = {**os.environ, **(environment or {})}
        self.seconds = seconds
        self.cwd = cwd
        self.process = None

    def __enter__(self):
        out = open(self.log, "ab")
        self.process = subprocess.Popen(
            self.command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env=self.environment, cwd=self.cwd, start_new_session=True,
        )
        out.close()
        deadline = time.monotonic() + self.seconds
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise DidNotStart(f"{self.command[0]} did not start:\n{self.tail()}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self.stop()

    def tail(self, lines=15):
        """The last lines of its output."""
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-lines:])

    def stop(self, how=signal.SIGTERM, seconds=10):
        """Asks it to stop, then makes it; gives its exit code."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, how)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        try:
            # What it left behind in its group goes with it.
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        return self.process.returncode


def run(command, seconds=120, environment=None, cwd=None, check=True):
    """Runs a command to its end and gives its output; a failure shows the end of what it said."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, stdin=subprocess.DEVNULL,
        timeout=seconds, env={**os.environ, **(environment or {})}, cwd=cwd, check=False,
    )
    if check and done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines()[-12:]
        raise AssertionError(f"{' '.join(map(str, command))[:200]} exited {done.returncode}:\n" + "\n".join(said))
    return done
