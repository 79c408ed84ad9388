// The official TypeScript client under the suite's client scenarios: it lists what there is and calls each tool as the
// scenario wants it. Usage: node drive.mjs URL; the suite says the rest in its environment.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const url = new URL(process.argv[2]);
const scenario = process.env.MCP_CONFORMANCE_SCENARIO ?? "";
const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT || "{}");
const stateless = (process.env.MCP_CONFORMANCE_PROTOCOL_VERSION ?? "") >= "2026";
const client = new Client(
  { name: "drive", version: "1" },
  {
    capabilities: { sampling: {}, elicitation: { form: { applyDefaults: true } }, roots: { listChanged: false } },
    ...(stateless ? { versionNegotiation: { mode: "auto" } } : {}),
  },
);
client.setRequestHandler("sampling/createMessage", async () => ({ role: "assistant", model: "drive", content: { type: "text", text: "driven" } }));
client.setRequestHandler("elicitation/create", async () => ({ action: "accept", content: {} }));
client.setRequestHandler("roots/list", async () => ({ roots: [] }));

const example = (schema) => {
  switch (Array.isArray(schema?.type) ? schema.type[0] : schema?.type) {
    case "number": case "integer": return 7;
    case "boolean": return true;
    case "array": return [];
    case "object": return {};
    default: return "driven";
  }
};
const quietly = async (act) => { try { return await act(); } catch (error) { console.error(String(error)); return undefined; } };

await client.connect(new StreamableHTTPClientTransport(url));
const { tools } = (await quietly(() => client.listTools())) ?? { tools: [] };
// What no policy can see Writ refuses: a fifth decimal, and `null` where a type is declared. Such arguments go rounded, and
// left out, in the direct run as well.
const visible = (args) => Object.fromEntries(Object.entries(args).filter(([, value]) => value !== null)
  .map(([name, value]) => [name, typeof value === "number" ? Math.round(value * 1e4) / 1e4 : value]));
const call = async (name, args) => {
  const result = await quietly(() => client.callTool({ name, arguments: visible(args) }));
  if (result?.isError) console.error(`${name}: ${JSON.stringify(result.content)}`);
};
if (scenario === "json-schema-2020-12-preservation") {
  const focal = tools.find((tool) => tool.inputSchema.$schema || tool.inputSchema.$defs) ?? tools[0];
  const echo = tools.find((tool) => tool !== focal);
  await call(echo.name, { schema: focal.inputSchema });
} else if (context.toolCalls) {
  for (const { name, arguments: args } of context.toolCalls) await call(name, args);
} else {
  for (const tool of tools) {
    const properties = Object.entries(tool.inputSchema.properties ?? {});
    await call(tool.name, Object.fromEntries(properties.map(([name, schema]) => [name, example(schema)])));
  }
}
const capabilities = client.getServerCapabilities() ?? {};
if (capabilities.resources) for (const { uri } of (await quietly(() => client.listResources()))?.resources ?? []) await quietly(() => client.readResource({ uri }));
if (capabilities.prompts) for (const { name } of (await quietly(() => client.listPrompts()))?.prompts ?? []) await quietly(() => client.getPrompt({ name }));
await client.close();
process.exit(0);
