//! Claims about credentials over REST that need no target: who may ask, what a request must be, and that nothing that a
//! caller mistook for a verifier comes back.
use crate::served::{ADMIN, Served};
use serde_json::json;

#[tokio::test]
async fn a_request_names_everything_that_is_wrong_with_it_and_repeats_no_verifier() {
    let served = Served::new().await;
    let (token, task) = served.opened().await;
    let uri = format!("/v1/tasks/{task}/credentials");
    let ask = async |body: serde_json::Value| {
        let proof = served.world.holder.proof("POST", &format!("{}{uri}", testkit::ISSUER), served.world.now(), Some(&token));
        let headers = [("content-type", "application/json"), ("authorization", &*format!("DPoP {token}")), ("dpop", &*proof)];
        served.ask("POST", &uri, &headers, body.to_string()).await
    };
    let wrong = json!({ "target": "No Target", "offer": "", "lifetime_secs": 0, "verifier": { "password": "hunter2" } });
    let answer = ask(wrong).await;
    assert_eq!(answer.status, 422);
    assert_eq!(answer.faults(), ["target", "offer", "lifetime_secs", "verifier"]);
    assert!(!String::from_utf8_lossy(&answer.body).contains("hunter2"));
    let two = json!({ "target": "db", "offer": "read", "verifier": { "sha256": "a", "scram_sha_256": "b" } });
    assert_eq!(ask(two).await.faults(), ["verifier"]);
    let unknown = ask(json!({ "target": "db", "offer": "read", "secret": "x" })).await;
    assert_eq!(unknown.refusal().0, 400);
    // A target that there is not is refused by the decision, like one that the task does not reach.
    let refused = ask(json!({ "target": "db", "offer": "read" })).await;
    assert_eq!(refused.status, 403, "{}", String::from_utf8_lossy(&refused.body));
    assert!(refused.json().get("decision").is_some_and(|decision| decision.is_string()), "the refusal is in the log");
    assert!(served.asked.heard.lock().unwrap().iter().any(|heard| heard == "credential  denied"), "counted without a name");
}

#[tokio::test]
async fn anothers_credential_and_none_look_the_same() {
    let served = Served::new().await;
    let (token, task) = served.opened().await;
    let id = format!("grt_{}", "0".repeat(32));
    for (method, other) in [("GET", false), ("DELETE", false), ("GET", true)] {
        let task = if other { "tsk_00000000000000000000000000000007".to_owned() } else { task.to_string() };
        let uri = format!("/v1/tasks/{task}/credentials/{id}");
        let proof = served.world.holder.proof(method, &format!("{}{uri}", testkit::ISSUER), served.world.now(), Some(&token));
        let headers = [("authorization", &*format!("DPoP {token}")), ("dpop", &*proof)];
        let answer = served.ask(method, &uri, &headers, "").await;
        assert_eq!(answer.refusal(), (404, "not_found".into()), "{method}");
    }
    let none = served.operate(ADMIN, "POST", &format!("/v1/credentials/{id}/revoke"), json!({})).await;
    assert_eq!(none.refusal(), (404, "not_found".into()));
    let page = served.operate(ADMIN, "GET", "/v1/credentials?standing=true", json!({})).await;
    assert_eq!(page.json(), json!({ "items": [], "next": null }));
    assert_eq!(served.operate(ADMIN, "GET", "/v1/credentials?state=gone", json!({})).await.status, 422);
    assert_eq!(served.operate(ADMIN, "POST", "/v1/targets/db/probe", json!({})).await.refusal(), (404, "not_found".into()));
}
