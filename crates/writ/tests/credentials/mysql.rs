//! MariaDB and the unmodified `mariadb` client (`mysql` is its other name).

use crate::lab::{Lab, Place, err, install_script, secret};
use std::path::Path;
use testkit::RealMariadb;

const APPLICATION: &str = "
CREATE DATABASE shop CHARACTER SET utf8mb4;
USE shop;
CREATE TABLE orders (id int PRIMARY KEY, region varchar(8) NOT NULL, total int NOT NULL);
INSERT INTO orders VALUES (1, 'eu', 10), (2, 'us', 20), (3, 'eu', 30);
CREATE TABLE cards (number text);
";

/// MariaDB has no rules for rows: a view does it.
const RULES: &str = "
CREATE SQL SECURITY DEFINER VIEW shop.my_orders AS SELECT id, region, total FROM shop.orders WHERE region = writ_lease.param('region');
GRANT SELECT ON shop.my_orders TO orders_read;
ALTER USER writ_broker@'%' IDENTIFIED BY 'broker-password-of-the-test';
";

impl Place for RealMariadb {
    const TARGET: &'static str = "shop-db";
    const READ: (&'static str, Option<&'static str>) = ("read_orders", Some("region=eu"));

    fn target_file(&self, _: &Path) -> String {
        format!(
            r#"
kind = "mysql"
owner = "support"
description = "The shop's database."
[connect]
host = "127.0.0.1"
port = {}
database = "shop"
user = "writ_broker"
password = {{ file = "secrets/shop-db" }}
tls = "off"
[offers.read_orders]
description = "Reads the orders of one region."
template = "orders_read"
lifetime_secs = 300
[offers.read_orders.params.region]
type = "string"
description = "The region."
"#,
            self.port()
        )
    }

    fn policy(&self) -> String {
        r#"@id("own-region")
        permit (principal is Intent::Work, action == ShopDb::Action::"read_orders", resource is Writ::Credential)
        when { context.input.region == principal.subject && context.secret == "caller" };"#
            .to_owned()
    }

    fn install(&self, dir: &Path) {
        secret(dir, "shop-db", "broker-password-of-the-test\n");
        self.sql(APPLICATION).unwrap();
        self.sql(&install_script(dir, "shop-db")).unwrap();
        self.sql(RULES).unwrap();
    }

    fn standing(&self) -> String {
        self.sql("SELECT User FROM mysql.global_priv WHERE User LIKE 'jit%'").unwrap()
    }
}

pub(crate) fn lab() -> Option<Lab<RealMariadb>> {
    RealMariadb::start().map(Lab::start)
}

/// The client by each of its names.
const LIVE: &str = "mariadb -Nn -e 'SELECT 1; SELECT SLEEP(600)'; echo over; mysql -Nn -e 'SELECT 2'; echo out";

#[test]
fn an_unmodified_client_reads_what_its_task_may_and_nothing_else_and_then_it_is_over() {
    let Some(lab) = lab() else { return };
    assert_eq!(lab.says("mysql -Ne 'SELECT sum(total) FROM my_orders'"), "40", "only rows of its region");
    for forbidden in [
        "SELECT * FROM orders",
        "SELECT * FROM cards",
        "UPDATE my_orders SET total = 0",
        "SELECT * FROM mysql.global_priv",
        "CREATE USER x",
        "SELECT load_file('/etc/hostname') INTO OUTFILE '/tmp/x'",
    ] {
        let output = lab.run(&format!("mariadb -Ne \"{forbidden}\""));
        assert!(!output.status.success() && err(&output).contains("denied"), "{forbidden}: {}", err(&output));
    }
    lab.over();
    // Another region than that of the task is refused by policy, and nothing is made.
    let output = lab.command_with("eu", &[("read_orders", Some("region=us"))], "true").output().unwrap();
    assert!(!output.status.success() && err(&output).contains("read_orders"), "{}", err(&output));
    assert_eq!(lab.place.standing(), "");
}

#[test]
fn the_end_of_the_task_kills_the_live_session_and_the_next_login() {
    let Some(lab) = lab() else { return };
    let mut session = lab.live(LIVE);
    assert_eq!(session.first, "1");
    lab.end_task();
    assert_eq!([session.line(), session.line()], ["over", "out"], "the client was thrown out");
    let said = session.end();
    assert!(said.contains("Lost connection") || said.contains("Connection was killed"), "{said}");
    assert!(said.contains("Access denied"), "{said}");
    lab.over();
}

#[test]
fn killed_while_an_account_is_live_or_right_after_its_issue_writ_leaves_nothing_behind() {
    let Some(mut lab) = lab() else { return };
    lab.dies_while_it_is_live("mariadb -Nn -e 'SELECT 1; SELECT SLEEP(600)'");
    lab.dies_right_after_issue();
}
