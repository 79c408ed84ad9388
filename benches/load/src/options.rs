//! The command line of the load driver: what is measured, for how long, with how many clients. Measures nothing itself.

use crate::keeping::Kept;
use anyhow::{Context, Result, bail};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const HELP: &str = "\
load: measures Writ beside its lower bounds. Build `writ` first: it is taken from beside this program.

  --secs N          length of a round (3)
  --rounds N        rounds; the median is shown (3)
  --clients A,B     connections at one time (1,16,64)
  --tasks N         open tasks for the measurement of memory (10000); 0 leaves it out
  --data DIR        where records and logs are written (the temporary folder)
  --cerbos FILE     Cerbos's binary, to be measured beside the decision API
  --agentgateway FILE  agentgateway's binary, to be measured beside the tool calls
  --only A,B        only paths whose names contain one of these words";

/// What to do.
pub(crate) enum Command {
    Help,
    /// Be one of the servers that are measured against.
    Serve(Baseline),
    Measure(Options),
}

/// An upstream, or a proxy before one.
#[derive(Default)]
pub(crate) struct Baseline {
    pub(crate) upstream: Option<SocketAddr>,
    pub(crate) kept: Option<Kept>,
    pub(crate) certificate: Option<(PathBuf, PathBuf)>,
}

pub(crate) struct Options {
    pub(crate) time: Duration,
    pub(crate) rounds: usize,
    pub(crate) tasks: usize,
    pub(crate) clients: Vec<usize>,
    pub(crate) data: Option<PathBuf>,
    pub(crate) cerbos: Option<PathBuf>,
    pub(crate) agentgateway: Option<PathBuf>,
    only: Vec<String>,
}

impl Options {
    /// Whether a path is to be measured.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| name.contains(word.as_str()))
    }
}

/// Reads the command line.
pub(crate) fn read() -> Result<Command> {
    let mut words = std::env::args().skip(1).peekable();
    if let Some(kind) = words.next_if(|word| matches!(word.as_str(), "upstream" | "proxy")) {
        return baseline(&kind, words).map(Command::Serve);
    }
    let mut options = Options {
        time: Duration::from_secs(3),
        rounds: 3,
        tasks: 10_000,
        clients: vec![1, 16, 64],
        data: None,
        cerbos: None,
        agentgateway: None,
        only: Vec::new(),
    };
    while let Some(word) = words.next() {
        if word == "--help" {
            return Ok(Command::Help);
        }
        let value = words.next().with_context(|| format!("{word} needs a value; see --help"))?;
        match word.as_str() {
            "--secs" => options.time = Duration::from_secs(value.parse()?),
            "--rounds" => options.rounds = value.parse()?,
            "--tasks" => options.tasks = value.parse()?,
            "--clients" => options.clients = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--data" => options.data = Some(value.into()),
            "--cerbos" => options.cerbos = Some(value.into()),
            "--agentgateway" => options.agentgateway = Some(value.into()),
            "--only" => options.only = value.split(',').map(str::to_owned).collect(),
            _ => bail!("unknown option {word}; see --help"),
        }
    }
    Ok(Command::Measure(options))
}

fn baseline(kind: &str, mut words: impl Iterator<Item = String>) -> Result<Baseline> {
    let (mut baseline, mut cert, mut key) = (Baseline::default(), None, None);
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--upstream" => baseline.upstream = Some(value.parse()?),
            "--records" => baseline.kept = Some(Kept::Records(value.into())),
            "--ledger" => baseline.kept = Some(Kept::Ledger(value.into())),
            "--cert" => cert = Some(value.into()),
            "--key" => key = Some(value.into()),
            _ => bail!("unknown option {word}"),
        }
    }
    if (kind == "proxy") != baseline.upstream.is_some() {
        bail!("a proxy, and nothing else, needs --upstream");
    }
    baseline.certificate = cert.zip(key);
    Ok(baseline)
}
