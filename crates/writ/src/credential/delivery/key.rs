//! SSH and X.509: a key and its certificate in files, and the configuration that names them.

use super::{Environment, Folder, Held, shown};

/// One configuration for all: `ssh -F "$WRIT_SSH_CONFIG" HOST`, and what `git` and `rsync` call by themselves.
pub(super) fn ssh(credentials: &[&Held], folder: &Folder, environment: &mut Environment) -> anyhow::Result<()> {
    if credentials.is_empty() {
        return Ok(());
    }
    let mut config = String::new();
    for held in credentials {
        let key = held.write(folder, "id_ed25519", held.secret("private_key")?)?;
        let certificate = held.write(folder, "id_ed25519-cert.pub", &format!("{}\n", held.field("certificate").trim_end()))?;
        let hosts: Vec<_> = held.field("hosts").split(',').map(str::trim).filter(|host| !host.is_empty()).map(place).collect();
        anyhow::ensure!(
            !hosts.iter().any(|(host, _)| host.contains(char::is_whitespace)),
            "a host of `{}` has a space in its name",
            held.target
        );
        // By the target's name, too, if it is one host: people need not know which.
        if let [(host, _)] = hosts.as_slice() {
            config += &format!("Match originalhost {}\n  HostName {host}\n", held.target);
        }
        // `ssh` takes no port within a name.
        for (host, port) in &hosts {
            let also = if hosts.len() == 1 { format!(" {}", held.target) } else { String::new() };
            config += &port.map(|port| format!("Host {host}{also}\n  Port {port}\n")).unwrap_or_default();
        }
        let names: Vec<_> = hosts.iter().map(|(host, _)| *host).chain([held.target.as_str()]).collect();
        let names = if hosts.is_empty() { "*".to_owned() } else { names.join(" ") };
        config += &format!("Host {names}\n  User \"{}\"\n", held.field("user"));
        config += &format!("  IdentityFile \"{}\"\n  CertificateFile \"{}\"\n", shown(&key), shown(&certificate));
        // No other key of the user is offered, and none of its agents is asked or lent to the host.
        config += "  IdentitiesOnly yes\n  IdentityAgent none\n  ForwardAgent no\n  PasswordAuthentication no\n";
        if !held.field("known_hosts").is_empty() {
            let known = held.write(folder, "known_hosts", &format!("{}\n", held.field("known_hosts").trim_end()))?;
            config += &format!("  UserKnownHostsFile \"{}\"\n  StrictHostKeyChecking yes\n", shown(&known));
        }
    }
    let file = folder.write("ssh_config", config.as_bytes())?;
    let command = format!("ssh -F {}", quoted(&shown(&file)));
    environment.unset(&["SSH_AUTH_SOCK"]);
    environment.set("GIT_SSH_COMMAND", &command);
    environment.set("RSYNC_RSH", &command);
    environment.set("WRIT_SSH_CONFIG", file);
    Ok(())
}

/// `HOST`, `HOST:PORT` or `[ADDRESS]:PORT`.
fn place(text: &str) -> (&str, Option<u16>) {
    let bare = |host| str::trim_end_matches(str::trim_start_matches(host, '['), ']');
    match text.rsplit_once(':') {
        // More colons than one, and no brackets: an address without a port.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (bare(host), Some(port)),
            Err(_) => (text, None),
        },
        _ => (bare(text), None),
    }
}

/// Text as one word of a shell.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Key, certificate chain and roots, each a file with a variable.
pub(super) fn x509(credentials: &[&Held], folder: &Folder, environment: &mut Environment) -> anyhow::Result<()> {
    for held in credentials {
        let name = format!("WRIT_CREDENTIAL_{}", held.word());
        environment.set(format!("{name}_KEY_FILE"), held.write(folder, "key.pem", held.secret("private_key")?)?);
        // The whole chain in one file: servers trust the root, and clients read what is between from there.
        let chain = format!("{}{}", held.field("certificate"), held.field("chain"));
        environment.set(format!("{name}_CERT_FILE"), held.write(folder, "cert.pem", &chain)?);
        if !held.field("ca_pem").is_empty() {
            environment.set(format!("{name}_CA_FILE"), held.write(folder, "ca.pem", held.field("ca_pem"))?);
        }
    }
    Ok(())
}
