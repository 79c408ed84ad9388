//! The helpdesk as an official client sees it, over a real socket, in both protocol eras; and its
//! records across a restart.

#![expect(clippy::unwrap_used, reason = "tests")]

use helpdesk::Helpdesk;
use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt};
use rmcp::transport::StreamableHttpClientTransport;

async fn serving(helpdesk: &Helpdesk) -> (String, tokio::sync::oneshot::Sender<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let helpdesk = helpdesk.clone();
    tokio::spawn(async move { helpdesk.serve(listener, async { _ = stopped.await }).await.unwrap() });
    (url, stop)
}

#[tokio::test]
async fn the_rust_client_uses_every_offer_in_both_eras() {
    let modes = [
        (ClientLifecycleMode::Initialize, "2025-11-25"),
        (ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }, "2026-07-28"),
    ];
    for (mode, revision) in modes {
        let helpdesk = Helpdesk::in_memory().unwrap();
        let (url, _stop) = serving(&helpdesk).await;
        let client = ().serve_with_lifecycle(StreamableHttpClientTransport::from_uri(url), mode).await.unwrap();
        assert_eq!(client.list_all_tools().await.unwrap().len(), 7);
        assert_eq!(client.list_all_resources().await.unwrap().len(), 1);
        assert_eq!(client.list_all_prompts().await.unwrap().len(), 1);
        let arguments = serde_json::json!({ "order_id": "A-1003" }).as_object().cloned().unwrap();
        let call = CallToolRequestParams::new("get_order").with_arguments(arguments);
        let result = client.call_tool(call).await.unwrap();
        assert_ne!(result.is_error, Some(true));
        assert_eq!(helpdesk.received_calls().first().map(|call| call.revision.clone()).as_deref(), Some(revision));
        client.cancel().await.unwrap();
    }
}

#[test]
fn records_survive_a_restart_and_are_seeded_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("helpdesk.db");
    drop(Helpdesk::open(&path).unwrap());
    let again = Helpdesk::open(&path).unwrap();
    assert_eq!(again.refunded_cents("A-1001").unwrap(), Some(0));
    assert_eq!(again.refunded_cents("A-9999").unwrap(), None);
}
