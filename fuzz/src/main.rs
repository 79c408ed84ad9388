//! Fuzz targets: one program that runs the one named by `WRIT_FUZZ`. Each states laws that no input may break; that nothing
//! panics, hangs or takes too much memory goes without saying. `fuzz/run` builds and runs it.
//!
//! One program for all, because linking each with its own copy of what lies below takes longer than the fuzzing.
#![no_main]

mod api;
mod folder;
mod log;
mod messages;
mod oauth;
mod scan;
mod tokens;
mod words;

use std::sync::OnceLock;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 24] = [
    ("answer", messages::answer),
    ("authzen", words::authzen),
    ("claims", tokens::claims),
    ("cursor", words::cursor),
    ("echo", api::echo),
    ("event", messages::event),
    ("folder", folder::folder),
    ("form", oauth::form),
    ("header", words::header),
    ("identity", tokens::identity),
    ("json", messages::json),
    ("keys", tokens::keys),
    ("message", messages::message),
    ("note", log::note),
    ("path", api::path),
    ("proof", tokens::proof),
    ("request", api::request),
    ("sigv4", api::sigv4),
    ("task", oauth::task),
    ("template", words::template),
    ("tile", log::tile),
    ("tool", folder::tool),
    ("tree", log::tree),
    ("uri", words::uri),
];

static CHOSEN: OnceLock<Target> = OnceLock::new();

fn choose() {
    let wanted = std::env::var("WRIT_FUZZ").unwrap_or_default();
    match TARGETS.iter().find(|(name, _)| *name == wanted) {
        Some((_, target)) => drop(CHOSEN.set(*target)),
        None => {
            TARGETS.iter().for_each(|(name, _)| println!("{name}"));
            std::process::exit(if wanted.is_empty() { 0 } else { 2 });
        }
    }
}

libfuzzer_sys::fuzz_target!(init: choose(), |data: &[u8]| {
    if let Some(target) = CHOSEN.get() {
        target(data);
    }
});
