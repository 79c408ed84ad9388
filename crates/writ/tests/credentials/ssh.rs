//! A real sshd with Writ's helper beside it (`writ ssh-host`), and an unmodified ssh.

use crate::lab::{Lab, Place, err, install_script, out, secret};
use crate::served::text;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use testkit::RealSshd;

/// A host and the helper on it.
pub(crate) struct Host {
    sshd: RealSshd,
    helper: Mutex<Option<Child>>,
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut helper) = self.helper.lock().unwrap().take() {
            let _ = helper.kill();
            let _ = helper.wait();
        }
    }
}

impl Place for Host {
    const TARGET: &'static str = "web-hosts";
    const READ: (&'static str, Option<&'static str>) = ("shell", None);

    fn target_file(&self, _: &Path) -> String {
        let (port, user) = (self.sshd.port(), self.sshd.user());
        format!(
            r#"
kind = "ssh"
owner = "support"
description = "The web servers."
[connect]
ca_public = "ca.pub"
ca_key = {{ file = "secrets/ca" }}
krl_file = "published/web.krl"
host_group = "web"
hosts = ["127.0.0.1:{port}"]
known_hosts = "known_hosts"
principals = ["role-web", "role-shell"]
hosts_fetch_secs = 2
force_command_required = false
[connect.probe]
host = "127.0.0.1"
port = {port}
known_hosts = "known_hosts"
[offers.restart]
description = "Restarts one service."
user = "{user}"
principals = ["role-web"]
force_command = "echo restarted {{service}}"
source_address = ["127.0.0.0/8"]
[offers.restart.params.service]
type = "string"
description = "The service."
[offers.shell]
description = "A shell."
user = "{user}"
principals = ["role-shell"]
"#
        )
    }

    fn policy(&self) -> String {
        r#"@id("own-service")
        permit (principal is Intent::Work, action == WebHosts::Action::"restart", resource is Writ::Credential)
        when { context.input.service == principal.subject && context.secret == "caller" };
        @id("shell")
        permit (principal is Intent::Work, action == WebHosts::Action::"shell", resource is Writ::Credential)
        when { principal.subject == "eu" };"#
            .to_owned()
    }

    fn install(&self, dir: &Path) {
        secret(dir, "ca", &fs::read_to_string(self.sshd.path("ca")).unwrap());
        for name in ["ca.pub", "known_hosts"] {
            fs::copy(self.sshd.path(name), dir.join(name)).unwrap();
        }
        assert!(install_script(dir, "web-hosts").contains("RevokedKeys"));
        let mut helper = Command::new(env!("CARGO_BIN_EXE_writ"));
        helper.args(["ssh-host", "--every", "1", "--from"]).arg(dir.join("published/web.krl"));
        helper.arg("--krl-file").arg(self.sshd.path("host.krl")).arg("--auth-log").arg(self.sshd.path("sshd.log"));
        *self.helper.lock().unwrap() = Some(helper.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    /// Sessions: a certificate stands nowhere.
    fn standing(&self) -> String {
        self.sshd.sessions()
    }
}

pub(crate) fn lab() -> Option<Lab<Host>> {
    RealSshd::start().map(|sshd| Lab::start(Host { sshd, helper: Mutex::new(None) }))
}

const SSH: &str = "ssh -F \"$WRIT_SSH_CONFIG\" web-hosts";

#[test]
fn an_unmodified_ssh_does_the_one_command_of_its_task_and_nothing_else_and_then_it_is_over() {
    let Some(lab) = lab() else { return };
    let restart = |service, script: &str| lab.command_with("web", &[("restart", Some(service))], script).output().unwrap();
    // Whatever it asks for, the certificate's command runs.
    let output = restart("service=web", &format!("{SSH} 'cat /etc/passwd'"));
    assert_eq!(out(&output), "restarted web\n", "{}", err(&output));
    let output = restart("service=web", &format!("{SSH} -N -o ExitOnForwardFailure=yes -R 127.0.0.1:0:127.0.0.1:1"));
    assert!(!output.status.success() && err(&output).contains("forwarding failed"), "{}", err(&output));
    let other = format!("ssh-keygen -q -t ed25519 -N '' -f \"$HOME/key\"; {SSH} -o IdentityFile=none -i \"$HOME/key\" true");
    let home = tempfile::tempdir().unwrap();
    // Its certificate with another key is nobody's.
    let stolen = format!("cp \"$(dirname \"$WRIT_SSH_CONFIG\")\"/*/*-cert.pub \"$HOME/key-cert.pub\"; {other}");
    let bare = stolen.replace("-F \"$WRIT_SSH_CONFIG\" web-hosts", &bare(&lab));
    let output = lab.command_with("web", &[("restart", Some("service=web"))], &bare).env("HOME", home.path()).output().unwrap();
    assert!(!output.status.success() && err(&output).contains("Permission denied"), "{}", err(&output));
    lab.over();
    for (subject, offer) in [("web", ("restart", Some("service=db"))), ("web", ("shell", None))] {
        let output = lab.command_with(subject, &[offer], "true").output().unwrap();
        assert!(!output.status.success() && err(&output).contains(offer.0), "{}", err(&output));
    }
}

/// How ssh is called with nothing of Writ's.
fn bare(lab: &Lab<Host>) -> String {
    let sshd = &lab.place.sshd;
    format!(
        "-F /dev/null -o BatchMode=yes -o UserKnownHostsFile={} -p {} {}@127.0.0.1",
        sshd.path("known_hosts").display(),
        sshd.port(),
        sshd.user()
    )
}

#[test]
fn the_end_of_the_task_kills_the_live_session_and_the_next_login() {
    let Some(lab) = lab() else { return };
    let mut session = lab.live(&format!("{SSH} 'echo 1; exec sleep 600'; echo over; {SSH} true; echo out"));
    assert_eq!(session.first, "1");
    lab.end_task();
    assert_eq!([session.line(), session.line()], ["over", "out"], "the session was ended");
    let said = session.end();
    assert!(said.contains("Permission denied"), "{said}");
    lab.over();
}

#[test]
fn killed_while_a_session_is_live_or_right_after_the_signature_writ_leaves_nothing_behind() {
    let Some(mut lab) = lab() else { return };
    lab.dies_while_it_is_live(&format!("{SSH} 'echo 1; exec sleep 600'"));
    lab.dies_right_after_issue();
    // Nobody has the certificate, and no host takes it.
    let serial = lab.credential();
    let listed = || {
        let list = Command::new("ssh-keygen").args(["-Q", "-l", "-f"]).arg(lab.place.sshd.path("host.krl")).output().unwrap();
        out(&list).contains(text(&serial, "handle"))
    };
    lab.until("its serial is in the host's list", listed);
}
