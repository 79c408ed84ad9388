// The official TypeScript client, walking a plan of requests against one server and printing what
// came back as JSON. Usage: node plan.mjs PLAN.json (http URL | stdio COMMAND...) [--auto]
// It knows nothing of gateways: the same script runs against a server and against what stands before it.
import { readFileSync } from "node:fs";
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";

const auto = process.argv.includes("--auto");
const [planFile, kind, ...target] = process.argv.slice(2).filter((argument) => argument !== "--auto");
const plan = JSON.parse(readFileSync(planFile, "utf8"));
const log = [];

const client = new Client(
  { name: "plan-ts", version: "1" },
  {
    capabilities: { sampling: {}, elicitation: { form: {} }, roots: { listChanged: false } },
    ...(auto ? { versionNegotiation: { mode: "auto" } } : {}),
  },
);

client.setRequestHandler("sampling/createMessage", async (request) => {
  log.push({ asked: "sampling", messages: request.params.messages });
  return { role: "assistant", model: "plan", content: { type: "text", text: "a planned answer" } };
});
client.setRequestHandler("elicitation/create", async (request) => {
  log.push({ asked: "elicitation", message: request.params.message });
  const content = {};
  for (const [name, schema] of Object.entries(request.params.requestedSchema?.properties ?? {})) {
    if (!(request.params.requestedSchema.required ?? []).includes(name)) continue;
    content[name] = schema.type === "string" ? (schema.enum?.[0] ?? "planned") : schema.type === "boolean" ? true : 1;
  }
  return { action: "accept", content };
});
client.setRequestHandler("roots/list", async () => ({ roots: [{ uri: "file:///planned", name: "planned" }] }));
for (const method of ["notifications/resources/updated", "notifications/tools/list_changed"]) {
  client.setNotificationHandler(method, async (notification) => {
    log.push({ notified: method, params: notification.params ?? null });
  });
}

const pages = async (list, member) => {
  const all = [];
  let cursor;
  do {
    const page = await list(cursor ? { cursor } : undefined);
    all.push(...page[member]);
    cursor = page.nextCursor;
  } while (cursor);
  return all;
};

const act = async (step) => {
  switch (step.do) {
    case "tools": return pages((p) => client.listTools(p), "tools");
    case "resources": return pages((p) => client.listResources(p), "resources");
    case "templates": return pages((p) => client.listResourceTemplates(p), "resourceTemplates");
    case "prompts": return pages((p) => client.listPrompts(p), "prompts");
    case "call": {
      const options = step.progress ? { onprogress: (p) => log.push({ progress: p.progress, total: p.total ?? null }) } : undefined;
      return client.callTool({ name: step.name, arguments: step.arguments ?? {} }, options);
    }
    case "read": return client.readResource({ uri: step.uri });
    case "prompt": return client.getPrompt({ name: step.name, arguments: step.arguments ?? {} });
    case "complete": return client.complete({ ref: step.ref, argument: step.argument });
    default: throw new Error(`the plan has an unknown step: ${step.do}`);
  }
};

const transport = kind === "http"
  ? new StreamableHTTPClientTransport(new URL(target[0]))
  : new StdioClientTransport({ command: target[0], args: target.slice(1), stderr: "ignore" });
await client.connect(transport);
const steps = [];
for (const step of plan) {
  log.length = 0;
  let outcome;
  try {
    outcome = { result: await act(step) };
  } catch (error) {
    outcome = { error: { code: error.code ?? null, message: String(error.message) } };
  }
  steps.push({ step, log: [...log], ...outcome });
}
console.log(JSON.stringify({ revision: client.getNegotiatedProtocolVersion(), steps }));
await client.close();
process.exit(0);
