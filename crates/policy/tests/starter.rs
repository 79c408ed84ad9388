//! The folder that `writ init` writes, and the one in the documentation, compile and keep their own promises.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use policy::{Policy, SourceFile, Sources, run_tests};
use std::path::{Path, PathBuf};

fn starter() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../writ/src/init/policy")
}

fn read(folder: &Path) -> Sources {
    let mut sources = Sources::default();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let text = std::fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(folder).unwrap().to_str().unwrap().replace('\\', "/");
            sources.files.push(SourceFile { path, text });
        }
    }
    sources
}

#[test]
fn the_starter_folder_compiles_without_a_finding() {
    let compiled = Policy::compile(&read(&starter())).expect("the starter compiles");
    assert!(compiled.warnings.is_empty(), "{:#?}", compiled.warnings);
    assert!(compiled.policy.schema_text().contains("RefundOrder"));
}

#[test]
fn the_starter_folder_keeps_its_own_promises() {
    let sources = read(&starter());
    let policy = Policy::compile(&sources).expect("the starter compiles").policy;
    let report = run_tests(&policy, &sources);
    let failed: Vec<_> = report.cases.iter().filter(|case| case.failure.is_some()).collect();
    assert!(report.passed(), "{:#?} {failed:#?}", report.faults);
    assert!(report.cases.len() >= 15);
}

#[test]
fn the_folder_of_the_documentation_compiles_and_keeps_its_promises() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/policy.md")).unwrap();
    let mut sources = Sources::default();
    for block in page.split("\n```").skip(1).step_by(2) {
        let (head, text) = block.split_once('\n').unwrap();
        if let Some((_, path)) = head.split_once(' ') {
            sources.files.push(SourceFile { path: path.to_owned(), text: text.to_owned() });
        }
    }
    assert_eq!(sources.files.len(), 8);
    let lock = "tools/helpdesk.lock.json";
    let text = std::fs::read_to_string(starter().join(lock)).unwrap();
    sources.files.push(SourceFile { path: lock.to_owned(), text });
    let policy = Policy::compile(&sources).expect("the documentation compiles").policy;
    let report = run_tests(&policy, &sources);
    assert!(report.passed() && report.cases.len() == 3, "{report:#?}");
}

#[test]
#[ignore = "writes the file: run it with DEFINITIONS=path of the JSON array after the sample upstream changed"]
#[expect(clippy::disallowed_methods, reason = "a tool for maintainers, in the shape of a test")]
fn write_the_lock_file() {
    let given = std::fs::read_to_string(std::env::var("DEFINITIONS").unwrap()).unwrap();
    let definitions: Vec<serde_json::Value> = serde_json::from_str(&given).unwrap();
    let text = policy::render_lock(&"helpdesk".parse().unwrap(), &definitions);
    std::fs::write(starter().join("tools/helpdesk.lock.json"), text).unwrap();
}
