// One agent, driven line by line: a JSON command on standard input, one JSON answer on standard output. It keeps one
// key, and its tokens are its master's business. An answer that never came reads { lost: "why" }.
// Commands: open, renew, replace, list, call, end, proof. Usage: node agent.mjs JOB.json
import { createHash, generateKeyPairSync, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { evidence, signed } from "./evidence.mjs";

const job = JSON.parse(readFileSync(process.argv[2], "utf8"));
const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const { kty, crv, x, y } = publicKey.export({ format: "jwk" });
const seconds = (ahead = 0) => Math.floor(Date.now() / 1000) + ahead;
const proof = (htu, { ahead, ...more } = {}) => signed(
  { typ: "dpop+jwt", alg: "ES256", jwk: { kty, crv, x, y } },
  { htm: "POST", htu, iat: seconds(ahead), jti: randomUUID(), ...more }, privateKey);
const ath = (token) => createHash("sha256").update(token).digest("base64url");

const told = async (answer) => {
  const text = await answer.text();
  let body = text;
  try { body = JSON.parse(text.startsWith("event:") ? text.slice(text.indexOf("data: ") + 6).split("\n")[0] : text); } catch { /* as it is */ }
  return { status: answer.status, body, nonce: answer.headers.get("dpop-nonce"), challenge: answer.headers.get("www-authenticate") };
};

// `ahead` shifts this agent's own clock; `proof` sends that one instead of a new one; `nonce` goes into a new one.
const send = async (url, options, { ahead = 0, nonce, dpop, token, patience = 15 }) => {
  const more = { ahead, ...(nonce ? { nonce } : {}), ...(token ? { ath: ath(token) } : {}) };
  const headers = { ...options.headers, dpop: dpop ?? proof(url, more), ...(token ? { authorization: `DPoP ${token}` } : {}) };
  const began = performance.now();
  const answer = await told(await fetch(url, { ...options, method: "POST", headers, signal: AbortSignal.timeout(patience * 1000) }));
  return { ...answer, ms: performance.now() - began };
};

const exchange = (command, details) => {
  const attested = command.evidence ?? evidence(job.dev, job.subject, job.issuer, { iat: seconds(command.ahead), exp: seconds((command.ahead ?? 0) + 120) });
  const body = new URLSearchParams({
    grant_type: "urn:ietf:params:oauth:grant-type:token-exchange", subject_token: attested,
    subject_token_type: "urn:ietf:params:oauth:token-type:jwt", resource: job.resource,
    authorization_details: JSON.stringify([{ type: "writ_task", ...details }]),
  });
  return send(`${job.issuer}/oauth/token`, { body }, command).then((answer) => ({ ...answer, evidence: attested }));
};

const declared = { intent: job.details[0].intent, parameters: job.details[0].parameters };
const commands = {
  open: (command) => exchange(command, command.declared ?? declared),
  renew: (command) => exchange(command, { task: command.task }),
  replace: (command) => exchange(command, { ...declared, replaces: command.task }),
  end: (command) => send(`${job.issuer}/v1/tasks/${command.task}/end`, {}, command),
  proof: (command) => ({ proof: proof(job.resource, { ahead: command.ahead, ath: ath(command.token) }) }),
  list: (command) => send(job.resource, {
    headers: {
      "content-type": "application/json", accept: "application/json, text/event-stream",
      "mcp-protocol-version": "2026-07-28", "mcp-method": command.method,
    },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: command.method, params: {
      _meta: { "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} },
    } }),
  }, command),
  call: (command) => send(job.resource, {
    headers: {
      "content-type": "application/json", accept: "application/json, text/event-stream",
      "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": command.name,
    },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params: {
      name: command.name, arguments: command.arguments,
      _meta: { "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} },
    } }),
  }, command),
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  let answer;
  try {
    answer = await commands[command.do](command);
  } catch (error) {
    answer = { lost: String(error.cause ?? error) };
  }
  console.log(JSON.stringify(answer));
}
