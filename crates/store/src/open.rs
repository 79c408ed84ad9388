//! Opening a store: claim the directory, migrate, bring database, log and anchor together, start the threads.
//! And closing it: everything that was accepted is committed and published first.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use auditlog::{
    anchor::Anchor,
    checkpoint::{Head, Notary, sign_empty},
    directory::Directory,
    note::VerifierKey,
    port::{LogFiles, NoteSigner},
    publish::Publisher,
    recover::{Recovered, recover},
    tile::CHECKPOINT_PATH,
};
use authority::ports::Clock;
use rusqlite::Connection;

use crate::{
    archive::Pool,
    batch::{Position, Rows, read_position, write_position},
    chain::{Chain, is_node_name},
    connection::{claim, migrate, open_reader, open_writer},
    desk::Desk,
    error::Error,
    index::open_index,
    keeper,
    publisher::Background,
    shared::{Place, Shared},
    writer::{Job, Start, Writer},
};

/// Most writes that wait for the writer before more are refused.
const QUEUE_MAX: usize = 8192;

/// Where a store lives.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The directory of database, log and index; made if missing. It holds `writ.db`, `index.db`, `log/`, `lock`.
    pub data_dir: PathBuf,
    /// The anchor file. Best on another volume than the data, and never in the backup that holds the database.
    pub anchor: PathBuf,
    /// Longest time between a commit and its published checkpoint, when nothing is wrong; 250 ms is good.
    pub publish_every: Duration,
}

/// Who signs what.
pub struct Keys {
    /// Signs checkpoints; its name is the log's origin.
    pub log: Box<dyn NoteSigner>,
    /// Signs this node's batches; its name is the node's, made of letters, digits, `.`, `-`, `_`, `/`.
    pub node: Box<dyn NoteSigner>,
}

/// An open store: the ledger, the archive and the published log of one node. Cloning shares it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    queue: SyncSender<Job>,
    desk: Arc<Desk>,
    pool: Arc<Pool>,
    threads: Mutex<Option<Threads>>,
}

struct Threads {
    writer: JoinHandle<()>,
    publisher: JoinHandle<()>,
    stop_publisher: SyncSender<()>,
}

impl Store {
    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    pub(crate) fn shared_owned(&self) -> Arc<Shared> {
        Arc::clone(&self.0.shared)
    }

    pub(crate) fn queue(&self) -> &SyncSender<Job> {
        &self.0.queue
    }

    pub(crate) fn desk(&self) -> &Desk {
        &self.0.desk
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.0.pool
    }

    /// Why the ledger cannot be written at present; `None` if it can. For readiness checks.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.0.shared.fault()
    }

    /// Whether what is committed cannot be published at present. Nothing is lost meanwhile, and it is tried again several
    /// times a second; but nobody can verify it, and past a bound writes are refused. For readiness checks.
    #[must_use]
    pub fn unpublishable(&self) -> bool {
        self.0.shared.unpublishable()
    }

    /// The key that verifies the log's checkpoints.
    #[must_use]
    pub fn log_key(&self) -> &VerifierKey {
        &self.0.shared.log_key
    }

    /// Commits what waits, publishes what was committed, and stops. Blocks; later writes are refused. A store that is
    /// dropped without this loses nothing either: the next start publishes the rest.
    pub fn close(&self) {
        let threads = self.0.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(threads) = threads else { return };
        // What was posted must be committed before the publisher's last round, and that round needs the writer.
        let (flushed, flush) = sync_channel(1);
        let _ = self.0.queue.send(Job::Flush(flushed)).map(|()| flush.recv());
        let _ = threads.stop_publisher.send(());
        let stopped = threads.publisher.join().is_ok();
        let _ = self.0.queue.send(Job::Stop);
        let stopped = threads.writer.join().is_ok() && stopped;
        if !stopped {
            tracing::error!("a thread of the store did not end well");
        }
    }
}

/// Whether a data folder holds a store already.
#[must_use]
pub fn is_in_use(data_dir: &Path) -> bool {
    data_dir.join("writ.db").exists()
}

/// Opens the store of this node, creating it if there is none.
///
/// # Errors
/// [`Error`] says what is wrong and what to do. A database that is older than what was signed before, an edited
/// batch, a missing or changed file of the log's edge, a missing anchor: all are refused.
pub fn open(config: StoreConfig, keys: Keys, clock: Arc<dyn Clock>) -> Result<Store, Error> {
    if !is_node_name(keys.node.verifier().name()) {
        return Err(Error::Log(auditlog::Error::KeyMalformed { why: "a node name holds letters, digits, `.-_/` only" }));
    }
    let claim = claim(&config.data_dir)?;
    let log_key = keys.log.verifier().clone();
    let node_key = keys.node.verifier().clone();
    let place = Place { data_dir: config.data_dir.clone(), clock, log_key, node_key };
    let Opened { connection, recovered, chain, anchor } = bring_together(&config, &keys, &place)?;

    let Recovered { edge, frontier, tail, newest } = recovered;
    let published = edge.size();
    let notary = Notary::new(keys.log, anchor, newest);
    let shared = Arc::new(Shared::new(place, tail, notary, published));
    let (queue, jobs) = sync_channel(QUEUE_MAX);
    let start = Start { connection, node_signer: keys.node, frontier, chain };
    let desk = Arc::new(Desk::new(Writer::new(Arc::clone(&shared), start)?));
    let writing = Arc::clone(&desk);
    let (stop_publisher, stop) = sync_channel(1);
    let background = Background {
        publisher: Publisher::new(edge),
        reader: open_reader(&shared.database())?,
        index: open_index(&shared.index())?,
        writer: queue.clone(),
        every: config.publish_every,
        stop,
        shared: Arc::clone(&shared),
    };
    let watched = Died(Arc::clone(&shared));
    let anchoring = Arc::clone(&shared);
    let keeper = spawn("writ-anchor", move || keeper::run(&anchoring))?;
    let work = move || {
        let Died(shared) = &watched;
        writing.run(&jobs, shared);
        shared.keeper.stop();
        if keeper.join().is_err() {
            tracing::error!("the thread that anchors checkpoints did not end well");
        }
        // The writer is the last to touch the files; only now may another process have them. Unlocked by name and not
        // by dropping, because a child process that is just being started holds a copy of the file for a moment.
        if let Err(error) = File::unlock(&claim) {
            tracing::warn!(%error, "the data directory could not be given up");
        }
    };
    let threads = Threads {
        writer: spawn("writ-ledger", work)?,
        publisher: spawn("writ-publisher", move || background.run())?,
        stop_publisher,
    };
    let pool = Arc::new(Pool::new(Arc::clone(&shared)));
    Ok(Store(Arc::new(Inner { shared, queue, desk, pool, threads: Mutex::new(Some(threads)) })))
}

/// Notices that the writer died of a bug: from then on nothing is durable any more, and nobody must believe it is.
struct Died(Arc<Shared>);

impl Drop for Died {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the writer of the ledger broke down; nothing is accepted until a restart");
            self.0.set_fault(Some("its writer broke down; restart Writ".to_owned()));
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(Error::Thread)
}

struct Opened {
    connection: Connection,
    recovered: Recovered,
    chain: Chain,
    anchor: Anchor,
}

/// Database, files and anchor must tell one story.
fn bring_together(config: &StoreConfig, keys: &Keys, place: &Place) -> Result<Opened, Error> {
    let mut connection = open_writer(&config.data_dir.join("writ.db"))?;
    migrate(&mut connection)?;
    let position = read_position(&connection)?;
    let (anchor, anchored) = open_anchor(&config.anchor, keys, position.is_none())?;

    let files = Directory::new(config.data_dir.join("log"));
    let recorded = position.as_ref().and_then(|position| position.checkpoint.clone());
    let mut rows = Rows { db: &connection, node_key: &place.node_key };
    let recovered = recover(&files, &mut rows, &place.log_key, recorded.as_deref(), anchored)?;
    if files.read(CHECKPOINT_PATH)?.is_none() {
        // A log that nothing was written to yet: readers find the empty tree rather than nothing.
        files.replace_checkpoint(&sign_empty(keys.log.as_ref())?)?;
    }
    let head = Head { size: recovered.frontier.size(), root: recovered.frontier.root() };
    let chain = next_epoch(position, head)?;
    // Crash here: recovered, and the next start finds what this one found, or better.
    tracing::trace!(target: "writ::step", at = "start.recovered");
    write_position(&connection, head, &chain)?;
    // Crash after this: an epoch without entries, which is true.
    tracing::trace!(target: "writ::step", at = "start.positioned");
    Ok(Opened { connection, recovered, chain, anchor })
}

fn open_anchor(path: &Path, keys: &Keys, unused: bool) -> Result<(Anchor, Head), Error> {
    match Anchor::open(path, keys.log.verifier())? {
        Some(found) => Ok(found),
        // Crash after this, before the database is used: the next start finds an anchor of the empty tree.
        None if unused => Ok((Anchor::create(path, &sign_empty(keys.log.as_ref())?)?, Head::empty())),
        None => Err(Error::AnchorMissing { path: path.to_owned() }),
    }
}

/// The chain of this start. The position is written with every batch, so it must agree with what they give.
fn next_epoch(position: Option<Position>, head: Head) -> Result<Chain, Error> {
    match position {
        None if head == Head::empty() => Ok(Chain::START),
        Some(position) if position.head == head => Ok(Chain { epoch: position.chain.epoch.saturating_add(1), ..position.chain }),
        _ => Err(Error::Damaged { what: "where the log stands differs from its entries" }),
    }
}
