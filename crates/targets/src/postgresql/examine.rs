//! Whether our account can do what it must and nothing more, whether the functions in the database are the ones that the
//! install script prints, and whether the templates are as narrow as they look. Reads only catalogs that every role can
//! read, and `writ_lease.templates()`.

use super::connect::{Pools, code, within};
use super::install::{self, CLOCK_DIFFERENCE_SECS, Caller, FUNCTIONS};
use super::{Settings, Template};
use authority::target::{Finding, Gravity, TargetError};
use secrecy::SecretString;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection as _, Row as _};
use std::collections::BTreeMap;
use std::time::Duration;

/// What to do about nearly everything here.
const REINSTALL: &str = "run the script of `writ target install --print` again";

/// Catalog functions that reach files, programs or other servers.
const DANGEROUS_FUNCTIONS: &str = "'pg_read_file', 'pg_read_binary_file', 'pg_ls_dir', 'pg_stat_file', 'lo_import', 'lo_export', \
     'dblink', 'dblink_connect', 'dblink_exec', 'pg_reload_conf'";

/// Predefined roles that reach beyond any template.
const DANGEROUS_ROLES: &str = "'pg_execute_server_program', 'pg_write_server_files', 'pg_read_server_files', 'pg_signal_backend', \
     'pg_read_all_data', 'pg_write_all_data', 'pg_read_all_settings', 'pg_read_all_stats', 'pg_monitor', 'pg_checkpoint', \
     'pg_maintain', 'pg_create_subscription', 'pg_use_reserved_connections', 'pg_database_owner', 'writ_lease_owner'";

/// What is being looked at, and what was found so far.
struct Examination<'a> {
    settings: &'a Settings,
    pools: &'a Pools,
    connection: PgConnection,
    findings: Vec<Finding>,
}

/// Looks at everything.
pub(super) async fn examine(settings: &Settings, pools: &Pools) -> Result<Vec<Finding>, TargetError> {
    let connection = match pools.to(&settings.at.database).await {
        Ok(connection) => connection,
        Err(TargetError::Refused(why)) => {
            return Ok(vec![finding(Gravity::Broken, "broker.login", why, "see docs/targets/postgresql.md")]);
        }
        Err(other) => return Err(other),
    };
    let mut examination = Examination { settings, pools, connection, findings: Vec::new() };
    match examination.all().await {
        Ok(()) => Ok(examination.findings),
        Err(error) => Err(pools.failed(&error)),
    }
}

fn finding(gravity: Gravity, check: &'static str, found: impl Into<String>, remedy: &str) -> Finding {
    Finding { gravity, check, found: found.into(), remedy: remedy.to_owned() }
}

impl Examination<'_> {
    async fn all(&mut self) -> Result<(), sqlx::Error> {
        self.attributes().await?;
        self.reach().await?;
        self.functions().await?;
        self.owner().await?;
        self.templates().await?;
        self.server().await?;
        self.login().await
    }

    fn add(&mut self, gravity: Gravity, check: &'static str, found: impl Into<String>, remedy: &str) {
        self.findings.push(finding(gravity, check, found, remedy));
    }

    /// Adds `gravity` with the names if there are any, and what is fine otherwise.
    fn none_of(&mut self, check: &'static str, names: &[String], (gravity, what, remedy): (Gravity, &str, &str), fine: &str) {
        if names.is_empty() {
            self.add(Gravity::Fine, check, fine, "");
        } else {
            let more = if names.len() > 8 { ", …" } else { "" };
            let shown: Vec<_> = names.iter().take(8).map(|name| format!("`{name}`")).collect();
            self.add(gravity, check, format!("{what}: {}{more}", shown.join(", ")), remedy);
        }
    }

    async fn names(&mut self, statement: &'static str, bound: &str) -> Result<Vec<String>, sqlx::Error> {
        let rows = sqlx::query(statement).bind(bound).fetch_all(&mut self.connection).await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    }

    /// Our account's attributes, memberships and property.
    async fn attributes(&mut self) -> Result<(), sqlx::Error> {
        let user = self.settings.at.user.clone();
        let statement = "SELECT word FROM pg_catalog.pg_roles r, LATERAL (VALUES ('superuser', r.rolsuper), \
             ('createrole', r.rolcreaterole), ('createdb', r.rolcreatedb), ('replication', r.rolreplication), \
             ('bypassrls', r.rolbypassrls)) AS a(word, held) WHERE r.rolname = $1 AND a.held";
        let held = self.names(statement, &user).await?;
        let wide = (Gravity::Broken, "our account has", REINSTALL);
        self.none_of("broker.attributes", &held, wide, "our account has no attribute of an administrator");
        let statement = "SELECT g.rolname::text FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid \
             JOIN pg_catalog.pg_roles r ON r.oid = m.member WHERE r.rolname = $1";
        let groups = self.names(statement, &user).await?;
        let wide = (Gravity::Broken, "our account is a member of", "REVOKE these roles from it");
        self.none_of("broker.memberships", &groups, wide, "our account is a member of nothing");
        let statement = "SELECT DISTINCT coalesce(d.datname::text, 'shared objects') FROM pg_catalog.pg_shdepend s \
             LEFT JOIN pg_catalog.pg_database d ON d.oid = s.dbid JOIN pg_catalog.pg_roles r ON r.oid = s.refobjid \
             WHERE s.deptype = 'o' AND r.rolname = $1";
        let owned = self.names(statement, &user).await?;
        let wide = (Gravity::Broken, "our account owns something in", "REASSIGN OWNED to somebody else");
        self.none_of("broker.property", &owned, wide, "our account owns nothing");
        let limit = sqlx::query("SELECT rolconnlimit FROM pg_catalog.pg_roles WHERE rolname = $1").bind(&user);
        let limit: i32 = limit.fetch_one(&mut self.connection).await?.try_get(0)?;
        if !(0..=i32::try_from(install::CONNECTIONS_MAX).unwrap_or(i32::MAX)).contains(&limit) {
            let text = "our account may take every connection that the server has";
            self.add(Gravity::Warning, "broker.connection_limit", text, REINSTALL);
        }
        Ok(())
    }

    /// What else our account can touch in this database.
    async fn reach(&mut self) -> Result<(), sqlx::Error> {
        let statement = "SELECT c.oid::regclass::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_t%' AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
             AND (pg_catalog.has_table_privilege($1, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') \
                  OR pg_catalog.has_any_column_privilege($1, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')) ORDER BY 1 LIMIT 20";
        let user = self.settings.at.user.clone();
        let tables = self.names(statement, &user).await?;
        let wide = (Gravity::Broken, "our account can touch tables", "REVOKE ALL ON these tables FROM it, and from PUBLIC");
        self.none_of("broker.tables", &tables, wide, "our account can touch no table");
        let statement = "SELECT p.oid::regprocedure::text FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
             WHERE p.prosecdef AND n.nspname NOT IN ('pg_catalog', 'writ_lease') AND pg_catalog.has_schema_privilege($1, n.oid, 'USAGE') \
             AND pg_catalog.has_function_privilege($1, p.oid, 'EXECUTE') ORDER BY 1 LIMIT 20";
        let definer = self.names(statement, &user).await?;
        let wide =
            (Gravity::Warning, "our account can call functions that run as somebody else", "REVOKE EXECUTE ON them FROM PUBLIC");
        self.none_of("broker.definer_functions", &definer, wide, "no definer function but ours is open to our account");
        let statement = sqlx::AssertSqlSafe(format!(
            "SELECT p.oid::regprocedure::text FROM pg_catalog.pg_proc p WHERE p.proname IN ({DANGEROUS_FUNCTIONS}) \
             AND pg_catalog.has_function_privilege($1, p.oid, 'EXECUTE') ORDER BY 1"
        ));
        let rows = sqlx::query(statement).bind(&user).fetch_all(&mut self.connection).await?;
        let files: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let wide = (Gravity::Broken, "our account can call", "REVOKE EXECUTE ON these functions FROM PUBLIC and from it");
        self.none_of("broker.dangerous_functions", &files, wide, "our account can reach no files and no other server");
        let statement = "SELECT 'schema ' || n.nspname::text FROM pg_catalog.pg_namespace n WHERE pg_catalog.has_schema_privilege($1, n.oid, 'CREATE') \
             AND n.nspname NOT LIKE 'pg\\_t%' UNION ALL SELECT 'database (' || word || ')' FROM (VALUES ('CREATE'), ('TEMPORARY')) AS w(word) \
             WHERE pg_catalog.has_database_privilege($1, pg_catalog.current_database(), word)";
        let creates = self.names(statement, &user).await?;
        let remedy = "REVOKE CREATE ON SCHEMA public FROM PUBLIC; REVOKE CREATE, TEMPORARY ON DATABASE … FROM PUBLIC";
        let wide = (Gravity::Warning, "our account can create objects in", remedy);
        self.none_of("broker.create", &creates, wide, "our account can create nothing");
        Ok(())
    }

    /// Whether each function is ours, word for word, and only ours to call.
    async fn functions(&mut self) -> Result<(), sqlx::Error> {
        let statement = "SELECT p.proname::text AS name, pg_catalog.oidvectortypes(p.proargtypes) AS arguments, p.prosrc AS body, \
             p.prosecdef AS definer, p.proconfig[1] AS config, o.rolname::text AS owner, o.rolsuper AS owned_by_super, \
             pg_catalog.has_function_privilege(r.oid, p.oid, 'EXECUTE') AS ours, \
             EXISTS (SELECT FROM pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a WHERE a.grantee = 0) AS public \
             FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
             JOIN pg_catalog.pg_roles o ON o.oid = p.proowner, pg_catalog.pg_roles r \
             WHERE n.nspname = 'writ_lease' AND p.prokind = 'f' AND r.rolname = $1";
        let rows = sqlx::query(statement).bind(&self.settings.at.user).fetch_all(&mut self.connection).await?;
        let mut there: BTreeMap<(String, String), &PgRow> = BTreeMap::new();
        for row in &rows {
            there.insert((row.try_get("name")?, row.try_get("arguments")?), row);
        }
        let mut wrong = Vec::new();
        for &(name, arguments, caller) in FUNCTIONS {
            match there.remove(&(name.to_owned(), arguments.to_owned())) {
                None => wrong.push(format!("{name}: missing")),
                Some(row) => wrong.extend(fault_of(row, name, caller)?.map(|why| format!("{name}: {why}"))),
            }
        }
        let open = there.iter().filter(|(_, row)| row.try_get("ours").unwrap_or(true));
        wrong.extend(open.map(|((name, _), _)| format!("{name}: not Writ's, and open to our account")));
        let wide = (Gravity::Broken, "functions differ from the install script", REINSTALL);
        self.none_of("lease.functions", &wrong, wide, "every function is the install script's, word for word");
        let statement = "SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_catalog.pg_roles o ON o.oid = c.relowner WHERE n.nspname = 'writ_lease' AND c.relkind = 'r' AND NOT o.rolsuper \
             AND o.rolname IN ($1, 'writ_lease_owner')";
        let user = self.settings.at.user.clone();
        let tables = self.names(statement, &user).await?;
        let wide =
            (Gravity::Broken, "tables that must be the administrator's are not", "ALTER TABLE … OWNER TO your administrator");
        self.none_of("lease.tables", &tables, wide, "the tables belong to an administrator");
        Ok(())
    }

    /// Whether nobody can become the functions' owner.
    async fn owner(&mut self) -> Result<(), sqlx::Error> {
        let statement = "SELECT word FROM pg_catalog.pg_roles r, LATERAL (VALUES ('login', r.rolcanlogin), ('superuser', r.rolsuper), \
             ('bypassrls', r.rolbypassrls), ('replication', r.rolreplication), ('createdb', r.rolcreatedb)) AS a(word, held) \
             WHERE r.rolname = $1 AND a.held";
        let held = self.names(statement, "writ_lease_owner").await?;
        let wide = (Gravity::Broken, "the functions' owner has", REINSTALL);
        self.none_of("lease_owner.attributes", &held, wide, "nobody can log in as the functions' owner");
        let statement = "SELECT u.rolname::text FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles u ON u.oid = m.member \
             JOIN pg_catalog.pg_roles o ON o.oid = m.roleid WHERE o.rolname = $1 AND NOT u.rolsuper";
        let members = self.names(statement, "writ_lease_owner").await?;
        let wide = (Gravity::Broken, "roles that can become the functions' owner", "REVOKE writ_lease_owner FROM them");
        self.none_of("lease_owner.members", &members, wide, "nobody can become the functions' owner");
        Ok(())
    }

    /// What may be issued, and what the template roles can do.
    async fn templates(&mut self) -> Result<(), sqlx::Error> {
        let rows = sqlx::query("SELECT name, parent, max_ttl_secs, max_live FROM writ_lease.templates()")
            .fetch_all(&mut self.connection)
            .await;
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) if matches!(code(&error).as_deref(), Some("42883" | "3F000" | "42501")) => {
                self.add(Gravity::Broken, "template.known", "the templates cannot be listed", REINSTALL);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let wanted = self.settings.templates();
        for row in &rows {
            let (name, parent): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            match wanted.iter().find(|template| template.name == name) {
                Some(template) => self.bounds(template, row.try_get(2)?, &parent),
                None => {
                    let text = format!("template `{name}` can be issued, and no offer uses it");
                    self.add(Gravity::Warning, "template.unused", text, "DELETE its row FROM writ_lease.template");
                }
            }
            self.parent(&parent).await?;
        }
        let known: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let missing: Vec<_> = wanted.into_iter().map(|template| template.name).filter(|name| !known.contains(name)).collect();
        let wide = (Gravity::Broken, "offers name templates that the database does not know", REINSTALL);
        self.none_of("template.known", &missing, wide, "every offer's template is known");
        Ok(())
    }

    fn bounds(&mut self, template: &Template, ttl: i32, parent: &str) {
        let (ttl, wanted) = (i64::from(ttl), i64::try_from(template.lifetime_secs).unwrap_or(i64::MAX));
        let slack = i64::try_from(CLOCK_DIFFERENCE_SECS).unwrap_or_default();
        let name = &template.name;
        if ttl < wanted {
            let text = format!("template `{name}` lives {ttl} s at most, and an offer wants {wanted} s");
            self.add(Gravity::Broken, "template.lifetime", text, REINSTALL);
        } else if ttl > wanted.saturating_add(slack) {
            let text = format!("template `{name}` may live {ttl} s, and no offer wants more than {wanted} s");
            self.add(Gravity::Warning, "template.lifetime", text, REINSTALL);
        }
        if parent != name {
            let text = format!("template `{name}` joins the role `{parent}`");
            self.add(Gravity::Warning, "template.parent", text, REINSTALL);
        }
    }

    /// What a credential of this template role could do beyond tables and rows.
    async fn parent(&mut self, parent: &str) -> Result<(), sqlx::Error> {
        let statement = "SELECT word FROM pg_catalog.pg_roles r, LATERAL (VALUES ('superuser', r.rolsuper), ('login', r.rolcanlogin), \
             ('createrole', r.rolcreaterole), ('createdb', r.rolcreatedb), ('replication', r.rolreplication), ('bypassrls', r.rolbypassrls)) \
             AS a(word, held) WHERE r.rolname = $1 AND a.held";
        let held = self.names(statement, parent).await?;
        let what = format!("template role `{parent}` has");
        self.none_of(
            "template.attributes",
            &held,
            (Gravity::Broken, &what, "ALTER ROLE: a template is a plain NOLOGIN role"),
            &format!("`{parent}` is a plain role"),
        );
        let statement = sqlx::AssertSqlSafe(format!(
            "WITH RECURSIVE up AS (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = $1 UNION \
             SELECT m.roleid FROM pg_catalog.pg_auth_members m JOIN up ON m.member = up.oid) \
             SELECT r.rolname::text FROM up JOIN pg_catalog.pg_roles r ON r.oid = up.oid \
             WHERE r.rolname <> $1 AND (r.rolsuper OR r.rolcreaterole OR r.rolcanlogin OR r.rolname IN ({DANGEROUS_ROLES})) ORDER BY 1"
        ));
        let rows = sqlx::query(statement).bind(parent).fetch_all(&mut self.connection).await?;
        let above: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let what = format!("template role `{parent}` is a member of");
        self.none_of(
            "template.memberships",
            &above,
            (Gravity::Broken, &what, "REVOKE these roles from the template"),
            &format!("`{parent}` is above no dangerous role"),
        );
        let statement = "SELECT 'schema ' || n.nspname::text FROM pg_catalog.pg_namespace n WHERE pg_catalog.has_schema_privilege($1, n.oid, 'CREATE') \
             AND n.nspname NOT LIKE 'pg\\_t%' UNION ALL SELECT 'database (' || word || ')' FROM (VALUES ('CREATE'), ('TEMPORARY')) AS w(word) \
             WHERE pg_catalog.has_database_privilege($1, pg_catalog.current_database(), word)";
        let creates = self.names(statement, parent).await?;
        let what = format!("a credential of `{parent}` can create objects in");
        let remedy = "REVOKE CREATE ON SCHEMA public FROM PUBLIC; REVOKE CREATE, TEMPORARY ON DATABASE … FROM PUBLIC";
        self.none_of("template.create", &creates, (Gravity::Warning, &what, remedy), &format!("`{parent}` can create nothing"));
        let statement = sqlx::AssertSqlSafe(format!(
            "SELECT p.oid::regprocedure::text FROM pg_catalog.pg_proc p WHERE p.proname IN ({DANGEROUS_FUNCTIONS}) \
             AND pg_catalog.has_function_privilege($1, p.oid, 'EXECUTE') ORDER BY 1"
        ));
        let rows = sqlx::query(statement).bind(parent).fetch_all(&mut self.connection).await?;
        let calls: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let what = format!("a credential of `{parent}` can call");
        self.none_of(
            "template.dangerous_functions",
            &calls,
            (Gravity::Broken, &what, "REVOKE EXECUTE ON these functions FROM PUBLIC"),
            &format!("`{parent}` reaches no files and no other server"),
        );
        Ok(())
    }

    /// The server around it.
    async fn server(&mut self) -> Result<(), sqlx::Error> {
        let statement = "SELECT d.datname::text FROM pg_catalog.pg_database d WHERE d.datallowconn AND d.datname <> $1 \
             AND EXISTS (SELECT FROM pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) a \
                         WHERE a.grantee = 0 AND a.privilege_type = 'CONNECT') ORDER BY 1";
        let database = self.settings.at.database.clone();
        let open = self.names(statement, &database).await?;
        let mut uncleanable = Vec::new();
        for name in open {
            if !self.has_clean_here(&name).await {
                uncleanable.push(name);
            }
        }
        let remedy = "REVOKE CONNECT ON DATABASE … FROM PUBLIC, or run the install script in these databases as well";
        let wide = (Gravity::Warning, "credentials can connect to databases in which Writ cannot clean up", remedy);
        self.none_of("server.databases", &uncleanable, wide, "whatever a credential can connect to can be cleaned");
        let prepared = sqlx::query("SELECT pg_catalog.current_setting('max_prepared_transactions')::integer");
        let prepared: i32 = prepared.fetch_one(&mut self.connection).await?.try_get(0)?;
        if prepared > 0 {
            let text = "prepared transactions are on: one that a credential leaves behind keeps its locks until you roll it back";
            self.add(Gravity::Warning, "server.prepared_transactions", text, "set max_prepared_transactions = 0");
        }
        Ok(())
    }

    async fn has_clean_here(&self, database: &str) -> bool {
        let Ok(mut connection) = self.pools.to(database).await else { return false };
        let statement = "SELECT pg_catalog.has_function_privilege('writ_lease.clean_here(text)', 'EXECUTE')";
        let row = sqlx::query(statement).fetch_one(&mut connection).await;
        row.and_then(|row| row.try_get(0)).unwrap_or(false)
    }

    /// Whether the server looks at passwords at all: a `trust` line in pg_hba.conf makes every name a key.
    async fn login(&mut self) -> Result<(), sqlx::Error> {
        let wrong = SecretString::from("not the password of anybody");
        let options = self.settings.at.login(&self.settings.at.user, Some(&wrong));
        if let Ok(Ok(connection)) = within(Duration::from_secs(5), PgConnection::connect_with(&options)).await {
            connection.close().await?;
            let text = "the server lets our account in with a wrong password: pg_hba.conf trusts this address";
            self.add(
                Gravity::Broken,
                "server.authentication",
                text,
                "use scram-sha-256 for every line of pg_hba.conf that can match",
            );
        } else {
            self.add(Gravity::Fine, "server.authentication", "the server refuses a wrong password", "");
        }
        Ok(())
    }
}

/// What is wrong with one function.
fn fault_of(row: &PgRow, name: &str, caller: Caller) -> Result<Option<&'static str>, sqlx::Error> {
    let body: String = row.try_get("body")?;
    let (definer, public, ours): (bool, bool, bool) = (row.try_get("definer")?, row.try_get("public")?, row.try_get("ours")?);
    let (owner, config): (String, Option<String>) = (row.try_get("owner")?, row.try_get("config")?);
    let expected = matches!(caller, Caller::Broker | Caller::Everywhere);
    let faults = [
        (body != install::body(name), "another text"),
        (!definer, "does not run as its owner"),
        (config.as_deref() != Some("search_path=pg_catalog, pg_temp"), "another search_path"),
        (owner != "writ_lease_owner", "another owner"),
        (public, "everybody may call it"),
        (ours != expected, if expected { "our account may not call it" } else { "our account may call it" }),
    ];
    Ok(faults.into_iter().find_map(|(wrong, why)| wrong.then_some(why)))
}
