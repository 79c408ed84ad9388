// Calls reply_ticket without pause, each call with a mark of its own, while the server is killed and started
// again under it. Stops when its standard input ends; prints how many calls were answered.
// Usage: node storm.mjs JOB.json CONCURRENCY
import { createHash, generateKeyPairSync, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { evidence, signed } from "./evidence.mjs";

const job = JSON.parse(readFileSync(process.argv[2], "utf8"));
const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const { kty, crv, x, y } = publicKey.export({ format: "jwk" });
const proof = (htu, more = {}) => signed(
  { typ: "dpop+jwt", alg: "ES256", jwk: { kty, crv, x, y } },
  { htm: "POST", htu, iat: Math.floor(Date.now() / 1000), jti: randomUUID(), ...more }, privateKey);

let stopping = false;
process.stdin.on("end", () => { stopping = true; }).resume();
const pause = () => new Promise((done) => setTimeout(done, 5));
const counts = { answered: 0, refused: 0, lost: 0 };
let token;

const open = async () => {
  const url = `${job.issuer}/oauth/token`;
  const body = new URLSearchParams({
    grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
    subject_token: evidence(job.dev, job.subject, job.issuer),
    subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
    resource: job.resource, authorization_details: JSON.stringify(job.details),
  });
  const answer = await fetch(url, { method: "POST", body, headers: { dpop: proof(url) } });
  if (answer.ok) token = (await answer.json()).access_token;
};

const call = async () => {
  const mark = `mark-${randomUUID()}`;
  const ath = createHash("sha256").update(token).digest("base64url");
  const answer = await fetch(job.resource, {
    method: "POST",
    headers: {
      "content-type": "application/json", accept: "application/json, text/event-stream",
      "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "reply_ticket",
      authorization: `DPoP ${token}`, dpop: proof(job.resource, { ath }),
    },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params: {
      name: "reply_ticket", arguments: { ticket_id: 4710, body: mark },
      _meta: { "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} },
    } }),
  });
  const text = await answer.text();
  if (answer.status === 401) token = undefined;
  if (answer.ok && text.includes('"replied":true')) counts.answered += 1; else counts.refused += 1;
};

const worker = async () => {
  while (!stopping) {
    try {
      if (!token) await open();
      if (token) await call(); else await pause();
    } catch {
      // The server is down: what became of the call is exactly the question.
      counts.lost += 1;
      await pause();
    }
  }
};
await Promise.all(Array.from({ length: Number(process.argv[3]) }, worker));
console.log(JSON.stringify(counts));
