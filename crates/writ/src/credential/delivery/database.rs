//! PostgreSQL (libpq), MySQL and MariaDB, Redis and Valkey: service, password and option files.

use super::{Environment, Folder, Held, only, shown};
use zeroize::Zeroizing;

/// Variables of libpq that would win over the password file, or send the secret somewhere else.
const PG_UNSET: [&str; 12] = [
    "PGPASSWORD",
    "PGHOSTADDR",
    "PGSERVICE",
    "PGSSLCERT",
    "PGSSLKEY",
    "PGSSLROOTCERT",
    "PGSSLCRL",
    "PGREQUIRESSL",
    "PGREQUIREAUTH",
    "PGOPTIONS",
    "PGGSSENCMODE",
    "PGTARGETSESSIONATTRS",
];

/// A password file and a service file for all; the variables of libpq if there is one only.
pub(super) fn postgresql(credentials: &[&Held], folder: &Folder, environment: &mut Environment) -> anyhow::Result<()> {
    if credentials.is_empty() {
        return Ok(());
    }
    let mut services = String::new();
    for held in credentials {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
        let [host, port, user] = ["host", "port", "user"].map(|name| held.field(name));
        // Only there: the password goes to no other host, whatever a command says.
        let line = [host, port, "*", user, held.secret("password")?]
            .map(|part| if part == "*" { part.to_owned() } else { quoted(part) });
        let line = Zeroizing::new(format!("{}\n", line.join(":")));
        let passwords = held.write(folder, "pgpass", &line)?;
        let mut settings = vec![
            ("PGHOST", "host", host.to_owned()),
            ("PGPORT", "port", port.to_owned()),
            ("PGUSER", "user", user.to_owned()),
            ("PGDATABASE", "dbname", held.field("database").to_owned()),
            ("PGPASSFILE", "passfile", shown(&passwords)),
            ("PGSSLMODE", "sslmode", held.field("sslmode").to_owned()),
        ];
        if !held.field("ca_pem").is_empty() {
            let roots = held.write(folder, "ca.pem", held.field("ca_pem"))?;
            settings.push(("PGSSLROOTCERT", "sslrootcert", shown(&roots)));
        }
        settings.retain(|(_, _, value)| !value.is_empty());
        services += &format!("[{}]\n", held.target);
        settings.iter().for_each(|(_, name, value)| services += &format!("{name}={value}\n"));
        if only(credentials).is_some() {
            environment.unset(&PG_UNSET);
            settings.into_iter().for_each(|(variable, _, value)| environment.set(variable, value));
        }
    }
    environment.set("PGSERVICEFILE", folder.write("pg_service.conf", services.as_bytes())?);
    Ok(())
}

/// An option file: the variable that `--defaults-extra-file` can be given, and `MYSQL_HOME`, which clients read by themselves.
pub(super) fn mysql(credentials: &[&Held], folder: &Folder, environment: &mut Environment) -> anyhow::Result<()> {
    for held in credentials {
        let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let mut options = Zeroizing::new(String::from("[client]\nprotocol=tcp\n"));
        for name in ["host", "port", "user"] {
            *options += &format!("{name}={}\n", quoted(held.field(name)));
        }
        *options += &format!("password={}\n", quoted(held.secret("password")?));
        // `loose-`: MySQL and MariaDB spell these differently, and each passes over the other's.
        match held.field("tls") {
            "off" => *options += "loose-skip-ssl\nloose-ssl-mode=DISABLED\n",
            "verify" => *options += "loose-ssl-mode=VERIFY_IDENTITY\nloose-ssl\nloose-ssl-verify-server-cert\n",
            // MySQL checks the authority only if it is told so; MariaDB wherever it is given one.
            _ => *options += "loose-ssl-mode=VERIFY_CA\nloose-ssl\n",
        }
        if !held.field("ca_pem").is_empty() {
            let roots = held.write(folder, "ca.pem", held.field("ca_pem"))?;
            *options += &format!("ssl-ca={}\n", quoted(&shown(&roots)));
        }
        if !held.field("database").is_empty() {
            *options += &format!("[mysql]\ndatabase={}\n", quoted(held.field("database")));
        }
        let file = held.write(folder, "my.cnf", &options)?;
        if only(credentials).is_some() {
            environment.unset(&["MYSQL_PWD", "MYSQL_HOST", "MYSQL_TCP_PORT", "MYSQL_UNIX_PORT", "MARIADB_HOME"]);
            let home = file.parent().map(shown).unwrap_or_default();
            environment.set("MYSQL_HOME", home);
        }
        environment.set(format!("WRIT_CREDENTIAL_{}_DEFAULTS_FILE", held.word()), file);
    }
    Ok(())
}

/// `redis-cli` reads its password from one variable, and the rest from the command line, where no secret is needed then.
pub(super) fn redis(credentials: &[&Held], folder: &Folder, environment: &mut Environment) -> anyhow::Result<()> {
    for held in credentials {
        let password = held.secret("password")?;
        let scheme = if held.field("tls") == "on" { "rediss" } else { "redis" };
        let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20");
        let [host, port, user] = ["host", "port", "user"].map(|name| held.field(name));
        let database = if held.field("db").is_empty() { "0" } else { held.field("db") };
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let uri = Zeroizing::new(format!("{scheme}://{}:{}@{host}:{port}/{database}\n", encoded(user), encoded(password)));
        let file = held.write(folder, "uri", &uri)?;
        environment.set(format!("WRIT_CREDENTIAL_{}_URI_FILE", held.word()), file);
        if only(credentials).is_some() {
            environment.set("REDISCLI_AUTH", password);
        }
        if !held.field("ca_pem").is_empty() {
            let roots = held.write(folder, "ca.pem", held.field("ca_pem"))?;
            environment.set(format!("WRIT_CREDENTIAL_{}_CA_FILE", held.word()), roots);
        }
    }
    Ok(())
}
