"""The servers that stand behind Writ in the scenarios, and how each is started or reached directly."""

import os
from pathlib import Path

from . import peers
from .processes import Service, free_port, run

BINARIES = Path(os.environ.get("CARGO_TARGET_DIR", peers.ROOT / "target")) / "debug"
PLANS = peers.ROOT / "e2e" / "plans"


def cargo_build():
    """Builds the programs of ours that scenarios run, in one go; a no-op after `cargo test`."""
    # The same selection as `cargo test --workspace`: another one would build the dependencies anew.
    run(["cargo", "build", "--quiet", "--workspace", "--bins", "--examples"], seconds=3000, cwd=peers.ROOT)


def conformance(folder):
    """The conformance fixture, serving until the block ends."""
    port = free_port()
    return Service([BINARIES / "conformance", port], folder / "conformance.log", f"http://127.0.0.1:{port}/mcp")


def helpdesk(folder, database=None):
    """The helpdesk by itself, in memory or over a file."""
    port = free_port()
    command = [BINARIES / "examples" / "serve", port, *([database] if database else [])]
    return Service(command, folder / "helpdesk.log", f"http://127.0.0.1:{port}/mcp")


def everything(folder):
    """The official server-everything over Streamable HTTP."""
    port = free_port()
    entry = peers.package("@modelcontextprotocol/server-everything") / "dist" / "index.js"
    command = [peers.node(), entry, "streamableHttp"]
    url = f"http://127.0.0.1:{port}/mcp"
    return Service(command, folder / "everything.log", url, environment={"PORT": str(port)})


def stdio(name, folder):
    """The command of an official stdio server, over a folder that is made for it."""
    entry = peers.package(f"@modelcontextprotocol/server-{name}") / "dist" / "index.js"
    if name == "filesystem":
        files = folder / "files"
        files.mkdir(exist_ok=True)
        (files / "note.txt").write_text("a note\nof two lines\n")
        (folder / "outside.txt").write_text("not to be read\n")
        return [peers.node(), entry, files]
    if name == "memory":
        return ["/usr/bin/env", f"MEMORY_FILE_PATH={folder / 'memory.jsonl'}", peers.node(), entry]
    return [peers.node(), entry]


def plan(name, folder):
    """A plan, with the places of this run filled in."""
    path = folder / f"plan-{name}.json"
    path.write_text((PLANS / f"{name}.json").read_text(encoding="utf-8").replace("{folder}", str(folder / "files")))
    return path
