//! Somebody sets the wall clock while the authority runs, by an hour in either direction: nothing comes to life again, and
//! nothing stays broken when the clock is right again.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use authority::{Actor, Caller, Decision, Issued, Presented, Scheme, Unauthenticated};
use domain::{EndReason, Operation, Timestamp};
use secrecy::ExposeSecret;
use serde_json::json;
use testkit::{World, task_request};
use token::dpop::TargetUri;

const ENDPOINT: &str = "https://writ.test/mcp/orders";
const HOUR: i64 = 3_600;

/// A task that may be idle for as long as it lives.
async fn opened(world: &World) -> Issued {
    world.issue("bot", task_request("mail", json!({}))).await.unwrap()
}

/// A task that ends after two idle minutes.
async fn lively(world: &World) -> Issued {
    world.issue("bot", task_request("refund-order", json!({ "order_id": "1001", "max_amount_cents": 5000 }))).await.unwrap()
}

fn present(world: &World, issued: &Issued, proof: &str) -> Result<Caller, Unauthenticated> {
    world.authority.authenticate(&Presented {
        scheme: Scheme::Dpop,
        token: issued.token.expose_secret(),
        dpop: Some(proof),
        method: "POST",
        uri: &TargetUri::parse(ENDPOINT).unwrap(),
        certificate: None,
        audience: ENDPOINT,
    })
}

fn proof(world: &World, issued: &Issued, nonce: &str) -> String {
    let token = Some(issued.token.expose_secret());
    world.holder.proof_with("POST", ENDPOINT, world.now(), token, json!({ "nonce": nonce }))
}

fn set_back(world: &World, secs: i64) {
    world.clock.set_wall(Timestamp::from_secs(world.now() - secs));
}

#[tokio::test]
async fn an_expired_token_stays_expired_when_the_clock_is_set_back() {
    let world = World::fixture().await;
    let issued = opened(&world).await;
    world.clock.advance_secs(301);
    assert!(matches!(world.present(&issued, "orders"), Err(Unauthenticated::Expired)));
    set_back(&world, 290);
    let nonce = world.authority.dpop_nonce();
    assert_eq!(present(&world, &issued, &proof(&world, &issued, &nonce)).unwrap_err(), Unauthenticated::Expired);
    let inactive = world.authority.introspect(issued.token.expose_secret());
    assert_eq!(inactive, authority::Introspection::Inactive);
}

#[tokio::test]
async fn a_proof_is_not_fresh_again_when_the_clock_is_set_back() {
    let world = World::fixture().await;
    let issued = opened(&world).await;
    let (nonce, plain) =
        (world.authority.dpop_nonce(), world.holder.proof("POST", ENDPOINT, world.now(), Some(issued.token.expose_secret())));
    let with_nonce = proof(&world, &issued, &nonce);
    for used in [&plain, &with_nonce] {
        present(&world, &issued, used).unwrap();
    }
    world.clock.advance_secs(200);
    world.present(&issued, "orders").unwrap();
    set_back(&world, 200);
    for replayed in [&plain, &with_nonce] {
        assert!(matches!(present(&world, &issued, replayed), Err(Unauthenticated::UseNonce(_))), "a proof was used twice");
    }
    // A client that takes the nonce goes on at once; when the clock has caught up nobody needs one.
    let Err(Unauthenticated::UseNonce(nonce)) = world.present(&issued, "orders") else { panic!("no nonce was asked for") };
    present(&world, &issued, &proof(&world, &issued, &nonce)).unwrap();
    world.clock.advance_secs(201);
    opened(&world).await;
}

#[tokio::test]
async fn a_refused_token_is_refused_when_the_clock_went_forth_and_back() {
    let world = World::fixture().await;
    let issued = opened(&world).await;
    world.authority.revoke_token(issued.token.expose_secret(), &Actor::Holder).await.unwrap();
    set_back(&world, -HOUR);
    // The task goes with the hour; the token must not need that.
    let _ = world.authority.sweep().await;
    set_back(&world, HOUR);
    let nonce = world.authority.dpop_nonce();
    assert_eq!(present(&world, &issued, &proof(&world, &issued, &nonce)).unwrap_err(), Unauthenticated::Invalid);
}

#[tokio::test]
async fn a_token_that_was_refused_while_the_clock_was_ahead_stays_refused() {
    let world = World::fixture().await;
    let issued = opened(&world).await;
    set_back(&world, -HOUR);
    world.authority.revoke_token(issued.token.expose_secret(), &Actor::Holder).await.unwrap();
    set_back(&world, HOUR);
    let nonce = world.authority.dpop_nonce();
    assert_eq!(present(&world, &issued, &proof(&world, &issued, &nonce)).unwrap_err(), Unauthenticated::Invalid);
}

#[tokio::test]
async fn an_idle_task_ends_though_the_clock_was_set_back() {
    let world = World::fixture().await;
    let issued = lively(&world).await;
    set_back(&world, HOUR);
    world.clock.advance_secs(120);
    world.authority.sweep().await.unwrap();
    assert_eq!(issued.task.ended(), Some(EndReason::Liveness));
}

#[tokio::test]
async fn attestation_ages_though_the_clock_was_set_back() {
    let world = World::fixture().await;
    let issued = lively(&world).await;
    let caller = world.present(&issued, "orders").unwrap();
    world.clock.advance_secs(100);
    set_back(&world, HOUR);
    let (upstream, tool) = ("orders".parse().unwrap(), "refund".parse().unwrap());
    let arguments = json!({ "order_id": "1001", "amount_cents": 1 }).as_object().unwrap().clone();
    let operation = Operation::CallTool { upstream: &upstream, tool: &tool, arguments: &arguments };
    let Decision::Allow(permit) = world.authority.decide(&caller, operation).await else { panic!("denied") };
    drop(permit);
    let events = world.ledger.events();
    let decided = events.iter().rfind(|event| event["type"] == "decision").unwrap();
    assert_eq!(decided["facts"]["attested_secs_ago"], 100);
}
