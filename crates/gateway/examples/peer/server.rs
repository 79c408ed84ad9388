//! What the peer offers: a tool that says back what it was given, one that reports progress, and two that ask the
//! client something while they run, in the way of either era. Nothing of the gateway.

#![expect(deprecated, reason = "roots are deprecated in the newest revision, and still tested")]

use rmcp::model::*;
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};

/// The server.
#[derive(Clone)]
pub(crate) struct Peer;

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, ErrorData> {
    serde_json::from_value(value).map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

fn text(words: String) -> CallToolResult {
    CallToolResult::success(vec![ContentBlock::text(words)])
}

impl ServerHandler for Peer {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build()).with_server_info(Implementation::new("peer", "1"))
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tool = |name: &str| json!({ "name": name, "inputSchema": { "type": "object" } });
        let tools = typed(json!([tool("echo"), tool("progress"), tool("ask"), tool("ask-stateless")]))?;
        Ok(ListToolsResult { tools, ..Default::default() }.with_ttl_ms(0).with_cache_scope(CacheScope::Private))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        match request.name.as_ref() {
            "echo" => Ok(text(json!(request.arguments).to_string()).into()),
            "progress" => {
                if let Some(token) = context.meta.get_progress_token() {
                    for done in [1.0, 2.0, 3.0] {
                        let report = ProgressNotificationParam::new(token.clone(), done).with_total(3.0);
                        // A client that went away needs no report.
                        _ = context.peer.notify_progress(report).await;
                    }
                }
                Ok(text("done".to_owned()).into())
            }
            "ask" => {
                let roots = context.peer.list_roots().await;
                let roots = roots.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
                Ok(text(json!(roots.roots).to_string()).into())
            }
            "ask-stateless" => match request.input_responses {
                Some(answers) => Ok(text(json!([answers, request.request_state]).to_string()).into()),
                None => {
                    let asks = json!({ "resultType": "input_required", "requestState": "st\u{e9}te",
                        "inputRequests": { "where": { "method": "roots/list" } } });
                    Ok(typed::<InputRequiredResult>(asks)?.into())
                }
            },
            _ => Err(ErrorData::invalid_params("there is no such tool", None)),
        }
    }
}
