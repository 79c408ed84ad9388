"""Issuers of others: that they run here and give what Writ will be shown as evidence."""

import base64
import json

from harness import oidc, spire
from harness.processes import run
from harness.record import scenario


def claims(token):
    """What a JWT says, unverified: the issuer is ours for the moment."""
    body = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


@scenario("direct: SPIRE issues SVIDs")
def spire_issues(stage):
    with spire.Spire(stage.folder) as issuer:
        said = claims(issuer.jwt_svid("https://writ.test"))
        assert said["sub"] == spire.WORKLOAD and said["aud"] == ["https://writ.test"], said
        certificate, _, _ = issuer.x509_svid()
        shown = run(["openssl", "x509", "-in", certificate, "-noout", "-ext", "subjectAltName"]).stdout
        assert f"URI:{spire.WORKLOAD}" in shown, shown
        uses = {key["use"] for key in json.loads(issuer.bundle().read_text())["keys"]}
        assert uses == {"x509-svid", "jwt-svid"}, uses


@scenario("direct: oidc-provider issues ID tokens")
def provider_issues(stage):
    with oidc.Issuer(stage.folder) as issuer:
        said = claims(issuer.id_token("support-agent"))
        assert (said["iss"], said["sub"], said["aud"]) == (issuer.url, "support-agent", oidc.CLIENT), said
        assert "ES256" in issuer.discovery()["id_token_signing_alg_values_supported"]
