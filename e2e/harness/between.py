"""The command that the suite's client scenarios run: the official client at the URL that they add, directly, or with Writ
between. As a program: `between.py (direct | writ) FOLDER URL`.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import peers  # noqa: E402
from harness.processes import run  # noqa: E402
from harness.writ import Writ  # noqa: E402


def drive(url, folder):
    """Runs the client; what it could not do is in the folder."""
    done = run([peers.node(), peers.npm() / "clients" / "drive.mjs", url], seconds=25, check=False)
    (folder / "said").write_text(done.stdout + done.stderr)


def main():
    way, folder, url = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    if way == "direct":
        drive(url, folder)
        return
    stage = Path(tempfile.mkdtemp(dir=folder))
    with Writ(stage, {"suite": url}) as writ, writ.way_in("suite") as way_in:
        drive(way_in.url, stage)


if __name__ == "__main__":
    main()
