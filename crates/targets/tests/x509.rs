//! Client certificates against a real TLS server that checks revocation lists (`openssl s_server`), with `openssl s_client`
//! as the caller: issue, use within scope, refusal outside it, revocation, and what a broker turned evil cannot do.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, reason = "tests")]

mod issuing;

use authority::target::{Acceptance, Gravity, Target, TargetError, Verifier};
use domain::Ending;
use issuing::{Request, Server, find, handle, has, open, random, run, target_config, until};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// An authority with an intermediate as `writ target install` makes it, and the target on it.
struct Lab {
    folder: TempDir,
    port: u16,
    target: Arc<dyn Target>,
}

fn openssl(folder: &Path, arguments: &str) -> Result<String, String> {
    run(Command::new(find("openssl").unwrap()).current_dir(folder).args(arguments.split(' ')))
}

fn target_file(port: u16) -> String {
    format!(
        r#"
        [connect]
        ca_certificate = "intermediate.pem"
        ca_key = {{ file = "intermediate.key" }}
        trust_domain = "example.org"
        crl_file = "served.crl"
        crl_url = "http://writ.example.org/targets/tls/crl"
        servers_reload_secs = 1
        [connect.probe]
        url = "https://localhost:{port}/"
        ca_file = "server.pem"
        [offers.call]
        "#
    )
}

fn lab() -> Option<Lab> {
    if !has(&["openssl"]) {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let new_key = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1";
    openssl(at, &format!("{new_key} -keyout root.key -out root.pem -subj /CN=root")).unwrap();
    let names = "-subj /CN=localhost -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE";
    openssl(at, &format!("{new_key} -keyout server.key -out server.pem {names}")).unwrap();
    // The script that operators run, with no other server than the file system.
    let port = testkit::free_port();
    let config = target_config("x509", &target_file(port), &[]);
    std::fs::write(at.join("intermediate.pem"), std::fs::read(at.join("root.pem")).unwrap()).unwrap();
    let surroundings: Arc<dyn targets::config::Surroundings> = Arc::new(issuing::Files(at.to_owned()));
    let script = targets::install_script(&config, &surroundings).unwrap();
    std::fs::write(at.join("install.sh"), script).unwrap();
    run(Command::new("sh").arg("install.sh").current_dir(at)).unwrap();
    let chain = [std::fs::read(at.join("root.pem")).unwrap(), std::fs::read(at.join("intermediate.pem")).unwrap()].concat();
    std::fs::write(at.join("chain.pem"), chain).unwrap();
    let target = open(&config, at);
    Some(Lab { folder, port, target })
}

impl Lab {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A request of a caller with its own key, which asks for names that it shall not get.
    fn request(&self, name: &str) -> Request {
        let arguments = format!(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -subj /CN=admin \
             -addext subjectAltName=URI:spiffe://example.org/admin -addext extendedKeyUsage=serverAuth"
        );
        let pem = openssl(self.folder.path(), &arguments.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap();
        Request::new("call", &[], Some(Verifier::CertificateRequest(pem)))
    }

    /// A server that read the list as it is now; reading it again is starting it again.
    async fn server(&self) -> Server {
        let arguments = format!(
            "s_server -accept 127.0.0.1:{} -cert server.pem -key server.key -CAfile chain.pem -CRL served.crl -crl_check \
             -Verify 3 -verify_return_error -www -quiet",
            self.port
        );
        let mut command = Command::new(find("openssl").unwrap());
        command.current_dir(self.folder.path()).args(arguments.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Server::start(&mut command);
        until("the server listens", || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()).await;
        server
    }

    /// What the server says to a holder of this key and certificate.
    fn call(&self, certificate: &str, key: &str) -> String {
        let arguments = format!(
            "s_client -connect 127.0.0.1:{} -cert {certificate} -key {key} -cert_chain intermediate.pem -CAfile server.pem -ign_eof -quiet",
            self.port
        );
        let mut command = Command::new(find("openssl").unwrap());
        command.current_dir(self.folder.path()).args(arguments.split_whitespace());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A server that refused us is gone already.
        let _closed = child.stdin.take().unwrap().write_all(b"GET / HTTP/1.0\r\n\r\n");
        let output = child.wait_with_output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}

#[tokio::test]
async fn a_certificate_names_the_task_and_nothing_that_the_request_asked_for() {
    let Some(lab) = lab() else { return };
    let (plan, minted) = lab.request("mine").issue(lab.target.as_ref()).await.unwrap();
    assert!(minted.secrets.is_empty());
    std::fs::write(lab.path("mine.pem"), &minted.fields["certificate"]).unwrap();
    let text = openssl(lab.folder.path(), "x509 -in mine.pem -noout -text").unwrap();
    assert!(text.contains("URI:spiffe://example.org/task/tsk_07070707070707070707070707070707"), "{text}");
    assert!(text.contains("TLS Web Client Authentication") && !text.contains("Server Authentication"), "{text}");
    assert!(!text.contains("admin") && text.contains("CA:FALSE") && text.contains("/targets/tls/crl"), "{text}");
    // openssl judges the whole chain, with its name constraints.
    let verified = openssl(lab.folder.path(), "verify -CAfile root.pem -untrusted intermediate.pem -purpose sslclient mine.pem");
    assert_eq!(verified.unwrap().trim(), "mine.pem: OK");
    let server = "verify -CAfile root.pem -untrusted intermediate.pem -purpose sslserver mine.pem";
    assert!(openssl(lab.folder.path(), server).is_err());
    assert_eq!(plan.handle.len(), 34);
}

#[tokio::test]
async fn revoked_it_is_refused_once_the_server_read_the_list() {
    let Some(lab) = lab() else { return };
    let (plan, minted) = lab.request("mine").issue(lab.target.as_ref()).await.unwrap();
    let (_, other) = lab.request("other").issue(lab.target.as_ref()).await.unwrap();
    std::fs::write(lab.path("mine.pem"), &minted.fields["certificate"]).unwrap();
    std::fs::write(lab.path("other.pem"), &other.fields["certificate"]).unwrap();
    let server = lab.server().await;
    let said = lab.call("mine.pem", "mine.key");
    assert!(said.contains("HTTP/1.0 200"), "{said}");
    // Somebody else's key does not go with it.
    assert!(!lab.call("mine.pem", "other.key").contains("HTTP/1.0 200"));
    for step in [Ending::CloseAuth, Ending::CloseAuth, Ending::EndSessions, Ending::Clean] {
        lab.target.end(step, &handle(&plan)).await.unwrap();
    }
    // A server asks its own copy of the list: until it reads the new one, nothing changes there.
    assert!(lab.call("mine.pem", "mine.key").contains("HTTP/1.0 200"));
    drop(server);
    let _server = lab.server().await;
    assert!(!lab.call("mine.pem", "mine.key").contains("HTTP/1.0 200"));
    assert!(lab.call("other.pem", "other.key").contains("HTTP/1.0 200"));
    let first = lab.target.end(Ending::Verify, &handle(&plan)).await.unwrap();
    if let Some(at) = first.again_at {
        until("the servers had their time", || issuing::now() >= at).await;
    }
    let verified = lab.target.end(Ending::Verify, &handle(&plan)).await.unwrap();
    assert_eq!((verified.facts["ends_by"].as_str(), verified.again_at), ("crl", None));
}

#[tokio::test]
async fn the_probe_is_let_in_before_and_refused_after() {
    let Some(lab) = lab() else { return };
    let (plan, minted) = Request::new("call", &[], None).issue(lab.target.as_ref()).await.unwrap();
    let server = lab.server().await;
    assert_eq!(lab.target.try_use(&minted, Duration::from_secs(10)).await.unwrap(), Acceptance::Accepted);
    lab.target.end(Ending::CloseAuth, &handle(&plan)).await.unwrap();
    drop(server);
    let server = lab.server().await;
    assert_eq!(lab.target.try_use(&minted, Duration::from_secs(10)).await.unwrap(), Acceptance::Refused);
    drop(server);
    // A server that is down is neither.
    assert!(lab.target.try_use(&minted, Duration::from_secs(2)).await.is_err());
    let findings = lab.target.examine().await.unwrap();
    assert!(findings.iter().all(|finding| finding.gravity == Gravity::Fine), "{findings:?}");
}

#[tokio::test]
async fn a_request_that_does_not_prove_its_key_is_refused() {
    let Some(lab) = lab() else { return };
    let request = lab.request("mine");
    let Some(Verifier::CertificateRequest(pem)) = &request.verifier else { unreachable!() };
    let refused = |pem: &str| {
        let request = Request::new("call", &[], Some(Verifier::CertificateRequest(pem.to_owned())));
        matches!(request.plan(lab.target.as_ref()), Err(TargetError::Unacceptable(_)))
    };
    assert!(!refused(pem));
    // One bit of the signature: the last letter but the padding, in the last line but one.
    let lines: Vec<&str> = pem.lines().collect();
    let mut body = lines[1..lines.len() - 1].concat().into_bytes();
    let last = body.iter().rposition(|letter| *letter != b'=').unwrap() - 4;
    body[last] = if body[last] == b'A' { b'B' } else { b'A' };
    let forged = format!("{}\n{}\n{}\n", lines[0], String::from_utf8(body).unwrap(), lines[lines.len() - 1]);
    assert!(refused(&forged));
    for bad in
        ["", "hello", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", &"A".repeat(20_000)]
    {
        assert!(refused(bad));
    }
}

#[tokio::test]
async fn a_signer_signs_only_what_was_shown_and_only_within_its_ceilings() {
    let Some(lab) = lab() else { return };
    let good = lab.request("mine").plan(lab.target.as_ref()).unwrap();
    let shown = testkit::shown(&good).await;
    let mut other = lab.request("two").plan(lab.target.as_ref()).unwrap();
    assert!(matches!(lab.target.issue(&other, &shown).await, Err(TargetError::NotShown(_))));
    let swap = |from: &[u8], to: &[u8]| {
        let at = good.canonical.windows(from.len()).position(|window| window == from).unwrap();
        [&good.canonical[..at], to, &good.canonical[at + from.len()..]].concat()
    };
    for (from, to) in [
        // Another trust domain, another kind of name, another issuer.
        (b"spiffe://example.org/task".as_slice(), b"spiffe://example.net/task".as_slice()),
        (b"example.org/task/tsk_", b"example.org/admin/ts_"),
        (b"Writ tasks", b"Writ tasky"),
        // clientAuth becomes serverAuth, then any use at all is lost.
        (&[0x2b, 6, 1, 5, 5, 7, 3, 2], &[0x2b, 6, 1, 5, 5, 7, 3, 1]),
        // digitalSignature becomes keyCertSign.
        (&[3, 2, 7, 0x80], &[3, 2, 2, 4]),
    ] {
        other.canonical = swap(from, to);
        let shown = testkit::shown(&other).await;
        let refused = lab.target.issue(&other, &shown).await;
        assert!(matches!(&refused, Err(TargetError::Refused(text)) if text.contains("ceilings")), "{from:?} {refused:?}");
    }
    let mut late = lab.request("late");
    late.now = domain::Timestamp::from_secs(late.now.secs() - 200);
    assert!(matches!(late.issue(lab.target.as_ref()).await, Err(TargetError::Refused(_))));
    // What is no serial of ours cannot be put into the list.
    other.handle = format!("02{}", "0".repeat(32));
    assert!(lab.target.end(Ending::CloseAuth, &handle(&other)).await.is_err());
    let _: [u8; 1] = random();
}
