//! When a changed folder counts, what becomes of one that could not be put in force, and approvals at the same time.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use domain::IntentName;
use gateway::GatewayConfig;
use gateway::http::SystemLookup;
use testkit::{Fault, World};

struct Rig {
    world: World,
    dir: tempfile::TempDir,
    folder: PolicyFolder,
}

impl Rig {
    async fn new() -> Self {
        let (world, dir) = (World::fixture().await, tempfile::tempdir().unwrap());
        for (path, text) in testkit::fixture::policy_files() {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let folders = Folders { policy: dir.path().to_owned(), targets: None };
        let read = compile(&folders, dir.path()).unwrap();
        let metrics = Metrics::new();
        let (lookup, authority) = (Arc::new(SystemLookup), world.authority.clone());
        let apis = HttpApis::new(&GatewayConfig::default(), authority.clone(), read.apis, lookup, metrics.clone()).unwrap();
        let seen = (read.target_files, read.stamp);
        let folder = PolicyFolder::new(folders, dir.path().to_owned(), seen, (authority, apis), metrics);
        Self { world, dir, folder }
    }

    /// A file of the folder, written as a careful program does it.
    fn put(&self, path: &str, text: &str) {
        let new = self.dir.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.dir.path().join(path)).unwrap();
    }

    /// An intent that is there only once the folder was read again.
    fn put_intent(&self, name: &str) {
        let text = format!("name = \"{name}\"\ndescription = \"x\"\nowner = \"team\"\nreach = [\"orders\"]\n");
        self.put(&format!("intents/{name}.toml"), &text);
    }

    fn has_intent(&self, name: &str) -> bool {
        self.world.authority.policy().intent(&name.parse::<IntentName>().unwrap()).is_some()
    }

    async fn look(&self, times: u32) {
        for _ in 0..times {
            self.folder.reload_if_changed().await;
        }
    }

    async fn approve(&self, name: &str) -> Result<(), PortError> {
        let definition = serde_json::json!({ "name": name, "inputSchema": { "type": "object" } });
        let accepted = vec![(name.parse().unwrap(), definition)];
        self.folder.approve(&orders(), accepted, &Actor::Operator("alice".to_owned())).await
    }

    fn approved(&self) -> Vec<String> {
        self.world.authority.policy().approved_tools(&orders()).map(|tool| tool.name.to_string()).collect()
    }
}

fn orders() -> UpstreamName {
    "orders".parse().unwrap()
}

#[tokio::test]
async fn a_folder_that_is_still_being_written_does_not_count() {
    let rig = Rig::new().await;
    for half in ["one", "two", "three"] {
        rig.put_intent(half);
        rig.look(1).await;
        assert!(!rig.has_intent(half), "somebody may be about to write the policy that forbids");
    }
    rig.look(1).await;
    assert!(rig.has_intent("one") && rig.has_intent("three"));
}

#[tokio::test]
async fn a_folder_that_could_not_be_logged_is_put_in_force_later() {
    let rig = Rig::new().await;
    rig.world.ledger.break_with(Some(Fault::Failed));
    rig.put_intent("late");
    rig.look(2).await;
    assert!(!rig.has_intent("late"));
    rig.world.ledger.break_with(None);
    rig.look(1).await;
    assert!(!rig.has_intent("late"), "not with each look: to compile it costs something");
    rig.look(LOOKS_UNTIL_RETRY).await;
    assert!(rig.has_intent("late"));
}

#[tokio::test]
async fn a_folder_that_does_not_validate_is_refused_once_and_a_mended_one_taken() {
    let rig = Rig::new().await;
    rig.put("more.cedar", "permit (");
    rig.look(2 + 2 * LOOKS_UNTIL_RETRY).await;
    assert_eq!(rig.folder.0.metrics.policy_refused.get(), 1);
    rig.put("more.cedar", "");
    rig.put_intent("mended");
    rig.look(2).await;
    assert!(rig.has_intent("mended"));
}

#[tokio::test]
async fn approvals_at_the_same_time_do_not_undo_each_other() {
    let rig = Rig::new().await;
    let (one, other) = tokio::join!(rig.approve("new_one"), rig.approve("new_other"));
    one.unwrap();
    other.unwrap();
    let approved = rig.approved();
    assert!(approved.contains(&"new_one".to_owned()) && approved.contains(&"new_other".to_owned()), "{approved:?}");
}

#[tokio::test]
async fn an_approval_does_not_bring_back_a_tool_that_was_taken_out_of_the_folder() {
    let rig = Rig::new().await;
    let rest: Vec<_> = testkit::fixture::definitions().into_iter().filter(|tool| tool["name"] != "delete_everything").collect();
    rig.put("tools/orders.lock.json", &policy::render_lock(&orders(), &rest));
    rig.approve("new_one").await.unwrap();
    let approved = rig.approved();
    assert!(approved.contains(&"new_one".to_owned()) && !approved.contains(&"delete_everything".to_owned()), "{approved:?}");
    // Nor is one given while the folder says something that cannot be put in force.
    rig.put("more.cedar", "permit (");
    let lock = fs::read(rig.dir.path().join("tools/orders.lock.json")).unwrap();
    assert!(matches!(rig.approve("another").await, Err(PortError::Invalid(_))));
    assert_eq!(fs::read(rig.dir.path().join("tools/orders.lock.json")).unwrap(), lock);
}

#[tokio::test]
async fn an_approval_goes_on_when_whoever_asked_goes_away() {
    let rig = Rig::new().await;
    let hold = rig.world.ledger.hold_next_commit();
    let asked = tokio::time::timeout(std::time::Duration::ZERO, rig.approve("new_one")).await;
    assert!(asked.is_err(), "nobody waits for it any more");
    hold.go();
    // The next one waits for its turn.
    rig.approve("new_other").await.unwrap();
    assert!(rig.approved().contains(&"new_one".to_owned()));
}
