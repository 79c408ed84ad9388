"""A SPIRE server and agent of our own: a real issuer of SVIDs, over a real Workload API socket.

The server signs for `spiffe://writ.test`; the agent joins it with a token and serves whoever runs as
this user. Keys live in memory, data in the scenario's folder: nothing of it outlives the scenario.
"""

import json
import os
import time

from . import peers
from .processes import Service, free_port, run

DOMAIN = "writ.test"
WORKLOAD = f"spiffe://{DOMAIN}/agent/support"
LIFETIME_SECS = 300

SERVER = """
server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{folder}/server.sock"
  trust_domain = "{domain}"
  data_dir = "{folder}/server"
  log_level = "WARN"
  ca_key_type = "ec-p256"
  jwt_issuer = "https://spire.{domain}"
}}
plugins {{
  DataStore "sql" {{ plugin_data {{ database_type = "sqlite3" connection_string = "{folder}/server.sqlite3" }} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "memory" {{ plugin_data {{}} }}
}}
"""

AGENT = """
agent {{
  data_dir = "{folder}/agent"
  log_level = "WARN"
  trust_domain = "{domain}"
  server_address = "127.0.0.1"
  server_port = "{port}"
  socket_path = "{folder}/agent.sock"
  trust_bundle_path = "{folder}/bundle.pem"
}}
plugins {{
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "memory" {{ plugin_data {{}} }}
  WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
"""


class Spire:
    """A running pair of server and agent; use it with `with`."""

    def __init__(self, folder):
        self.programs = peers.spire()
        # A socket path has about 100 characters.
        self.folder = folder / "spire"
        self.folder.mkdir()
        self.port = free_port()
        self.services = []

    @property
    def socket(self):
        """The Workload API, as `SPIFFE_ENDPOINT_SOCKET` wants it."""
        return f"unix://{self.folder}/agent.sock"

    def _configuration(self, name, text):
        path = self.folder / f"{name}.conf"
        path.write_text(text.format(folder=self.folder, port=self.port, domain=DOMAIN))
        return path

    def _server(self, *arguments, **options):
        command = [self.programs / "spire-server", *arguments, "-socketPath", self.folder / "server.sock"]
        return run(command, seconds=30, **options)

    def _start(self, name, configuration, ready, *arguments):
        command = [self.programs / f"spire-{name}", "run", "-config", configuration, *arguments]
        service = Service(command, self.folder / f"{name}.log", ready=ready, seconds=60)
        self.services.append(service.__enter__())

    def __enter__(self):
        try:
            self._start("server", self._configuration("server", SERVER), self._server_is_up)
            (self.folder / "bundle.pem").write_text(self._server("bundle", "show").stdout)
            host = f"spiffe://{DOMAIN}/host"
            joining = self._server("token", "generate", "-spiffeID", host, "-output", "json").stdout
            self._server("entry", "create", "-parentID", host, "-spiffeID", WORKLOAD, "-selector", f"unix:uid:{os.getuid()}",
                         "-x509SVIDTTL", str(LIFETIME_SECS), "-jwtSVIDTTL", str(LIFETIME_SECS))
            agent = self._configuration("agent", AGENT)
            self._start("agent", agent, self._agent_is_up, "-joinToken", json.loads(joining)["value"])
            self._wait_for_entry()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for service in reversed(self.services):
            service.stop()

    def _server_is_up(self):
        return self._server("healthcheck", check=False).returncode == 0

    def _agent_is_up(self):
        command = [self.programs / "spire-agent", "healthcheck", "-socketPath", self.folder / "agent.sock"]
        return run(command, seconds=30, check=False).returncode == 0

    def _wait_for_entry(self):
        # The agent learns of the entry with its next look at the server.
        deadline = time.monotonic() + 60
        while run(self._fetch("jwt", "-audience", "probe"), check=False).returncode != 0:
            assert time.monotonic() < deadline, "the agent never learnt of the workload"
            time.sleep(0.2)

    def _fetch(self, kind, *arguments):
        return [self.programs / "spire-agent", "api", "fetch", kind, "-socketPath", self.folder / "agent.sock", *arguments]

    def jwt_svid(self, audience):
        """A JWT-SVID of the workload for an audience."""
        answer = json.loads(run(self._fetch("jwt", "-audience", audience, "-output", "json")).stdout)
        return answer[0]["svids"][0]["svid"]

    def x509_svid(self):
        """The paths of certificate chain, key and bundle of the workload's X.509-SVID."""
        run(self._fetch("x509", "-write", self.folder))
        return tuple(self.folder / name for name in ("svid.0.pem", "svid.0.key", "bundle.0.pem"))

    def bundle(self):
        """The trust bundle in SPIFFE's JSON form, in a file."""
        path = self.folder / "bundle.json"
        path.write_text(self._server("bundle", "show", "-format", "spiffe").stdout)
        return path
