//! SSH certificates against a real sshd and the system's `ssh`: issue, use within scope, refusal outside it, end of a live
//! session, crash, and what a broker turned evil cannot do.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods, reason = "tests")]

#[expect(dead_code, reason = "other test files need more of it")]
mod issuing;

use authority::target::{Acceptance, Gravity, Plan, Target, TargetError, Verifier};
use domain::Ending;
use issuing::{Request, Server, handle, open, run, target_config, until};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use targets::ssh::host::{Host, HostError, HostSettings};
use targets::ssh::{Krl, NotAKrl};
use testkit::RealSshd;

/// A host with sshd, its authority, and the target on it; everything in one folder.
struct Lab {
    sshd: RealSshd,
    target: Arc<dyn Target>,
}

fn target_file(port: u16, user: &str, mark: &std::path::Path) -> String {
    let mark = mark.display();
    format!(
        r#"
        [connect]
        ca_public = "ca.pub"
        ca_key = {{ file = "ca" }}
        krl_file = "served.krl"
        host_group = "web"
        hosts = ["127.0.0.1:{port}"]
        principals = ["role-web", "role-shell"]
        extensions = ["permit-pty"]
        hosts_fetch_secs = 1
        force_command_required = false
        authorized_keys = "collected"
        [connect.probe]
        host = "127.0.0.1"
        port = {port}
        known_hosts = "known_hosts"
        folder = "."
        [offers.restart]
        user = "{user}"
        principals = ["role-web"]
        force_command = "echo restarted {{service}}"
        source_address = ["127.0.0.0/8"]
        [offers.marks]
        user = "{user}"
        principals = ["role-web"]
        force_command = "touch {mark}"
        [offers.elsewhere]
        user = "{user}"
        principals = ["role-web"]
        force_command = "true"
        source_address = ["10.9.8.7"]
        [offers.shell]
        user = "{user}"
        principals = ["role-shell"]
        [offers.unmapped]
        user = "{user}"
        principals = ["role-web"]
        "#
    )
}

fn lab() -> Option<Lab> {
    let sshd = RealSshd::start()?;
    let config = target_config("ssh", &target_file(sshd.port(), sshd.user(), &sshd.path("ran")), &["service"]);
    let target = open(&config, &sshd.path(""));
    Some(Lab { sshd, target })
}

impl Lab {
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.sshd.path(name)
    }

    /// A caller's own key, and a request with it.
    fn request(&self, offer: &str, name: &str) -> Request {
        RealSshd::keygen(&self.path(name));
        let public = std::fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap();
        Request::new(offer, &[("service", "web-1")], Some(Verifier::SshPublicKey(public)))
    }

    async fn issue(&self, offer: &str, name: &str) -> Plan {
        let (plan, minted) = self.request(offer, name).issue(self.target.as_ref()).await.unwrap();
        assert!(minted.secrets.is_empty());
        std::fs::write(self.path(&format!("{name}-cert.pub")), &minted.fields["certificate"]).unwrap();
        plan
    }

    fn ssh(&self, name: &str) -> Command {
        let mut command = Command::new("ssh");
        command
            .args([
                "-F",
                "/dev/null",
                "-oBatchMode=yes",
                "-oIdentitiesOnly=yes",
                "-oIdentityAgent=none",
                "-p",
                &self.sshd.port().to_string(),
            ])
            .arg(format!("-oUserKnownHostsFile={}", self.path("known_hosts").display()))
            .arg("-i")
            .arg(self.path(name))
            .arg(format!("{}@127.0.0.1", self.sshd.user()));
        command
    }

    fn login(&self, name: &str, what: &str) -> Result<String, String> {
        run(self.ssh(name).arg(what))
    }

    fn host(&self) -> Host {
        Host::new(HostSettings {
            from: self.path("served.krl").display().to_string(),
            ca_pem: None,
            krl_file: self.path("host.krl"),
            auth_log: self.path("sshd.log"),
        })
        .unwrap()
    }

    /// A session that runs until somebody ends it, with a child that left it.
    async fn live(&self, name: &str) -> (Server, i32) {
        let file = self.path("child.pid");
        let script = format!(
            "setsid nohup sh -c 'echo $$ > {}.new; mv {}.new {}; exec sleep 600' >/dev/null 2>&1 & exec sleep 600",
            file.display(),
            file.display(),
            file.display()
        );
        let session = Server::start(self.ssh(name).arg(script).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
        until("the session runs", || file.exists()).await;
        (session, std::fs::read_to_string(file).unwrap().trim().parse().unwrap())
    }
}

fn runs(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn a_certificate_does_its_command_with_the_callers_own_key_and_nothing_else() {
    let Some(lab) = lab() else { return };
    let plan = lab.issue("restart", "mine").await;
    assert_eq!(plan.handle.parse::<u64>().unwrap().to_string(), plan.handle);
    // Whatever the holder asks for, the certificate's command runs.
    assert_eq!(lab.login("mine", "cat /etc/passwd").unwrap(), "restarted web-1\n");
    // Another key with the same certificate is nobody.
    RealSshd::keygen(&lab.path("thief"));
    std::fs::copy(lab.path("mine-cert.pub"), lab.path("thief-cert.pub")).unwrap();
    assert!(lab.login("thief", "true").unwrap_err().contains("Permission denied"));
    // From another address it is refused.
    lab.issue("elsewhere", "away").await;
    assert!(lab.login("away", "true").unwrap_err().contains("Permission denied"));
    // A role that the host does not map to this user is refused.
    std::fs::write(lab.path("principals"), "role-other\n").unwrap();
    assert!(lab.login("mine", "true").unwrap_err().contains("Permission denied"));
}

#[tokio::test]
async fn without_extensions_there_is_no_forwarding_and_no_terminal() {
    let Some(lab) = lab() else { return };
    lab.issue("shell", "mine").await;
    assert_eq!(lab.login("mine", "echo hello").unwrap(), "hello\n");
    let mut forward = lab.ssh("mine");
    forward.args(["-N", "-oExitOnForwardFailure=yes", "-R", &format!("127.0.0.1:{}:127.0.0.1:1", testkit::free_port())]);
    assert!(run(&mut forward).is_err());
    let refused = run(lab.ssh("mine").args(["-tt", "tty"])).unwrap_or_default();
    assert!(!refused.contains("/dev/pts"), "{refused}");
}

#[tokio::test]
async fn revoking_ends_the_live_session_and_what_left_it_and_refuses_the_next() {
    let Some(lab) = lab() else { return };
    let plan = lab.issue("shell", "mine").await;
    let other = lab.issue("shell", "other").await;
    let (mut session, escaped) = lab.live("mine").await;
    assert_eq!(lab.target.end(Ending::CloseAuth, &handle(&plan)).await.unwrap().facts["serial"], plan.handle);
    // The list is served, and the host does not have it yet: this is what a certificate's expiry or list alone does not end.
    assert!(session.0.try_wait().unwrap().is_none() && runs(escaped));
    let round = lab.host().round().await.unwrap();
    assert_eq!((round.revoked, round.sessions), (1, 1), "{round:?}");
    until("the session is over", || session.0.try_wait().unwrap().is_some()).await;
    until("what left it is over", || !runs(escaped)).await;
    assert!(lab.login("mine", "true").unwrap_err().contains("Permission denied"));
    // Nobody else is touched.
    assert!(lab.login("other", "true").is_ok());
    assert_ne!(plan.handle, other.handle);
    // Each step again is harmless, and the end is verified one fetch later.
    for step in [Ending::CloseAuth, Ending::EndSessions, Ending::Clean] {
        lab.target.end(step, &handle(&plan)).await.unwrap();
    }
    let first = lab.target.end(Ending::Verify, &handle(&plan)).await.unwrap();
    if let Some(at) = first.again_at {
        assert!(at <= issuing::now().plus_secs(1));
        until("the fetch interval is over", || issuing::now() >= at).await;
    }
    let verified = lab.target.end(Ending::Verify, &handle(&plan)).await.unwrap();
    assert_eq!((verified.facts["ends_by"].as_str(), verified.again_at), ("krl", None));
    assert_eq!(lab.host().round().await.unwrap().sessions, 0);
}

#[tokio::test]
async fn a_login_that_cleared_its_environment_is_ended_too() {
    let Some(lab) = lab() else { return };
    let plan = lab.issue("shell", "mine").await;
    let file = lab.path("hidden.pid");
    let script = format!("exec env -i /bin/sh -c 'echo $$ > {f}.new; mv {f}.new {f}; exec sleep 600'", f = file.display());
    let mut session = Server::start(lab.ssh("mine").arg(script).stdin(Stdio::null()).stdout(Stdio::null()));
    until("the session runs", || file.exists()).await;
    lab.target.end(Ending::CloseAuth, &handle(&plan)).await.unwrap();
    assert_eq!(lab.host().round().await.unwrap().sessions, 1);
    until("the session is over", || session.0.try_wait().unwrap().is_some()).await;
}

#[tokio::test]
async fn a_list_that_is_missing_broken_or_old_never_replaces_one_that_works() {
    let Some(lab) = lab() else { return };
    let plan = lab.issue("shell", "mine").await;
    lab.target.end(Ending::CloseAuth, &handle(&plan)).await.unwrap();
    let mut host = lab.host();
    host.round().await.unwrap();
    let good = std::fs::read(lab.path("host.krl")).unwrap();
    // What ssh-keygen reads is what we wrote.
    let listed = run(Command::new("ssh-keygen").arg("-Q").arg("-l").arg("-f").arg(lab.path("host.krl"))).unwrap();
    assert!(listed.contains(&plan.handle), "{listed}");
    let empty = Krl { number: 0, generated: 0, authority: Vec::new(), serials: [].into() }.encode();
    for (served, expected) in [
        (good[..good.len() - 1].to_vec(), "damaged"),
        (Vec::new(), "magic"),
        (b"<html>502 Bad Gateway</html>".to_vec(), "magic"),
        (empty, "older"),
    ] {
        std::fs::write(lab.path("served.krl"), served).unwrap();
        let error = host.round().await.unwrap_err();
        let seen = match error {
            HostError::NotAKrl(NotAKrl::Damaged) => "damaged",
            HostError::NotAKrl(NotAKrl::Magic) => "magic",
            HostError::Older { .. } => "older",
            other => panic!("{other}"),
        };
        assert_eq!(seen, expected);
        assert_eq!(std::fs::read(lab.path("host.krl")).unwrap(), good);
    }
    std::fs::remove_file(lab.path("served.krl")).unwrap();
    assert!(host.round().await.is_err());
    assert!(lab.login("mine", "true").unwrap_err().contains("Permission denied"));
    // This is why: without the file sshd lets nobody in at all.
    lab.issue("shell", "innocent").await;
    assert!(lab.login("innocent", "true").is_ok());
    std::fs::remove_file(lab.path("host.krl")).unwrap();
    assert!(lab.login("innocent", "true").unwrap_err().contains("Permission denied"));
}

#[tokio::test]
async fn the_probe_is_let_in_before_and_refused_after() {
    let Some(lab) = lab() else { return };
    let request = Request::new("restart", &[("service", "web-1")], None);
    let (plan, minted) = request.issue(lab.target.as_ref()).await.unwrap();
    assert_eq!(lab.target.try_use(&minted, Duration::from_secs(10)).await.unwrap(), Acceptance::Accepted);
    lab.target.end(Ending::CloseAuth, &handle(&plan)).await.unwrap();
    lab.host().round().await.unwrap();
    assert_eq!(lab.target.try_use(&minted, Duration::from_secs(10)).await.unwrap(), Acceptance::Refused);
    let findings = lab.target.examine().await.unwrap();
    assert!(findings.iter().all(|finding| finding.gravity != Gravity::Broken), "{findings:?}");
    assert!(findings.iter().any(|finding| finding.check == "offer.shell"), "{findings:?}");
}

#[tokio::test]
async fn the_probe_does_not_run_the_command_of_the_offer() {
    let Some(lab) = lab() else { return };
    let (_, minted) = Request::new("marks", &[], None).issue(lab.target.as_ref()).await.unwrap();
    assert_eq!(lab.target.try_use(&minted, Duration::from_secs(10)).await.unwrap(), Acceptance::Accepted);
    assert!(!lab.path("ran").exists());
    // The same certificate in the hands of a holder does.
    lab.issue("marks", "mine").await;
    lab.login("mine", "true").unwrap();
    assert!(lab.path("ran").exists());
}

#[tokio::test]
async fn a_signer_signs_only_what_was_shown_and_only_within_its_ceilings() {
    let Some(lab) = lab() else { return };
    let request = lab.request("restart", "mine");
    let good = request.plan(lab.target.as_ref()).unwrap();
    let shown = testkit::shown(&good).await;
    // A plan that nobody decided, with the proof for another one.
    let mut other = lab.request("restart", "two").plan(lab.target.as_ref()).unwrap();
    assert!(matches!(lab.target.issue(&other, &shown).await, Err(TargetError::NotShown(_))));
    // Decided or not: bytes beyond the ceilings are not signed. Same lengths, so that they are still a certificate.
    let swap = |bytes: &[u8], from: &[u8], to: &[u8]| {
        let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
        [&bytes[..at], to, &bytes[at + from.len()..]].concat()
    };
    let u64s = |secs: i64| u64::try_from(secs).unwrap().to_be_bytes();
    let end = good.expires_at.secs();
    for (from, to) in [
        (b"role-web".as_slice(), b"rootroot".as_slice()),
        (b"source-address", b"source-addresz"),
        (&u64s(end), &u64s(end + 86_400)),
        (&[0, 0, 0, 1, 0, 0, 0, 36], &[0, 0, 0, 2, 0, 0, 0, 36]),
    ] {
        other.canonical = swap(&good.canonical, from, to);
        let shown = testkit::shown(&other).await;
        let refused = lab.target.issue(&other, &shown).await;
        assert!(matches!(&refused, Err(TargetError::Refused(text)) if text.contains("ceilings")), "{refused:?}");
    }
    // A plan that was decided long ago is not a certificate of now.
    let mut late = lab.request("restart", "late");
    late.now = domain::Timestamp::from_secs(late.now.secs() - 200);
    assert!(matches!(late.issue(lab.target.as_ref()).await, Err(TargetError::Refused(_))));
}

#[tokio::test]
async fn what_cannot_be_said_in_a_certificate_is_refused_before_the_decision() {
    let Some(lab) = lab() else { return };
    let refused = |request: &Request| matches!(request.plan(lab.target.as_ref()), Err(TargetError::Unacceptable(_)));
    let mut request = lab.request("restart", "mine");
    for evil in ["web; id", "$(id)", "-rf", "../../etc", "web\nid", ""] {
        request.params = Request::new("restart", &[("service", evil)], None).params;
        assert!(refused(&request), "{evil}");
    }
    assert!(refused(&Request::new("restart", &[("service", "a")], Some(Verifier::Sha256("00".to_owned())))));
    assert!(refused(&Request::new("restart", &[("service", "a")], Some(Verifier::SshPublicKey("ssh-rsa AAAA".to_owned())))));
    assert!(refused(&Request::new("nothing", &[], None)));
}

#[tokio::test]
async fn standing_keys_are_found_with_what_is_wrong_with_them() {
    let Some(lab) = lab() else { return };
    std::fs::create_dir(lab.path("collected")).unwrap();
    std::fs::copy(lab.path("host.pub"), lab.path("collected/web-1")).unwrap();
    let found = lab.target.scan().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].flags, ["no_expiry", "superuser", "anywhere"]);
}
