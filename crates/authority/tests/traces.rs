//! The spans of a decided request. Alone in its process: who listens to spans is said for all of its threads.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use authority::{CallStatus, Decision};
use domain::Operation;
use serde_json::{Map, json};
use std::sync::{Arc, Mutex};
use testkit::{World, task_request};
use tracing::span::Id;
use tracing::{Instrument, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// A span, and the one that it is within.
type Span = (&'static str, Option<&'static str>);

/// Notes each span that ends.
#[derive(Clone, Default)]
struct Ended(Arc<Mutex<Vec<Span>>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Ended {
    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = context.span(&id).unwrap();
        self.0.lock().unwrap().push((span.name(), span.parent().map(|parent| parent.name())));
    }
}

#[tokio::test]
async fn the_entry_of_an_outcome_has_a_span_within_the_request_however_late_it_is_recorded() {
    let ended = Ended::default();
    let _traced = tracing::subscriber::set_default(tracing_subscriber::registry().with(ended.clone()));
    let world = World::fixture().await;
    let order = json!({ "order_id": "1001", "max_amount_cents": 5000 });
    let issued = world.issue("bot", task_request("refund-order", order)).await.unwrap();
    let caller = world.present(&issued, "orders").unwrap();
    let (upstream, tool) = ("orders".parse().unwrap(), "get_order".parse().unwrap());
    let arguments = Map::from_iter([("order_id".to_owned(), json!("1001"))]);
    let operation = Operation::CallTool { upstream: &upstream, tool: &tool, arguments: &arguments };
    let released = async {
        match world.authority.decide(&caller, operation).await {
            Decision::Allow(permit) => permit.release().unwrap(),
            other => panic!("{other:?}"),
        }
    };
    let released = released.instrument(tracing::debug_span!("request")).await;
    ended.0.lock().unwrap().clear();
    released.record(CallStatus::Ok.into());
    assert_eq!(*ended.0.lock().unwrap(), [("log", Some("request")), ("request", None)]);
}
