//! A target that is away while its credentials must be taken back: logically they are dead at once, physically within a
//! minute of its return. `WRIT_E2E_OUTAGE_SECS` says how long it is away; the waits between two attempts stop growing
//! after half a minute, so that a longer outage shows nothing else (ten minutes were run by hand).

use crate::lab::{Place, at_target, err};
use crate::postgresql;
use crate::served::{text, writ};
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};

/// Long enough for the backoff of a grant (20 s) and the breaker's wait (10 s) to be as long as they get.
const OUTAGE_SECS: u64 = 45;
/// What `docs/targets/README.md` promises.
const CLEAN_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn a_database_that_was_away_is_clean_within_a_minute_of_its_return() {
    let Some(lab) = postgresql::lab() else { return };
    #[expect(clippy::disallowed_methods, reason = "how long a test may take is said by whoever runs it")]
    let outage = std::env::var("WRIT_E2E_OUTAGE_SECS").ok().and_then(|secs| secs.parse().ok()).unwrap_or(OUTAGE_SECS);
    let live: Vec<_> = (0..3).map(|_| lab.live("psql -Atc 'SELECT 1'; read _")).collect();
    assert!(live.iter().all(|session| session.first == "1"));
    assert_eq!(lab.place.standing().lines().count(), 3);
    lab.place.down();
    let tasks = lab.json(&["task", "list", "--limit", "3"]);
    for task in tasks.pointer("/items").and_then(Value::as_array).unwrap() {
        let ended = writ(lab.dir(), &["task", "end", text(task, "id")]);
        assert!(ended.status.success(), "{}", err(&ended));
    }
    // Dead for us at once, and nobody says that it is dead there.
    let held: Vec<String> = lab.tasks_credentials();
    let ours = || lab.credentials().into_iter().filter(|one| held.iter().any(|id| id == text(one, "id"))).collect::<Vec<_>>();
    for credential in ours() {
        assert_eq!(text(&credential, "revoked_because"), "task_ended", "{credential:#}");
        assert_eq!(at_target(&credential), "issued", "{credential:#}");
    }
    let status = lab.json(&["target", "show", "orders-db"]);
    assert!(status.to_string().contains("\"ending\":3"), "{status:#}");
    let refused = lab.run("true");
    assert!(!refused.status.success(), "nothing is issued by a target that is away");
    assert!(Command::new("sleep").arg(outage.to_string()).status().unwrap().success());
    assert!(ours().iter().all(|credential| at_target(credential) == "issued"), "it was away all the time");
    let tries: Vec<_> = ours().iter().map(|one| one.pointer("/at_target/failed_tries").and_then(Value::as_u64)).collect();
    lab.place.up();
    let back = Instant::now();
    lab.until("all are proved dead", || ours().iter().all(|credential| at_target(credential) == "verified_dead"));
    let took = back.elapsed();
    assert_eq!(lab.place.standing(), "");
    eprintln!("away {outage} s, failed attempts {tries:?}; clean {:.1} s after its return", took.as_secs_f64());
    assert!(took < CLEAN_WITHIN, "{took:?}");
}
