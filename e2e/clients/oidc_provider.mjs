// An OpenID provider (oidc-provider) with one client and one signing key, for tests.
// Usage: node oidc_provider.mjs PORT. It signs ID tokens with ES256 and lets any user name in.
import { Provider } from "oidc-provider";
import { generateKeyPairSync } from "node:crypto";

const port = Number(process.argv[2]);
const issuer = `http://127.0.0.1:${port}`;
const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const key = { ...privateKey.export({ format: "jwk" }), alg: "ES256", use: "sig", kid: "test-1" };

const provider = new Provider(issuer, {
  jwks: { keys: [key] },
  clients: [{
    client_id: "workload",
    client_secret: "workload-secret-for-tests",
    redirect_uris: ["http://127.0.0.1:9/callback"],
    grant_types: ["authorization_code"],
    response_types: ["code"],
    id_token_signed_response_alg: "ES256",
  }],
  clientDefaults: { id_token_signed_response_alg: "ES256" },
  cookies: { keys: ["cookies-for-tests"] },
  ttl: { IdToken: 300, AccessToken: 300, Session: 300, Grant: 300, Interaction: 300 },
  claims: { openid: ["sub"], profile: ["name"] },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, name: id }) }),
});
provider.listen(port, "127.0.0.1", () => console.log(issuer));
