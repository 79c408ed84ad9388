//! What is heard of an upstream without a decided request raises labels durably first, or is not heard.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use authority::ports::Archive;
use authority::{Actor, Caller, Decision, Heard, Unheard};
use domain::{EndReason, Labels, Operation, Sensitivity};
use serde_json::{Value, json};
use testkit::{Fault, World, agent, fixture, task_request};

/// The fixture's world, with this said about what `orders` says unasked.
async fn world(unasked: &str) -> World {
    let mut files = fixture::policy_files();
    for (path, text) in &mut files {
        if *path == "tools/orders.toml" {
            text.push_str(unasked);
        }
    }
    let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    World::new(&files, vec![agent("bot", &["mail"])], vec![fixture::orders("https://orders.test/mcp")]).await
}

async fn mailer(world: &World) -> Caller {
    let issued = world.issue("bot", task_request("mail", json!({}))).await.unwrap();
    world.present(&issued, "orders").unwrap()
}

async fn hear(world: &World, caller: &Caller, what: Heard) -> Result<(), Unheard> {
    world.authority.hear(caller, &"orders".parse().unwrap(), what).await
}

async fn mail(world: &World, caller: &Caller) -> Decision {
    let Value::Object(arguments) = json!({ "to": "someone@outside.example", "body": "hello" }) else { panic!() };
    let (upstream, tool) = ("orders".parse().unwrap(), "send_email".parse().unwrap());
    world.authority.decide(caller, Operation::CallTool { upstream: &upstream, tool: &tool, arguments: &arguments }).await
}

fn heard(world: &World) -> Vec<Value> {
    world.ledger.events().into_iter().filter(|event| event.get("type").is_some_and(|kind| kind == "heard")).collect()
}

async fn stored(world: &World) -> Labels {
    world.ledger.load().await.unwrap().tasks.first().unwrap().0.progress.labels
}

const WORST: Labels = Labels { read_untrusted: true, read_sensitivity: Sensitivity::Confidential };

#[tokio::test]
async fn what_is_heard_limits_where_data_may_flow_and_is_logged_once() {
    for what in [Heard::Listing, Heard::Notice, Heard::Question] {
        let world = world("").await;
        let caller = mailer(&world).await;
        assert!(matches!(mail(&world, &caller).await, Decision::Allow(_)), "nothing was heard yet");
        for _ in 0..3 {
            hear(&world, &caller, what).await.unwrap();
            assert_eq!(stored(&world).await, WORST, "durable before it resolves");
        }
        assert!(matches!(mail(&world, &caller).await, Decision::Ask(_)), "{what:?}");
        let events = heard(&world);
        let event = json!({
            "agent": "bot", "at": events[0]["at"], "intent": "mail", "policy": world.authority.policy().version().to_string(),
            "read_sensitivity": 2, "read_untrusted": true, "task": caller.task().to_string(), "type": "heard",
            "upstream": "orders", "what": what.as_str(),
        });
        assert_eq!(events, [event]);
    }
}

#[tokio::test]
async fn what_cannot_be_logged_is_not_heard_however_often_it_is_tried() {
    for fault in [Fault::Failed, Fault::FailedButKept] {
        let world = world("[unasked]\n").await;
        let caller = mailer(&world).await;
        world.ledger.break_with(Some(fault));
        for what in [Heard::Instructions, Heard::Listing, Heard::Listing] {
            assert_eq!(hear(&world, &caller, what).await, Err(Unheard::Unlogged), "labels in memory alone are not enough");
        }
        world.ledger.break_with(None);
        hear(&world, &caller, Heard::Listing).await.unwrap();
        assert_eq!(stored(&world).await, WORST);
    }
}

#[tokio::test]
async fn labels_that_a_call_raised_in_memory_do_not_stand_in_for_durable_ones() {
    let world = world("[unasked]\n").await;
    let caller = mailer(&world).await;
    world.ledger.break_with(Some(Fault::Failed));
    let Value::Object(arguments) = json!({ "ticket_id": "1" }) else { panic!() };
    let (upstream, tool) = ("orders".parse().unwrap(), "read_ticket".parse().unwrap());
    let call = Operation::CallTool { upstream: &upstream, tool: &tool, arguments: &arguments };
    assert!(matches!(world.authority.decide(&caller, call).await, Decision::Failed(_)));
    assert_eq!(caller.live().progress().labels, WORST);
    assert_eq!(hear(&world, &caller, Heard::Notice).await, Err(Unheard::Unlogged));
}

#[tokio::test]
async fn instructions_that_nobody_declared_are_withheld_and_raise_nothing() {
    let undeclared = world("").await;
    let caller = mailer(&undeclared).await;
    assert_eq!(hear(&undeclared, &caller, Heard::Instructions).await, Err(Unheard::Undeclared));
    assert_eq!((stored(&undeclared).await, heard(&undeclared).len()), (Labels::default(), 0));

    let declared = world("[unasked]\nuntrusted = true\nsensitivity = \"public\"\n").await;
    let caller = mailer(&declared).await;
    hear(&declared, &caller, Heard::Instructions).await.unwrap();
    assert_eq!(stored(&declared).await, Labels { read_untrusted: true, read_sensitivity: Sensitivity::Public });
}

#[tokio::test]
async fn what_brings_nothing_new_costs_no_entry() {
    let world = world("[unasked]\nuntrusted = false\nsensitivity = \"public\"\n").await;
    let caller = mailer(&world).await;
    world.ledger.break_with(Some(Fault::Failed));
    for what in [Heard::Instructions, Heard::Listing, Heard::Notice, Heard::Question] {
        hear(&world, &caller, what).await.unwrap();
    }
    assert_eq!((caller.live().progress().labels, heard(&world).len()), (Labels::default(), 0));
}

#[tokio::test]
async fn a_task_that_ended_hears_nothing() {
    let world = world("[unasked]\nuntrusted = false\nsensitivity = \"public\"\n").await;
    let caller = mailer(&world).await;
    world.authority.end_task(caller.task(), &Actor::System, EndReason::Revoked).await.unwrap();
    assert!(matches!(hear(&world, &caller, Heard::Listing).await, Err(Unheard::Over(_))));
}
