// A development identity token, signed with the key that `writ init` made.
// As a program: node evidence.mjs DEV-FOLDER SUBJECT AUDIENCE; it prints the token.
import { readFileSync } from "node:fs";
import { createPrivateKey, randomUUID, sign } from "node:crypto";
import { fileURLToPath } from "node:url";

const encoded = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

export const signed = (header, claims, key) => {
  const message = `${encoded(header)}.${encoded(claims)}`;
  return `${message}.${sign("sha256", Buffer.from(message), { key, dsaEncoding: "ieee-p1363" }).toString("base64url")}`;
};

export const evidence = (folder, subject, audience, changes = {}) => {
  const der = Buffer.from(readFileSync(`${folder}/issuer.key`, "utf8").trim(), "base64");
  const key = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
  const { kid } = JSON.parse(readFileSync(`${folder}/jwks.json`, "utf8")).keys[0];
  const now = Math.floor(Date.now() / 1000);
  const claims = { iss: "urn:writ:dev", sub: subject, aud: audience, iat: now, exp: now + 120, jti: randomUUID(), ...changes };
  return signed({ alg: "ES256", typ: "JWT", kid }, claims, key);
};

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [folder, subject, audience, changes] = process.argv.slice(2);
  console.log(evidence(folder, subject, audience, changes ? JSON.parse(changes) : {}));
}
