//! The strict reader: unknown keys, secrets in files, wrong types, all at once.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

struct Fixed;

impl Surroundings for Fixed {
    fn read(&self, reference: &SecretRef) -> Result<SecretString, String> {
        Err(format!("{reference:?} is not there"))
    }

    fn locate(&self, path: &str) -> PathBuf {
        PathBuf::from("/conf").join(path)
    }

    fn now(&self) -> domain::Timestamp {
        domain::Timestamp::from_secs(1_795_305_600)
    }
}

fn target(connect: &str) -> TargetConfig {
    TargetConfig {
        kind: "x".to_owned(),
        name: "orders-db".parse().unwrap(),
        connect: connect.parse().unwrap(),
        offers: BTreeMap::new(),
    }
}

/// The faults after `read` asked for what it wants.
fn faults(connect: &str, read: impl Fn(&Section<'_>)) -> Vec<String> {
    let target = target(connect);
    let secrets: Arc<dyn Surroundings> = Arc::new(Fixed);
    let config = Config::new("x", &target, &secrets);
    read(&config.connect);
    config.check().err().map_or_else(Vec::new, |faults| faults.0.iter().map(ToString::to_string).collect())
}

#[test]
fn every_fault_is_found_at_once() {
    let found = faults("port = 70000\nhots = \"x\"\ntls = \"maybe\"", |connect| {
        let _ = connect.text("host", "127.0.0.1");
        let _ = connect.port("port", 5432);
        let _ = connect.choice("tls", &[("off", 0), ("verify-full", 1)], 1);
    });
    let expected = [
        "`connect.host`: `host` is missing (for example: host = \"127.0.0.1\")",
        "`connect.port`: `port` is 70000, not in 1 to 65535",
        "`connect.tls`: `maybe` is not allowed for `tls` (use one of \"off\", \"verify-full\")",
        "`connect.hots`: `hots` is not known here (known here: `host`, `port`, `tls`)",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_secret_in_the_file_is_refused_and_not_repeated() {
    for written in
        ["password = \"hunter2\"", "password = { value = \"hunter2\" }", "password = { env = \"A\", file = \"hunter2\" }"]
    {
        let found = faults(written, |connect| drop(connect.secret("password")));
        assert_eq!(found.len(), 1, "{written}");
        assert!(found.iter().all(|fault| fault.contains("must be a reference") && !fault.contains("hunter2")), "{found:?}");
    }
}

#[test]
fn paths_are_those_of_the_folder_of_the_configuration() {
    let target = target("password = { file = \"secrets/p\" }");
    let secrets: Arc<dyn Surroundings> = Arc::new(Fixed);
    let config = Config::new("x", &target, &secrets);
    assert_eq!(format!("{:?}", config.connect.secret("password")), "Secret(File(\"/conf/secrets/p\"))");
    assert!(config.check().is_ok());
}

#[test]
fn keys_of_inner_tables_are_read_as_strictly() {
    let text = "[inner]\na = \"1\"\nb = \"2\"\n[[many]]\na = \"1\"\nc = \"3\"\n[whole]\nany = 1";
    let found = faults(text, |connect| {
        let _ = connect.section("inner").map(|inner| inner.text_if("a"));
        let _ = connect.sections("many").iter().map(|one| one.text_if("a")).collect::<Vec<_>>();
        let _ = connect.raw("whole");
    });
    assert_eq!(
        found,
        [
            "`connect.inner.b`: `b` is not known here (known here: `a`)",
            "`connect.many.0.c`: `c` is not known here (known here: `a`)",
        ]
    );
}

#[test]
fn the_wrong_type_is_a_fault_for_every_getter() {
    let text = "a = [1]\nb = 1\nc = \"x\"\nd = { e = 1 }\nf = \"\"";
    let found = faults(text, |connect| {
        let _ = (connect.texts("a"), connect.text_if("b"), connect.flag("c", true), connect.text_map("d"), connect.text_if("f"));
    });
    assert_eq!(found.len(), 5, "{found:?}");
}
