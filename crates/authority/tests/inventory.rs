//! The inventory: what the agent files declare and no longer declare, and changes that happen at the same time.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use authority::Actor;
use domain::{Agent, AgentState, EndReason};
use serde_json::{Value, json};
use testkit::{Fault, World, agent, task_request};

fn state(world: &World, name: &str) -> AgentState {
    world.authority.agent(&name.parse().unwrap()).unwrap().state
}

async fn declare(world: &World, agents: &[&str]) {
    let agents = agents.iter().map(|name| agent(name, &["mail"])).collect();
    world.authority.declare_agents(agents, &Actor::System).await.unwrap();
}

fn puts(world: &World, name: &str) -> Vec<Value> {
    let of = |event: &Value| event["type"] == "agent.put" && event["detail"]["agent"] == name;
    world.ledger.events().into_iter().filter(of).collect()
}

#[tokio::test]
async fn an_agent_whose_file_is_gone_is_suspended_and_its_tasks_end() {
    let world = World::fixture().await;
    declare(&world, &["clerk", "helper"]).await;
    let task = world.issue("clerk", task_request("mail", json!({}))).await.unwrap().task;
    declare(&world, &["helper"]).await;
    assert_eq!((state(&world, "clerk"), state(&world, "helper")), (AgentState::Suspended, AgentState::Active));
    assert_eq!(task.ended(), Some(EndReason::Agent));
    let last = puts(&world, "clerk").pop().unwrap();
    assert_eq!((&last["by"], &last["detail"]["state"]), (&json!("writ"), &json!("suspended")));
    assert_eq!(state(&world, "bot"), AgentState::Active, "nobody declared it in a file, so no file takes it away");
    let entries = puts(&world, "clerk").len();
    declare(&world, &["helper"]).await;
    assert_eq!(puts(&world, "clerk").len(), entries, "once is enough");
}

#[tokio::test]
async fn what_the_files_declared_is_known_after_a_start() {
    let world = World::fixture().await;
    declare(&world, &["clerk"]).await;
    let loaded = authority::ports::Archive::load(&*world.ledger).await.unwrap();
    let declared: Vec<_> = loaded.agents.iter().filter(|agent| agent.declared).map(|agent| agent.id.to_string()).collect();
    assert_eq!(declared, ["clerk"]);
}

#[tokio::test]
async fn an_operator_takes_over_an_agent_whose_file_is_gone() {
    let world = World::fixture().await;
    let operator = Actor::Operator("alice".into());
    let id = "clerk".parse().unwrap();
    declare(&world, &["clerk"]).await;
    declare(&world, &[]).await;
    world.authority.set_agent_state(&id, AgentState::Active, &operator).await.unwrap();
    declare(&world, &[]).await;
    assert_eq!(state(&world, "clerk"), AgentState::Active);
}

#[tokio::test]
async fn a_file_that_is_not_acceptable_keeps_nobody_alive_whose_file_is_gone() {
    let world = World::fixture().await;
    declare(&world, &["clerk"]).await;
    let nameless = Agent { purpose: String::new(), ..agent("helper", &["mail"]) };
    assert!(world.authority.declare_agents(vec![nameless], &Actor::System).await.is_err());
    assert_eq!(state(&world, "clerk"), AgentState::Suspended);
}

#[tokio::test]
async fn no_record_lifts_a_suspension() {
    let world = World::fixture().await;
    let operator = Actor::Operator("alice".into());
    declare(&world, &["clerk"]).await;
    world.authority.set_agent_state(&"clerk".parse().unwrap(), AgentState::Suspended, &operator).await.unwrap();
    declare(&world, &["clerk"]).await;
    assert_eq!(state(&world, "clerk"), AgentState::Suspended, "not a file");
    world.authority.set_agent_state(&"bot".parse().unwrap(), AgentState::Suspended, &operator).await.unwrap();
    world.authority.put_agents(vec![agent("bot", &["mail"])], &operator).await.unwrap();
    assert_eq!(state(&world, "bot"), AgentState::Suspended, "not a registration");
}

#[tokio::test]
async fn what_a_file_declares_is_changed_there_and_what_was_registered_may_be_declared() {
    let world = World::fixture().await;
    let operator = Actor::Operator("alice".into());
    declare(&world, &["clerk"]).await;
    // Narrowed here, it would be as wide as its file again after the next look at the files.
    let narrowed = vec![agent("other", &["mail"]), agent("clerk", &[])];
    let refused = world.authority.put_agents(narrowed, &operator).await.unwrap_err();
    assert!(refused.to_string().contains("declared in a file"), "{refused}");
    assert!(world.authority.agent(&"other".parse().unwrap()).is_none(), "all or none");
    assert_eq!(world.authority.agent(&"clerk".parse().unwrap()).unwrap().intents.len(), 1);
    // Its file is gone: it is the operator's from then on, until a file names it again.
    declare(&world, &[]).await;
    world.authority.put_agents(vec![agent("clerk", &[])], &operator).await.unwrap();
    declare(&world, &["clerk"]).await;
    assert!(world.authority.agent(&"clerk".parse().unwrap()).unwrap().declared);
}

#[tokio::test]
async fn a_suspension_is_not_undone_by_a_declaration_that_began_before_it() {
    let world = World::fixture().await;
    let operator = Actor::Operator("alice".into());
    let id = "bot".parse().unwrap();
    // The declaration is decided on first, and waits behind the suspension for its turn.
    let changed = Agent { purpose: "another".into(), ..agent("bot", &["mail"]) };
    let (suspended, declared) = tokio::join!(
        world.authority.set_agent_state(&id, AgentState::Suspended, &operator),
        world.authority.declare_agents(vec![changed], &Actor::System),
    );
    suspended.unwrap();
    declared.unwrap();
    assert_eq!(state(&world, "bot"), AgentState::Suspended);
}

#[tokio::test]
async fn what_cannot_be_logged_suspends_nobody_and_is_tried_again() {
    let world = World::fixture().await;
    declare(&world, &["clerk"]).await;
    world.ledger.break_with(Some(Fault::Failed));
    assert!(world.authority.declare_agents(Vec::new(), &Actor::System).await.is_err());
    world.ledger.break_with(None);
    assert_eq!(state(&world, "clerk"), AgentState::Active);
    declare(&world, &[]).await;
    assert_eq!(state(&world, "clerk"), AgentState::Suspended);
}
