//! Rotation of token keys: what verifiers can fetch, what signs, and what the log says, at every step.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use testkit::{Fault, World};

const LIVE: Duration = Duration::from_secs(300);

struct Rig {
    world: World,
    dir: tempfile::TempDir,
    keys: RotatingKeys,
}

impl Rig {
    async fn new() -> Self {
        let (world, dir) = (World::fixture().await, tempfile::tempdir().unwrap());
        let keys = open(dir.path(), world.authority.now(), LIVE).unwrap();
        world.authority.rotate_keys(keys, &Actor::System).await.unwrap();
        let keys = RotatingKeys::new(dir.path().to_owned(), world.authority.clone(), LIVE);
        Self { world, dir, keys }
    }

    async fn rotate(&self) -> Result<NextKey, PortError> {
        self.keys.rotate("alice").await
    }

    async fn after(&self, secs: u64) {
        self.world.clock.advance_secs(secs);
        self.keys.advance().await.unwrap();
    }

    fn published(&self) -> Vec<String> {
        let jwks = self.world.authority.jwks();
        let keys = jwks.get("keys").and_then(Value::as_array).unwrap();
        keys.iter().map(|key| key.get("kid").and_then(Value::as_str).unwrap().to_owned()).collect()
    }

    async fn token(&self) -> authority::Issued {
        let request = testkit::task_request("mail", json!({}));
        self.world.issue("mailer", request).await.unwrap()
    }

    /// The key id that a fresh token is signed with.
    async fn signs(&self) -> String {
        use base64::Engine;
        let issued = self.token().await;
        let header = issued.token.expose_secret().split('.').next().unwrap().to_owned();
        let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).unwrap();
        let header: Value = serde_json::from_slice(&header).unwrap();
        header.get("kid").and_then(Value::as_str).unwrap().to_owned()
    }

    /// What the log says of rotation: who, what signs, how many more are published.
    fn logged(&self) -> Vec<(String, String, usize)> {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap().to_owned();
        let events = self.world.ledger.events();
        let rotations = events.iter().filter(|event| event.get("type").and_then(Value::as_str) == Some("keys.rotate"));
        let read = |event: &Value| {
            let published = event.pointer("/detail/published").and_then(Value::as_array).unwrap().len();
            (text(event.get("by")), text(event.pointer("/detail/active")), published)
        };
        rotations.map(read).collect()
    }

    /// What a server that starts now would use.
    fn restarted(&self) -> (String, usize) {
        let keys = open(self.dir.path(), self.world.authority.now(), LIVE).unwrap();
        (keys.active.key_id().to_owned(), keys.published.len())
    }
}

#[tokio::test]
async fn a_new_key_is_published_before_it_signs_and_the_old_one_until_its_last_token_expired() {
    let rig = Rig::new().await;
    let old = rig.signs().await;
    let next = rig.rotate().await.unwrap();
    assert_eq!((rig.signs().await, rig.published().len()), (old.clone(), 2), "published, and signs nothing yet");
    assert!(rig.published().contains(&next.key_id));
    assert_eq!(rig.restarted(), (old.clone(), 1));

    rig.after(PUBLISHED_FIRST_SECS - 1).await;
    assert_eq!(rig.signs().await, old, "verifiers may still keep a set without the new key");
    let last_of_old = rig.token().await;
    rig.after(1).await;
    assert_eq!(rig.signs().await, next.key_id);
    assert_eq!(rig.restarted(), (next.key_id.clone(), 1));
    assert!(rig.world.present(&last_of_old, "orders").is_ok(), "a token of the old key is as good as before");

    rig.after(LIVE.as_secs() + LEEWAY_SECS).await;
    assert!(rig.published().contains(&old));
    rig.after(1).await;
    assert_eq!(rig.published(), std::slice::from_ref(&next.key_id));
    assert_eq!(rig.restarted(), (next.key_id.clone(), 0));
    let steps: Vec<_> = rig.logged().into_iter().skip(1).collect();
    let (system, next) = ("writ".to_owned(), next.key_id);
    assert_eq!(steps, [("operator:alice".into(), old, 1), (system.clone(), next.clone(), 1), (system, next, 0)]);
}

#[tokio::test]
async fn a_rotation_that_cannot_be_logged_leaves_nothing_behind() {
    let rig = Rig::new().await;
    let (old, before) = (rig.signs().await, key_files(rig.dir.path()).unwrap());
    for fault in [Fault::Failed, Fault::FailedButKept] {
        rig.world.ledger.break_with(Some(fault));
        assert!(rig.rotate().await.is_err());
        rig.world.ledger.break_with(None);
        assert_eq!(key_files(rig.dir.path()).unwrap(), before);
        assert_eq!(fs::read_dir(rig.dir.path()).unwrap().count(), 1, "no file of it remains");
        assert_eq!(rig.published(), std::slice::from_ref(&old));
    }
    rig.after(PUBLISHED_FIRST_SECS).await;
    assert_eq!(rig.signs().await, old);
}

#[tokio::test]
async fn a_rotation_that_a_crash_cut_off_is_found_logged_and_taken_to_its_end() {
    for logged in [false, true] {
        let rig = Rig::new().await;
        let old = rig.signs().await;
        // What a kill leaves: a key that was made, without and with its entry.
        let left = create(rig.dir.path(), rig.world.authority.now()).unwrap();
        let key_id = left.signer().unwrap().key_id().to_owned();
        if logged {
            let ring = Ring::read(rig.dir.path(), rig.world.authority.now(), LIVE).unwrap().unwrap();
            rig.keys.publish(&ring, &left, &Actor::Operator("alice".into())).await.unwrap();
        }
        rig.world.clock.advance_secs(PUBLISHED_FIRST_SECS);
        assert_eq!(rig.restarted(), (old.clone(), 0), "a start alone counts no key that may not be in the log");
        let restarted = RotatingKeys::new(rig.dir.path().to_owned(), rig.world.authority.clone(), LIVE);
        // It cannot be logged yet: it is not published, and not forgotten.
        rig.world.ledger.break_with(Some(Fault::Failed));
        assert!(restarted.advance().await.is_err());
        rig.world.ledger.break_with(None);
        assert_eq!(rig.restarted(), (old.clone(), 0));
        restarted.advance().await.unwrap();
        assert!(rig.published().contains(&key_id));
        assert_eq!(rig.logged().last().unwrap(), &("writ".to_owned(), old.clone(), 1));
        restarted.advance().await.unwrap();
        assert_eq!(rig.signs().await, old, "verifiers have just begun to see it");
        rig.world.clock.advance_secs(PUBLISHED_FIRST_SECS);
        restarted.advance().await.unwrap();
        assert_eq!(rig.signs().await, key_id);
        assert!(left_over(rig.dir.path()).unwrap().is_empty());
    }
}

#[tokio::test]
async fn the_first_key_that_a_crash_cut_off_is_the_first_key() {
    let dir = tempfile::tempdir().unwrap();
    let now = Timestamp::from_secs(1_800_000_000);
    let left = create(dir.path(), now).unwrap().signer().unwrap().key_id().to_owned();
    assert_eq!(open(dir.path(), now.plus_secs(5), LIVE).unwrap().active.key_id(), left);
    assert!(left_over(dir.path()).unwrap().is_empty());
}

#[tokio::test]
async fn a_key_does_not_begin_to_sign_while_that_cannot_be_logged() {
    let rig = Rig::new().await;
    let (old, next) = (rig.signs().await, rig.rotate().await.unwrap().key_id);
    rig.world.clock.advance_secs(PUBLISHED_FIRST_SECS);
    rig.world.ledger.break_with(Some(Fault::Failed));
    assert!(rig.keys.advance().await.is_err());
    rig.world.ledger.break_with(None);
    assert_eq!((rig.signs().await, rig.restarted()), (old.clone(), (old, 1)), "nor after a start");
    rig.keys.advance().await.unwrap();
    assert_eq!(rig.signs().await, next);
}

#[tokio::test]
async fn one_key_waits_at_a_time_however_many_ask_at_once() {
    let rig = Rig::new().await;
    let (one, other) = tokio::join!(rig.rotate(), rig.rotate());
    assert!(matches!((&one, &other), (Ok(_), Err(PortError::Conflict(_)))), "{one:?} {other:?}");
    assert_eq!(rig.published().len(), 2);
    rig.after(PUBLISHED_FIRST_SECS).await;
    assert!(rig.rotate().await.is_ok(), "once the first one signs, another may follow");
}

#[tokio::test]
async fn a_clock_that_goes_back_takes_no_key_away() {
    let rig = Rig::new().await;
    rig.rotate().await.unwrap();
    rig.after(PUBLISHED_FIRST_SECS).await;
    let (signs, published) = (rig.signs().await, rig.published());
    rig.world.clock.set_wall(Timestamp::from_millis(rig.world.authority.now().millis() - 3_600_000));
    rig.keys.advance().await.unwrap();
    assert_eq!((rig.published(), rig.restarted()), (published, (signs, 1)));
}

#[tokio::test]
async fn the_first_key_signs_at_once_and_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let now = Timestamp::from_secs(1_800_000_000);
    let first = open(dir.path(), now, LIVE).unwrap();
    let again = open(dir.path(), now.plus_secs(5), LIVE).unwrap();
    assert_eq!(first.active.key_id(), again.active.key_id());
    assert!(again.published.is_empty());
}
