"""The program as a newcomer meets it: the demo, a first folder, and what it says about itself."""

from harness.processes import run
from harness.record import scenario
from harness.writ import PROGRAM


@scenario("program: demo --once tells the story and checks itself", quick=True)
def demo(stage):
    told = run([PROGRAM, "demo", "--once"], seconds=120, cwd=stage.folder)
    assert told.stdout.strip(), "the demo said nothing"


@scenario("program: what init writes is valid, tested and served", quick=True)
def init(stage):
    folder = stage.folder / "first"
    run([PROGRAM, "init", folder])
    run([PROGRAM, "policy", "check", folder / "policy"])
    run([PROGRAM, "policy", "test", folder / "policy"])
    config = folder / "writ.toml"
    # Its port may be taken by whoever runs Writ on this machine.
    config.write_text(config.read_text().replace("127.0.0.1:8700", "127.0.0.1:0"))
    run([PROGRAM, "serve", "--check", "--config", config])
    again = run([PROGRAM, "init", folder], check=False)
    assert again.returncode != 0 and "already" in again.stderr, "init wrote over what was there"
