"""The official Python client, walking a plan of requests against one server and printing what came
back as JSON. Usage: plan.py PLAN.json (http URL | stdio COMMAND...) [--legacy]
It knows nothing of gateways: the same script runs against a server and against what stands before it.
"""

import json
import sys
import warnings

import anyio
import mcp_types as types
from mcp import Client, MCPError, StdioServerParameters

warnings.filterwarnings("ignore")
LOG = []


def plain(value):
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)


async def sampled(context, params):
    LOG.append({"asked": "sampling", "messages": [plain(message) for message in params.messages]})
    content = types.TextContent(type="text", text="a planned answer")
    return types.CreateMessageResult(role="assistant", model="plan", content=content)


async def elicited(context, params):
    LOG.append({"asked": "elicitation", "message": params.message})
    schema = plain(params).get("requestedSchema", {})
    content = {}
    for name in schema.get("required", []):
        kind = schema["properties"][name]
        content[name] = kind.get("enum", ["planned"])[0] if kind["type"] == "string" else True if kind["type"] == "boolean" else 1
    return types.ElicitResult(action="accept", content=content)


async def roots(context):
    return types.ListRootsResult(roots=[types.Root(uri="file:///planned", name="planned")])


async def pages(listing, member):
    found, cursor = [], None
    while True:
        page = await listing(cursor=cursor)
        found += [plain(item) for item in getattr(page, member)]
        cursor = page.next_cursor
        if not cursor:
            return found


async def act(client, step):
    match step["do"]:
        case "tools":
            return await pages(client.list_tools, "tools")
        case "resources":
            return await pages(client.list_resources, "resources")
        case "templates":
            return await pages(client.list_resource_templates, "resource_templates")
        case "prompts":
            return await pages(client.list_prompts, "prompts")
        case "call":
            async def progressed(progress, total, message):
                LOG.append({"progress": progress, "total": total})

            heard = {"progress_callback": progressed} if step.get("progress") else {}
            return plain(await client.call_tool(step["name"], step.get("arguments", {}), **heard))
        case "read":
            return plain(await client.read_resource(step["uri"]))
        case "prompt":
            return plain(await client.get_prompt(step["name"], step.get("arguments", {})))
        case "complete":
            reference = types.PromptReference if step["ref"]["type"] == "ref/prompt" else types.ResourceTemplateReference
            return plain(await client.complete(reference.model_validate(step["ref"]), step["argument"]))
        case unknown:
            raise SystemExit(f"the plan has an unknown step: {unknown}")


async def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--legacy"]
    with open(arguments[0], encoding="utf-8") as file:
        plan = json.load(file)
    server = arguments[2] if arguments[1] == "http" else StdioServerParameters(command=arguments[2], args=arguments[3:])
    mode = "legacy" if "--legacy" in sys.argv else "auto"
    handlers = {"sampling_callback": sampled, "elicitation_callback": elicited, "list_roots_callback": roots}
    async with Client(server, mode=mode, read_timeout_seconds=30, **handlers) as client:
        steps = []
        for step in plan:
            LOG.clear()
            try:
                outcome = {"result": await act(client, step)}
            except MCPError as error:
                outcome = {"error": {"code": error.error.code, "message": error.error.message}}
            steps.append({"step": step, "log": list(LOG), **outcome})
        print(json.dumps({"revision": client.protocol_version, "steps": steps}))


anyio.run(main)
