// oauth4webapi as a client of Writ's OAuth endpoints: metadata, a task by token exchange with DPoP, use of
// the token, validation as a resource server would do it, introspection, revocation.
// Usage: node oauth.mjs JOB.json; the job names issuer, evidence, resource, details and operator.
import { readFileSync } from "node:fs";
import * as oauth from "oauth4webapi";

const job = JSON.parse(readFileSync(process.argv[2], "utf8"));
const plain = { [oauth.allowInsecureRequests]: true };
const told = {};

const issuer = new URL(job.issuer);
const server = await oauth.processDiscoveryResponse(
  issuer, await oauth.discoveryRequest(issuer, { algorithm: "oauth2", ...plain }));
told.metadata = server;
const resource = new URL(job.resource);
told.resource_metadata = await oauth.processResourceDiscoveryResponse(
  resource, await oauth.resourceDiscoveryRequest(resource, plain));

const client = { client_id: job.client_id };
const keys = await oauth.generateKeyPair("ES256");
const proof = oauth.DPoP(client, keys);

const exchange = async (evidence) => {
  const form = new URLSearchParams({
    subject_token: evidence,
    subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
    resource: job.resource,
    authorization_details: JSON.stringify(job.details),
  });
  const ask = () => oauth.genericTokenEndpointRequest(
    server, client, oauth.None(), "urn:ietf:params:oauth:grant-type:token-exchange", form, { DPoP: proof, ...plain });
  const read = async () => oauth.processGenericTokenEndpointResponse(server, client, await ask());
  try {
    return await read();
  } catch (error) {
    // A server may want its nonce first; the proof keeps it for the second try.
    if (!oauth.isDPoPNonceError(error)) throw error;
    return read();
  }
};

const refusal = (error) => ({ error: error.error ?? error.cause?.error ?? String(error), status: error.status ?? null });

const token = await exchange(job.evidence);
told.token = { ...token, access_token: undefined };

// What a resource server that has only the metadata and the keys would make of a request with this token.
let captured;
await oauth.protectedResourceRequest(token.access_token, "POST", resource, new Headers(), "{}", {
  DPoP: proof, ...plain,
  [oauth.customFetch]: async (url, options) => {
    captured = new Request(url, { method: options.method, headers: options.headers });
    return new Response("{}", { headers: { "content-type": "application/json" } });
  },
});
told.claims = await oauth.validateJwtAccessToken(server, captured, job.resource, { ...plain, requireDPoP: true });

const call = async (accessToken, dpop) => {
  const body = JSON.stringify({
    jsonrpc: "2.0", id: 1, method: "server/discover",
    params: { _meta: { "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} } },
  });
  const headers = {
    "content-type": "application/json", accept: "application/json, text/event-stream",
    "mcp-protocol-version": "2026-07-28", "mcp-method": "server/discover",
  };
  const send = () => oauth.protectedResourceRequest(accessToken, "POST", resource, new Headers(headers), body, { DPoP: dpop, ...plain });
  const status = () => send().then((answer) => answer.status);
  try {
    return await status();
  } catch (error) {
    if (dpop && oauth.isDPoPNonceError(error)) return status().catch((again) => again.status ?? String(again));
    return error.status ?? String(error);
  }
};
told.use = await call(token.access_token, proof);
told.use_as_bearer = await call(token.access_token, undefined);
told.use_with_other_key = await call(token.access_token, oauth.DPoP(client, await oauth.generateKeyPair("ES256")));

const asking = { client_id: job.operator.name };
const secret = oauth.ClientSecretBasic(job.operator.secret);
const introspect = async () => oauth.processIntrospectionResponse(
  server, asking, await oauth.introspectionRequest(server, asking, secret, token.access_token, plain));
told.introspection = await introspect();
await oauth.processRevocationResponse(await oauth.revocationRequest(server, asking, secret, token.access_token, plain));
told.introspection_after = await introspect();
told.use_after = await call(token.access_token, proof);

// The same evidence once more, where it may be used only once; and evidence of nobody.
if (job.single_use) told.replayed = await exchange(job.evidence).then(() => "accepted", refusal);
const forged = job.evidence.split(".").slice(0, 2).join(".") + "." + "A".repeat(86);
told.forged = await exchange(forged).then(() => "accepted", refusal);

console.log(JSON.stringify(told));
