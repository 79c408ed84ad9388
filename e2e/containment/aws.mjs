// What a session that Writ issued may do, judged by an evaluator of IAM policies that honours session policies, boundaries
// and the operators in use. The policies are the files that the tests of `crates/targets` prove to be the ones that Writ
// writes. Prints each question; exits non-zero if an answer is another one than expected.
import { readFileSync } from 'node:fs';
import { runSimulation } from '@cloud-copilot/iam-simulate';

const read = (name) =>
  JSON.parse(readFileSync(new URL(`../../crates/targets/testdata/aws/${name}.json`, import.meta.url)));
const [session, deny] = [read('session_policy'), read('deny_policy')];

const policy = (...statements) => ({ Version: '2012-10-17', Statement: statements });
const allow = (action, resource) => ({ Effect: 'Allow', Action: action, Resource: resource });
// A role much wider than the offer, so that what is refused is refused by the session policy.
const role = { name: 'role', policy: policy(allow('*', '*')) };
// What the administrator attaches beside it; a broker turned evil could add an Allow to it, so there is a boundary.
const denied = { name: 'denied', policy: deny };
const evil = { name: 'denied', policy: policy(allow('*', '*')) };
const boundary = [{ name: 'boundary', policy: policy(allow('s3:GetObject', 'arn:aws:s3:::reports/*')) }];

const taken = 'lease-5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a-1795305900';
const [before, after] = ['2026-11-22T00:04:59Z', '2026-11-22T00:05:01Z'];

async function decided({ action, resource, at, region, name, sessionPolicy, identity, boundaries }) {
  const answer = await runSimulation(
    {
      request: {
        principal: `arn:aws:sts::123456789012:assumed-role/reports-reader/${name}`,
        action,
        resource: { resource, accountId: '123456789012' },
        contextVariables: {
          'aws:CurrentTime': at,
          'aws:RequestedRegion': region,
          'aws:userid': `AROAEXAMPLE:${name}`,
        },
      },
      ...(sessionPolicy && { sessionPolicy }),
      identityPolicies: identity,
      ...(boundaries && { permissionBoundaryPolicies: boundaries }),
      serviceControlPolicies: [],
      resourceControlPolicies: [],
    },
    {},
  );
  if (answer.resultType === 'error') throw new Error(JSON.stringify(answer.errors));
  return answer.overallResult;
}

const usual = {
  action: 's3:GetObject',
  resource: 'arn:aws:s3:::reports/2026/q3/a.csv',
  at: before,
  region: 'eu-central-1',
  name: 'lease-other',
  sessionPolicy: session,
  identity: [role, denied],
};
const inside = 'Allowed';
const questions = [
  ['the offer, before the deadline', {}, inside],
  ['the same after the deadline', { at: after }, 'no'],
  ['another quarter', { resource: 'arn:aws:s3:::reports/2026/q4/a.csv' }, 'no'],
  ['another bucket', { resource: 'arn:aws:s3:::secrets/2026/q3/a.csv' }, 'no'],
  ['another action', { action: 's3:DeleteObject' }, 'no'],
  ['another service', { action: 'iam:CreateUser', resource: 'arn:aws:iam::123456789012:user/x' }, 'no'],
  ['another role', { action: 'sts:AssumeRole', resource: 'arn:aws:iam::123456789012:role/admin' }, 'no'],
  ['another region', { region: 'us-east-1' }, 'no'],
  ['a session that was taken back', { name: taken }, 'no'],
  ['a role that may less than the session policy', { identity: [{ name: 'role', policy: policy() }] }, 'no'],
  // The evaluator itself: without the thing under test the answer must be the other one.
  ['control: the role without a session policy', { action: 's3:DeleteObject', sessionPolicy: undefined }, inside],
  ['control: taken back, without the deny policy', { name: taken, identity: [role] }, inside],
  ['an Allow in the deny policy, within the boundary',
    { identity: [{ name: 'role', policy: policy() }, evil], boundaries: boundary, sessionPolicy: undefined }, inside],
  ['an Allow in the deny policy, beyond the boundary',
    { identity: [evil], boundaries: boundary, sessionPolicy: undefined, action: 's3:DeleteObject' }, 'no'],
];

let wrong = 0;
for (const [what, change, expected] of questions) {
  const got = await decided({ ...usual, ...change });
  const right = (got === inside) === (expected === inside);
  wrong += right ? 0 : 1;
  console.log(`${right ? 'ok   ' : 'WRONG'} ${what}: ${got}`);
}
console.log(`${questions.length - wrong} passed, ${wrong} failed`);
process.exit(wrong ? 1 : 0);
