// Stands before Writ for clients that cannot send a token: opens a task, and adds the DPoP-bound token to
// every request. What `writ exec` does, told once more in few lines, so that a fault of the gateway and a
// fault of exec can be told apart. Usage: node injector.mjs JOB.json; prints the URL that it serves.
import { createServer, request } from "node:http";
import { createHash, generateKeyPairSync, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { evidence, signed } from "./evidence.mjs";

const job = JSON.parse(readFileSync(process.argv[2], "utf8"));
const resource = new URL(job.resource);
const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const { kty, crv, x, y } = publicKey.export({ format: "jwk" });
const RENEW_MS = 120_000;

const proof = (method, url, more = {}) => {
  const claims = { htm: method, htu: url, iat: Math.floor(Date.now() / 1000), jti: randomUUID(), ...more };
  return signed({ typ: "dpop+jwt", alg: "ES256", jwk: { kty, crv, x, y } }, claims, privateKey);
};

let token, task, since = 0;
const fresh = async () => {
  if (Date.now() - since < RENEW_MS) return token;
  const url = `${job.issuer}/oauth/token`;
  const details = task ? [{ type: "writ_task", task }] : job.details;
  const form = new URLSearchParams({
    grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
    subject_token: evidence(job.dev, job.subject, job.issuer),
    subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
    resource: job.resource,
    authorization_details: JSON.stringify(details),
  });
  const answer = await fetch(url, { method: "POST", body: form, headers: { dpop: proof("POST", url) } });
  const body = await answer.json();
  if (!answer.ok) throw new Error(`no task: ${answer.status} ${JSON.stringify(body)}`);
  token = body.access_token;
  task = JSON.parse(Buffer.from(token.split(".")[1], "base64url")).task;
  since = Date.now();
  return token;
};

const server = createServer(async (from, to) => {
  try {
    const access = await fresh();
    const ath = createHash("sha256").update(access).digest("base64url");
    const headers = { ...from.headers, authorization: `DPoP ${access}`, dpop: proof(from.method, job.resource, { ath }) };
    // Our own name becomes Writ's; any other Host goes through as it came, for Writ to refuse.
    if (headers.host === `127.0.0.1:${server.address().port}`) headers.host = resource.host;
    const onward = request(resource, { method: from.method, headers }, (answer) => {
      to.writeHead(answer.statusCode, answer.headers);
      to.flushHeaders();
      answer.pipe(to);
      answer.on("error", () => to.destroy());
    });
    onward.on("error", () => (to.headersSent ? to.destroy() : to.writeHead(502).end()));
    // A client that goes away is news for Writ.
    to.on("close", () => onward.destroy());
    from.pipe(onward);
  } catch (error) {
    console.error(String(error));
    to.writeHead(500).end(String(error));
  }
});
await fresh();
server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/mcp`));
