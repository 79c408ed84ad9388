//! All connections to upstreams: made, found again, bounded, and closed when their task ends. Knows who may share what:
//! tasks share an upstream's catalog and TCP connections, never a session, a child or an answer (R20).

use super::catalog::{self, Catalog, ToolStatus};
use super::connection::Connection;
use super::era::Eras;
use super::error::UpstreamError;
use super::http::{Endpoint, HttpClient};
use super::hub::Hub;
use super::inbox;
use super::link::Link;
use super::profile::{ClientProfile, SessionKey};
use super::registry::Registry;
use crate::mcp::version::{Era, Version};
use crate::room::{Room, Rooms};
use crate::slots::Slots;
use domain::{EndReason, TaskId, Transport, Upstream, UpstreamName};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

/// Most requests that one upstream may have under way: a slow one must not hold everything that others need.
const REQUESTS_MAX: usize = 4_096;
/// Most connections of one task, and of all.
const CONNECTIONS_PER_TASK_MAX: usize = 64;
const CONNECTIONS_MAX: usize = 50_000;
/// Most child processes, of one task and of all: each is a whole program.
const CHILDREN_PER_TASK_MAX: usize = 8;
const CHILDREN_MAX: usize = 512;
/// A connection that nobody holds is closed after this time.
const IDLE: Duration = Duration::from_secs(600);
/// How often that is looked for.
const SWEEP: Duration = Duration::from_secs(30);
/// How often changes of the registered upstreams are looked for. Requests look by themselves; this is for what is under way.
const LOOK: Duration = Duration::from_secs(1);
/// How long the end of all sessions and children may take when the gateway stops.
const FAREWELLS: Duration = Duration::from_secs(6);

/// What an operator may set for all upstreams.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Hosts besides loopback that may be spoken to without TLS.
    pub plain_http_hosts: Vec<String>,
    /// Certificates (DER) that one upstream is trusted by, besides the public roots.
    pub extra_roots: HashMap<UpstreamName, Vec<Vec<u8>>>,
    /// Gives the `traceparent` of the span that is current (W3C Trace Context), if requests are traced: upstreams then see
    /// ours in place of the client's.
    pub traceparent: Option<fn() -> Option<String>>,
}

/// One upstream, for operators.
#[derive(Debug, Clone)]
pub struct UpstreamStatus {
    /// Its name.
    pub name: UpstreamName,
    /// Whether it answered when it was last spoken to; `None` if it was not yet.
    pub reachable: Option<bool>,
    /// What went wrong, if something did.
    pub fault: Option<String>,
    /// What it is known to speak: `sessions`, `stateless` or `both`.
    pub era: Option<&'static str>,
    /// Open connections.
    pub connections: usize,
    /// The tools of its last listing.
    pub tools: Vec<ToolStatus>,
}

/// Which connection of a task: one for each session of a client; stateless clients that say the same of themselves share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    upstream: UpstreamName,
    session: Option<SessionKey>,
    client: u64,
}

/// What a connection counts against.
pub(super) enum Place {
    /// One of all connections.
    Connection(#[expect(dead_code, reason = "held, so that it is taken")] OwnedSemaphorePermit),
    /// Each process that it starts takes one of these.
    Children(Arc<Slots>),
    /// Nothing: it is an operator's.
    Free,
}

struct Held {
    link: Arc<Link>,
    used: Instant,
}

#[derive(Default)]
struct Table {
    hubs: HashMap<UpstreamName, Arc<Hub>>,
    links: HashMap<TaskId, HashMap<Key, Held>>,
}

struct Pool {
    registry: Arc<dyn Registry>,
    settings: Settings,
    client: HttpClient,
    /// Of upstreams that have roots of their own: a root of one upstream vouches for no other.
    clients: HashMap<UpstreamName, HttpClient>,
    table: Mutex<Table>,
    /// Places for connections over HTTP, and for child processes.
    connections: Arc<Semaphore>,
    children: Arc<Slots>,
    /// For the requests and answers of tasks.
    rooms: Rooms,
    farewells: TaskTracker,
}

/// All connections to upstreams; cheap to clone.
#[derive(Clone)]
pub struct Upstreams(Arc<Pool>);

impl std::fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstreams").finish_non_exhaustive()
    }
}

impl Upstreams {
    /// No connections yet. Must be called within a Tokio runtime: it watches for ended tasks from now on.
    ///
    /// # Errors
    /// If the extra roots are not certificates.
    pub fn new(registry: Arc<dyn Registry>, settings: Settings) -> Result<Self, UpstreamError> {
        let client = HttpClient::new(&[])?;
        let own = settings.extra_roots.iter().map(|(name, roots)| Ok((name.clone(), HttpClient::new(roots)?)));
        let clients = own.collect::<Result<_, UpstreamError>>()?;
        let ends = registry.ends();
        let pool = Arc::new(Pool {
            registry,
            settings,
            client,
            clients,
            table: Mutex::default(),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            children: Arc::new(Slots::new(CHILDREN_MAX, CHILDREN_PER_TASK_MAX)),
            rooms: Rooms::default(),
            farewells: TaskTracker::new(),
        });
        tokio::spawn(watch(Arc::downgrade(&pool), ends));
        tokio::spawn(sweep(Arc::downgrade(&pool)));
        Ok(Self(pool))
    }

    /// The connection of one task (and one client session of it) to one upstream: the one that exists, or a new one.
    /// Never shared between tasks (R20). Speaks to nobody yet.
    ///
    /// # Errors
    /// Why there can be none.
    #[expect(clippy::unused_async, reason = "a connection that must wait for room will")]
    pub async fn connect(
        &self,
        upstream: &UpstreamName,
        task: TaskId,
        client: &ClientProfile,
    ) -> Result<Connection, UpstreamError> {
        let pool = &self.0;
        let registered = pool.registry.upstream(upstream).ok_or(UpstreamError::Unknown)?;
        let key = Key { upstream: upstream.clone(), session: client.session.clone(), client: fingerprint(client) };
        let link = {
            let mut table = pool.table();
            let hub = pool.hub(&mut table, &registered)?;
            let found = table.links.get_mut(&task).and_then(|links| links.get_mut(&key));
            match found.filter(|held| !held.link.is_closed() && Arc::ptr_eq(&held.link.hub, &hub)) {
                Some(held) => {
                    held.used = Instant::now();
                    return Ok(Connection::new(Arc::clone(&held.link)));
                }
                None => {
                    let is_child = hub.endpoint.is_none();
                    table.make_room(task, is_child)?;
                    let place = match is_child {
                        // Each process takes one of its own, until it has ended.
                        true => Place::Children(Arc::clone(&pool.children)),
                        false => {
                            let place = Arc::clone(&pool.connections).try_acquire_owned();
                            Place::Connection(place.map_err(|_| UpstreamError::Busy(connections_of(is_child)))?)
                        }
                    };
                    let link = Arc::new(Link::new(hub, task, client.clone(), pool.rooms.of(task), place));
                    let held = Held { link: Arc::clone(&link), used: Instant::now() };
                    if let Some(old) = table.links.entry(task).or_default().insert(key, held) {
                        old.link.shut();
                    }
                    link
                }
            }
        };
        // The task may have ended before the table knew of the connection: then nobody else would close it.
        if let Some(reason) = pool.registry.ended(task) {
            pool.end_task(task);
            return Err(UpstreamError::TaskEnded(reason));
        }
        Ok(Connection::new(link))
    }

    /// The live tool definitions of an upstream, for an operator: outside any task, with a connection of its own.
    ///
    /// # Errors
    /// Why they could not be listed.
    pub async fn survey(&self, upstream: &UpstreamName) -> Result<Vec<Value>, UpstreamError> {
        let pool = &self.0;
        let registered = pool.registry.upstream(upstream).ok_or(UpstreamError::Unknown)?;
        let hub = pool.hub(&mut pool.table(), &registered)?;
        // Some tools are offered only to clients that can do these things; an operator shall see them, too.
        let capabilities = json!({ "elicitation": { "form": {}, "url": {} }, "sampling": {}, "roots": {} });
        let client = ClientProfile { era: Era::Modern(Version::NEWEST_MODERN), capabilities, session: None };
        // No task has this identifier, so no task can meet this connection.
        let nobody = TaskId::from_bytes([0; 16]);
        let link = Arc::new(Link::new(hub, nobody, client, pool.rooms.of(nobody), Place::Free));
        let listed = catalog::list(&link).await;
        link.shut();
        let listed = listed?;
        link.hub.catalog.take(&listed);
        Ok(listed.iter().filter_map(|text| crate::mcp::message::strict_value(text).ok()).collect())
    }

    /// The room for the requests and answers of a task.
    pub(crate) fn room(&self, task: TaskId) -> Room {
        self.0.rooms.of(task)
    }

    /// How every upstream that was spoken to stands.
    #[must_use]
    pub fn status(&self) -> Vec<UpstreamStatus> {
        let table = self.0.table();
        let mut all: Vec<_> = table
            .hubs
            .values()
            .map(|hub| {
                let connections =
                    table.links.values().flat_map(HashMap::values).filter(|held| Arc::ptr_eq(&held.link.hub, hub)).count();
                let (reachable, fault) = hub.health();
                let (name, era) = (hub.upstream.name.clone(), hub.eras.describe());
                UpstreamStatus { name, reachable, fault, era, connections, tools: hub.catalog.status() }
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Closes everything, and waits a while until sessions have ended and no child is left.
    pub async fn close(&self) {
        let links = std::mem::take(&mut self.0.table().links);
        for held in links.into_values().flat_map(HashMap::into_values) {
            held.link.shut();
        }
        self.0.farewells.close();
        if timeout(FAREWELLS, self.0.farewells.wait()).await.is_err() {
            tracing::warn!("some sessions of upstreams could not be ended in time");
        }
    }
}

impl Pool {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What all connections to this upstream share; anew if it was registered differently since.
    fn hub(&self, table: &mut Table, upstream: &Arc<Upstream>) -> Result<Arc<Hub>, UpstreamError> {
        if let Some(hub) = table.hubs.get(&upstream.name)
            && (Arc::ptr_eq(&hub.upstream, upstream) || hub.upstream == *upstream)
        {
            return Ok(Arc::clone(hub));
        }
        let endpoint = match upstream.transport {
            Transport::Http { .. } => {
                let client = self.clients.get(&upstream.name).unwrap_or(&self.client);
                Some(Endpoint::new(client.clone(), upstream, &self.settings)?)
            }
            Transport::Stdio { .. } => None,
        };
        let hub = Arc::new(Hub {
            upstream: Arc::clone(upstream),
            endpoint,
            traceparent: self.settings.traceparent,
            eras: Eras::default(),
            catalog: Catalog::new(upstream.name.clone(), Arc::clone(&self.registry)),
            places: Arc::new(Semaphore::new(REQUESTS_MAX)),
            room: Room::new(inbox::OF_UPSTREAM),
            registry: Arc::clone(&self.registry),
            fault: Mutex::default(),
            farewells: self.farewells.clone(),
        });
        if let Some(old) = table.hubs.insert(upstream.name.clone(), Arc::clone(&hub)) {
            let links = table.links.values().flat_map(HashMap::values);
            for held in links.filter(|held| Arc::ptr_eq(&held.link.hub, &old)) {
                held.link.shut();
            }
        }
        Ok(hub)
    }

    fn end_task(&self, task: TaskId) {
        let links = self.table().links.remove(&task);
        for held in links.into_iter().flat_map(HashMap::into_values) {
            held.link.shut();
        }
    }

    fn end_if(&self, over: impl Fn(TaskId) -> Option<EndReason>) {
        let tasks: Vec<TaskId> = self.table().links.keys().copied().collect();
        for task in tasks {
            if over(task).is_some() {
                self.end_task(task);
            }
        }
    }

    /// Whether any upstream is no longer registered as it was.
    fn has_changed(&self) -> bool {
        self.table().hubs.values().any(|hub| !hub.is_current())
    }

    /// Forgets upstreams that were removed or registered differently, with all that goes on there.
    fn drop_changed(&self) {
        let mut table = self.table();
        table.hubs.retain(|_, hub| hub.is_current());
        let mut gone = Vec::new();
        table.links.retain(|_, links| {
            gone.extend(links.extract_if(|_, held| !held.link.hub.is_current()).map(|(_, held)| held.link));
            !links.is_empty()
        });
        drop(table);
        for link in gone {
            link.shut();
        }
    }

    fn drop_idle(&self) {
        let mut idle = Vec::new();
        self.table().links.retain(|_, links| {
            let gone = links.extract_if(|_, held| held.link.is_closed() || (held.link.is_idle() && held.used.elapsed() > IDLE));
            idle.extend(gone.map(|(_, held)| held.link));
            !links.is_empty()
        });
        for link in idle {
            link.shut();
        }
    }
}

impl Table {
    /// Makes sure that one more connection of this task is not one too many. A connection that nobody holds gives way.
    fn make_room(&mut self, task: TaskId, is_child: bool) -> Result<(), UpstreamError> {
        let max = if is_child { CHILDREN_PER_TASK_MAX } else { CONNECTIONS_PER_TASK_MAX };
        let Some(links) = self.links.get_mut(&task) else { return Ok(()) };
        let counts = |held: &Held| !is_child || held.link.hub.endpoint.is_none();
        if links.values().filter(|held| counts(held)).count() < max {
            return Ok(());
        }
        let idle = links.iter().filter(|(_, held)| counts(held) && held.link.is_idle());
        let oldest = idle.min_by_key(|(_, held)| held.used).map(|(key, _)| key.clone());
        let gone = oldest.and_then(|key| links.remove(&key));
        gone.map(|held| held.link.shut()).ok_or(UpstreamError::Busy(connections_of(is_child)))
    }
}

fn connections_of(is_child: bool) -> &'static str {
    if is_child { "programs" } else { "connections" }
}

/// What distinguishes stateless clients: an upstream with sessions is told their capabilities once.
fn fingerprint(client: &ClientProfile) -> u64 {
    if client.session.is_some() {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    (client.era, &client.capabilities).hash(&mut hasher);
    hasher.finish()
}

/// Closes what belongs to a task the moment that it ends.
async fn watch(pool: Weak<Pool>, mut ends: broadcast::Receiver<(TaskId, EndReason)>) {
    loop {
        let end = ends.recv().await;
        let Some(pool) = pool.upgrade() else { return };
        match end {
            Ok((task, _)) => pool.end_task(task),
            // Some ends were missed: look at every task.
            Err(broadcast::error::RecvError::Lagged(_)) => pool.end_if(|task| pool.registry.ended(task)),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Closes what nobody needs, and what goes to where an upstream is no longer.
async fn sweep(pool: Weak<Pool>) {
    let mut swept = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(pool) = pool.upgrade() else { return };
        if pool.has_changed() {
            pool.drop_changed();
        }
        if swept.elapsed() >= SWEEP {
            swept = Instant::now();
            pool.drop_idle();
        }
    }
}
