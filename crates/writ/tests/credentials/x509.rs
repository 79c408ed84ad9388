//! A real TLS server (nginx) that checks a revocation list, and unmodified curl and openssl.

use crate::lab::{Lab, Place, err, install_script, out, secret};
use crate::served::text;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;
use testkit::RealTls;

/// The server, and its operator, who lets it read each new list (a path unit of systemd does this).
pub(crate) struct Doors {
    port: u16,
    prepared: Mutex<Option<RealTls>>,
    tls: Arc<OnceLock<RealTls>>,
    over: Arc<AtomicBool>,
    operator: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Doors {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(operator) = self.operator.lock().unwrap().take() {
            let _ = operator.join();
        }
    }
}

impl Place for Doors {
    const TARGET: &'static str = "internal-tls";
    const READ: (&'static str, Option<&'static str>) = ("call", None);

    fn target_file(&self, dir: &Path) -> String {
        // What the script of the installer makes lies here afterwards; until then any certificate stands for it.
        let tls = self.prepared.lock().unwrap();
        fs::copy(tls.as_ref().unwrap().path("root.pem"), dir.join("intermediate.pem")).unwrap();
        fs::copy(tls.as_ref().unwrap().path("server.pem"), dir.join("server.pem")).unwrap();
        format!(
            r#"
kind = "x509"
owner = "support"
description = "Client certificates for internal services."
[connect]
ca_certificate = "intermediate.pem"
ca_key = {{ file = "secrets/intermediate.key" }}
trust_domain = "example.org"
crl_file = "published/internal-tls.crl"
servers_reload_secs = 2
[connect.probe]
url = "https://localhost:{}/"
ca_file = "server.pem"
[offers.call]
description = "Calls internal services."
lifetime_secs = 300
"#,
            self.port
        )
    }

    fn policy(&self) -> String {
        r#"@id("call")
        permit (principal is Intent::Work, action == InternalTls::Action::"call", resource is Writ::Credential)
        when { principal.subject == "eu" && context.secret == "caller" };"#
            .to_owned()
    }

    fn install(&self, dir: &Path) {
        secret(dir, "intermediate.key", "none yet");
        let mut tls = self.prepared.lock().unwrap().take().unwrap();
        fs::write(tls.path("install.sh"), install_script(dir, "internal-tls")).unwrap();
        let made = Command::new("sh").arg("install.sh").current_dir(tls.folder()).output().unwrap();
        assert!(made.status.success(), "{}", err(&made));
        fs::copy(tls.path("intermediate.pem"), dir.join("intermediate.pem")).unwrap();
        secret(dir, "intermediate.key", &fs::read_to_string(tls.path("intermediate.key")).unwrap());
        let list = dir.join("published/internal-tls.crl");
        tls.open_doors(&dir.join("intermediate.pem"), &list);
        assert!(self.tls.set(tls).is_ok());
        let (tls, over) = (Arc::clone(&self.tls), Arc::clone(&self.over));
        #[expect(clippy::disallowed_methods, reason = "a person looks now and then")]
        let operator = std::thread::spawn(move || {
            let mut read = Vec::new();
            while !over.load(Ordering::SeqCst) {
                let now = fs::read(&list).unwrap_or_default();
                if now != read {
                    tls.get().unwrap().reload(&list);
                    read = now;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        *self.operator.lock().unwrap() = Some(operator);
    }

    /// Open connections: a certificate stands nowhere.
    fn standing(&self) -> String {
        let local = format!("0100007F:{:04X}", self.port);
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let ours = table.lines().filter(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            fields.get(1) == Some(&local.as_str()) && fields.get(3) == Some(&"01")
        });
        ours.collect::<Vec<_>>().join("\n")
    }
}

pub(crate) fn lab() -> Option<Lab<Doors>> {
    let tls = RealTls::prepare()?;
    Some(Lab::start(Doors {
        port: tls.port(),
        prepared: Mutex::new(Some(tls)),
        tls: Arc::default(),
        over: Arc::default(),
        operator: Mutex::default(),
    }))
}

/// Shell functions: one request, and one connection that stays.
fn shell(lab: &Lab<Doors>, script: &str) -> String {
    let (roots, port) = (lab.dir().join("server.pem"), lab.place.port);
    format!(
        r#"
        CERT="$WRIT_CREDENTIAL_INTERNAL_TLS_CALL_CERT_FILE" KEY="$WRIT_CREDENTIAL_INTERNAL_TLS_CALL_KEY_FILE"
        call() {{ curl -s -o /dev/null -w '%{{http_code}}\n' --cacert {roots} "$@" https://localhost:{port}/; }}
        stay() {{
            pipe="$(mktemp -u)"; mkfifo "$pipe"; exec 3<>"$pipe"; printf 'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n' >&3
            openssl s_client -quiet -connect 127.0.0.1:{port} -servername localhost -CAfile {roots} -cert "$CERT" -key "$KEY" \
                -cert_chain "$CERT" <"$pipe" 2>/dev/null; rm "$pipe"
        }}
        {script}"#,
        roots = roots.display(),
    )
}

#[test]
fn an_unmodified_curl_is_let_in_as_its_task_and_nothing_else_and_then_it_is_over() {
    let Some(lab) = lab() else { return };
    let script = r#"
        call --cert "$CERT" --key "$KEY"
        call
        openssl ecparam -name prime256v1 -genkey -noout -out "$HOME/other.key"; call --cert "$CERT" --key "$HOME/other.key"; echo $?
        openssl x509 -in "$CERT" -noout -ext subjectAltName | grep -c "URI:spiffe://example.org/task/$WRIT_TASK\$"
        openssl x509 -in "$CERT" -noout -ext extendedKeyUsage | tail -1
    "#;
    let home = tempfile::tempdir().unwrap();
    let output = lab.command(&shell(&lab, script)).env("HOME", home.path()).output().unwrap();
    let said = out(&output);
    let lines: Vec<_> = said.lines().map(str::trim).collect();
    // A certificate with somebody else's key is refused by curl itself (58).
    assert_eq!(lines, ["200", "400", "000", "58", "1", "TLS Web Client Authentication"], "{}", err(&output));
    lab.over();
    let output = lab.command_with("us", &[("call", None)], "true").output().unwrap();
    assert!(!output.status.success() && err(&output).contains("call"), "{}", err(&output));
}

#[test]
fn the_end_of_the_task_ends_the_live_connection_and_the_next_one_as_soon_as_the_server_reads_the_list() {
    let Some(lab) = lab() else { return };
    // While one worker of the server goes, another that has not read the list yet may answer a moment longer.
    let script = r#"
        stay; echo over
        for _ in $(seq 500); do code="$(call --cert "$CERT" --key "$KEY")"; [ "$code" = 200 ] || break; done
        echo "$code"; echo out"#;
    let mut session = lab.live(&shell(&lab, script));
    assert_eq!(session.first, "HTTP/1.1 200 OK");
    lab.end_task();
    let mut said = Vec::new();
    while said.last().is_none_or(|line| line != "out") {
        said.push(session.line());
    }
    let said = said.join("\n");
    assert!(said.ends_with("over\n400\nout"), "{said}");
    session.end();
    lab.over();
}

#[test]
fn killed_while_a_connection_is_live_or_right_after_the_signature_writ_leaves_nothing_behind() {
    let Some(mut lab) = lab() else { return };
    let script = shell(&lab, "stay");
    lab.dies_while_it_is_live(&script);
    lab.dies_right_after_issue();
    // Nobody has the certificate, and no server takes it.
    let mut list = Command::new("openssl");
    let list = list.args(["crl", "-noout", "-text", "-in"]).arg(lab.dir().join("published/internal-tls.crl")).output().unwrap();
    let serial = text(&lab.credential(), "handle").to_uppercase();
    assert!(!serial.is_empty() && out(&list).contains(&serial), "{serial}: {} {}", out(&list), err(&list));
}
