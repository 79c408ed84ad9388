//! What each client is given, read back by the client itself where it is small enough to be everywhere.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

const SECRET: &str = "s3cret-0123456789";

fn held(target: &str, kind: &str, fields: &[(&str, &str)], secrets: &[&str]) -> Held {
    Held {
        id: "grt_1".to_owned(),
        target: target.to_owned(),
        offer: "read".to_owned(),
        kind: kind.to_owned(),
        expires_at: "2026-01-01T00:00:00Z".to_owned(),
        fields: fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        secrets: secrets.iter().map(|name| ((*name).to_owned(), SecretString::from(SECRET))).collect(),
    }
}

fn delivered(credentials: &[Held]) -> (Folder, Environment) {
    let folder = Folder::create().unwrap();
    let environment = deliver(credentials, &folder).unwrap();
    (folder, environment)
}

fn value(environment: &Environment, name: &str) -> String {
    environment.set.get(name).unwrap_or_else(|| unreachable!("no {name}")).to_str().unwrap().to_owned()
}

fn file(environment: &Environment, name: &str) -> String {
    fs::read_to_string(value(environment, name)).unwrap()
}

const DATABASE: [(&str, &str); 5] =
    [("host", "::1"), ("port", "5432"), ("user", "jit_1"), ("database", "orders"), ("sslmode", "disable")];

/// Kind, fields, names of secrets.
type Case = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);

#[test]
fn every_file_is_for_its_owner_alone_and_no_variable_holds_a_secret_that_a_file_can() {
    let kinds: [Case; 8] = [
        ("postgresql", &DATABASE, &["password"]),
        ("mysql", &DATABASE, &["password"]),
        ("redis", &DATABASE, &["password"]),
        ("ssh", &[("user", "deploy"), ("certificate", "ssh-ed25519-cert-v01@openssh.com AAAA")], &["private_key"]),
        ("x509", &[("certificate", "-----BEGIN CERTIFICATE-----\n")], &["private_key"]),
        ("aws", &[("access_key_id", "ASIA1"), ("region", "eu-central-1")], &["secret_access_key", "session_token"]),
        ("github", &[("api", "api.github.com")], &["token"]),
        ("kubernetes", &[("server", "k8s.example")], &["token"]),
    ];
    for (kind, fields, secrets) in kinds {
        let (folder, environment) = delivered(&[held("t", kind, fields, secrets)]);
        let mut folders = vec![folder.path().to_owned()];
        let mut with_secret = 0;
        while let Some(dir) = folders.pop() {
            for entry in fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()) {
                let mode = fs::metadata(&entry).unwrap().permissions().mode() & 0o077;
                assert_eq!(mode, 0, "{}", entry.display());
                if entry.is_dir() {
                    folders.push(entry);
                } else {
                    with_secret += usize::from(fs::read_to_string(&entry).unwrap().contains(SECRET));
                }
            }
        }
        assert!(with_secret >= 2, "{kind}: its own form and the general one");
        // These two clients know no file.
        let exempt = ["REDISCLI_AUTH", "GH_TOKEN"];
        for (name, value) in environment.set.iter().filter(|(name, _)| !exempt.contains(&name.as_str())) {
            assert!(!value.to_str().unwrap().contains(SECRET), "{kind}: {name}");
        }
    }
}

#[test]
fn libpq_finds_host_user_and_password_and_sends_them_nowhere_else() {
    let (_folder, environment) = delivered(&[held("orders-db", "postgresql", &DATABASE, &["password"])]);
    assert_eq!(
        ["PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGSSLMODE"].map(|name| value(&environment, name)),
        ["::1", "5432", "jit_1", "orders", "disable"]
    );
    assert_eq!(file(&environment, "PGPASSFILE"), format!("\\:\\:1:5432:*:jit_1:{SECRET}\n"));
    assert!(environment.unset.contains("PGPASSWORD"), "it would win over the file");
    assert!(file(&environment, "PGSERVICEFILE").starts_with("[orders-db]\nhost=::1\n"));
    let two = [held("a", "postgresql", &DATABASE, &["password"]), held("b", "postgresql", &DATABASE, &["password"])];
    let (_folder, environment) = delivered(&two);
    assert!(!environment.set.contains_key("PGHOST"), "two databases: by service name only");
    let services = file(&environment, "PGSERVICEFILE");
    assert!(services.contains("[a]\n") && services.contains("[b]\n"), "{services}");
}

#[test]
fn the_server_of_a_database_is_checked_as_far_as_the_target_file_says() {
    for (tls, mode) in [("verify", "VERIFY_IDENTITY"), ("verify-ca", "VERIFY_CA"), ("off", "DISABLED")] {
        let fields = [("host", "db.example"), ("port", "3306"), ("user", "jit_1"), ("tls", tls), ("ca_pem", "PEM")];
        let (_folder, environment) = delivered(&[held("db", "mysql", &fields, &["password"])]);
        let options = file(&environment, "WRIT_CREDENTIAL_DB_READ_DEFAULTS_FILE");
        assert!(options.contains(&format!("ssl-mode={mode}\n")), "{tls}: {options}");
    }
    let fields = [("host", "cache.example"), ("port", "6380"), ("user", "jit_1"), ("tls", "on")];
    let (_folder, environment) = delivered(&[held("cache", "redis", &fields, &["password"])]);
    assert!(file(&environment, "WRIT_CREDENTIAL_CACHE_READ_URI_FILE").starts_with("rediss://"));
}

#[test]
fn git_gets_the_token_for_its_host_and_for_no_other() {
    let (folder, environment) = delivered(&[held("forge", "github", &[("api", "api.github.com")], &["token"])]);
    let ask = |host: &str| {
        let mut git = Command::new("git");
        git.args(["credential", "fill"]).envs(&environment.set).env("HOME", folder.path());
        let mut git = git.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        use std::io::Write;
        write!(git.stdin.take().unwrap(), "protocol=https\nhost={host}\n\n").unwrap();
        String::from_utf8(git.wait_with_output().unwrap().stdout).unwrap()
    };
    assert!(ask("github.com").contains(&format!("password={SECRET}")));
    assert!(!ask("github.com.evil.example").contains(SECRET));
}

#[test]
fn ssh_uses_this_key_for_these_hosts_and_no_agent_of_the_user() {
    let fields = [("user", "deploy"), ("hosts", "web-1.example"), ("certificate", "ssh-ed25519-cert-v01@openssh.com AAAA")];
    let (_folder, environment) = delivered(&[held("web", "ssh", &fields, &["private_key"])]);
    let config = file(&environment, "WRIT_SSH_CONFIG");
    let asked = |host: &str| {
        let ssh = Command::new("ssh").args(["-G", "-F"]).arg(value(&environment, "WRIT_SSH_CONFIG")).arg(host).output();
        ssh.ok().map(|output| String::from_utf8(output.stdout).unwrap())
    };
    for part in ["Host web-1.example web\n", "User \"deploy\"", "IdentitiesOnly yes", "IdentityAgent none"] {
        assert!(config.contains(part), "{part}: {config}");
    }
    // Read back by the real client, where there is one.
    let (Some(by_name), Some(other)) = (asked("web"), asked("elsewhere.example")) else { return };
    for part in ["hostname web-1.example", "user deploy", "identityagent none", "certificatefile "] {
        assert!(by_name.contains(part), "{part}: {by_name}");
    }
    assert!(!other.contains("certificatefile "), "{other}");
}

#[test]
fn ssh_finds_each_host_at_its_port_and_x509_sends_its_whole_chain() {
    let fields = [("user", "deploy"), ("hosts", "web-1.example:2201, [::1]:2202, web-3.example"), ("certificate", "AAAA")];
    let (_folder, environment) = delivered(&[held("web", "ssh", &fields, &["private_key"])]);
    for (host, port) in [("web-1.example", "2201"), ("::1", "2202"), ("web-3.example", "22")] {
        let ssh = Command::new("ssh").args(["-G", "-F"]).arg(value(&environment, "WRIT_SSH_CONFIG")).arg(host).output();
        let Ok(asked) = ssh.map(|output| String::from_utf8(output.stdout).unwrap()) else { return };
        for part in [format!("\nhostname {host}\n"), format!("\nport {port}\n"), "certificatefile ".to_owned()] {
            assert!(asked.contains(&part), "{part}: {asked}");
        }
    }
    let fields = [("user", "deploy"), ("hosts", "127.0.0.1:2201"), ("certificate", "AAAA")];
    let (_folder, environment) = delivered(&[held("web", "ssh", &fields, &["private_key"])]);
    assert!(
        file(&environment, "WRIT_SSH_CONFIG")
            .contains("originalhost web\n  HostName 127.0.0.1\nHost 127.0.0.1 web\n  Port 2201\n")
    );
    let fields = [("certificate", "ONE\n"), ("chain", "TWO\n")];
    let (_folder, environment) = delivered(&[held("tls", "x509", &fields, &["private_key"])]);
    assert_eq!(file(&environment, "WRIT_CREDENTIAL_TLS_READ_CERT_FILE"), "ONE\nTWO\n");
}

#[test]
fn a_kubeconfig_names_the_token_and_does_not_hold_it() {
    let fields = [("server", "k8s.example"), ("namespace", "shop"), ("ca_pem", "PEM\n")];
    let (_folder, environment) = delivered(&[held("k8s", "kubernetes", &fields, &["token"])]);
    let text = file(&environment, "KUBECONFIG");
    assert!(!text.contains(SECRET));
    let config: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(config["contexts"][0]["context"], json!({ "cluster": "k8s", "user": "k8s", "namespace": "shop" }));
    assert_eq!(config["clusters"][0]["cluster"]["server"], "https://k8s.example");
    let token = config["users"][0]["user"]["tokenFile"].as_str().unwrap();
    assert_eq!(fs::read_to_string(token).unwrap(), SECRET);
}

#[test]
fn a_target_cannot_write_settings_of_its_own() {
    for user in ["x\nProxyCommand touch /tmp/x", "x\r", "x\" y"] {
        for kind in ["ssh", "mysql", "postgresql"] {
            let one = held("t", kind, &[("user", user), ("certificate", "c")], &["private_key", "password"]);
            let refused = deliver(&[one], &Folder::create().unwrap()).err().unwrap().to_string();
            assert!(refused.contains("not plain text"), "{kind}: {refused}");
        }
    }
}

#[test]
fn a_credential_without_its_secret_is_named_and_not_delivered() {
    let refused = deliver(&[held("orders-db", "postgresql", &DATABASE, &[])], &Folder::create().unwrap()).err().unwrap();
    assert_eq!(refused.to_string(), "the credential for `orders-db/read` has no `password`");
}
