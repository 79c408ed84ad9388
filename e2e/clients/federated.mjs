// The official TypeScript client as a federated workload: it finds the authorization server by itself from the 401, sends
// its workload's identity token by the JWT bearer grant (RFC 7523, SEP-1933) and proves possession of its key on every
// request (RFC 9449, SEP-1932). Usage: node federated.mjs JOB.json; prints what it got.
import { readFileSync } from "node:fs";
import { Client, DpopSession, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { evidence } from "./evidence.mjs";

const job = JSON.parse(readFileSync(process.argv[2], "utf8"));
const session = await DpopSession.create();
const asked = [];
let tokens;
const provider = {
  get redirectUrl() {},
  clientMetadata: { client_name: "federated", redirect_uris: [], grant_types: ["urn:ietf:params:oauth:grant-type:jwt-bearer"], token_endpoint_auth_method: "none" },
  clientInformation: () => ({ client_id: job.client_id, issuer: job.issuer }),
  tokens: () => tokens,
  saveTokens: (given) => { tokens = given; },
  redirectToAuthorization() { throw new Error("a workload has no browser"); },
  saveCodeVerifier() {},
  codeVerifier() { throw new Error("a workload has no browser"); },
  dpop: () => session,
  prepareTokenRequest(scope) {
    asked.push(scope ?? null);
    return new URLSearchParams({
      grant_type: "urn:ietf:params:oauth:grant-type:jwt-bearer", assertion: evidence(job.dev, job.subject, job.issuer),
      authorization_details: JSON.stringify(job.details), ...(scope ? { scope } : {}),
    });
  },
};
const client = new Client({ name: "federated", version: "1" }, { versionNegotiation: { mode: "auto" } });
await client.connect(new StreamableHTTPClientTransport(new URL(job.resource), { authProvider: provider }));
const { tools } = await client.listTools();
const called = await client.callTool({ name: "read_ticket", arguments: { ticket_id: 4710 } });
const claims = JSON.parse(Buffer.from(tokens.access_token.split(".")[1], "base64url").toString());
console.log(JSON.stringify({
  type: tokens.token_type, bound: claims.cnf?.jkt === session.thumbprint, thumbprint: session.thumbprint, claims, asked,
  tools: tools.map((tool) => tool.name), failed: called.isError ?? false, revision: client.getNegotiatedProtocolVersion(),
}));
await client.close();
process.exit(0);
