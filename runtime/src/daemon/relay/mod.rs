//! Relays: IPv6 clients of containers that have IPv4 alone. The only words that go through the daemon, and the only
//! conversations that end with it.

mod tcp;
mod udp;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddrV6};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use runtime_common::maps::Limit;
use runtime_common::{Protocol, Verdict};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::ports::descriptors;
use crate::model::Publication;
use crate::model::filter::Filter;
use crate::reconcile::{self, Relay, RelayKey};

/// Conversations at once, over all relays: connections, and as many clients over UDP.
const CONVERSATIONS: usize = 1024;
/// Descriptors of so many conversations.
const FOR_CONVERSATIONS: usize = 3 * CONVERSATIONS;
/// The first and the longest pause before a port that somebody has is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a port that the engine should have must be free to be taken.
const PATIENCE: Duration = Duration::from_secs(1);

/// The relays at work.
pub struct Relays {
    running: BTreeMap<RelayKey, Running>,
    /// What was wanted last.
    wanted: reconcile::Relays,
    /// Those that do not run yet, or have no descriptor.
    waiting: BTreeSet<RelayKey>,
    shared: Arc<Shared>,
}

struct Running {
    relay: Relay,
    listens: Arc<AtomicBool>,
    /// One task, which ends when this is dropped.
    task: JoinSet<()>,
}

/// What all relays have together.
struct Shared {
    connections: Arc<Semaphore>,
    clients: Arc<Semaphore>,
    filtered: AtomicU64,
    rate_limited: AtomicU64,
    crowded_out: AtomicU64,
}

impl Default for Relays {
    fn default() -> Self {
        let shared = Shared {
            connections: Arc::new(Semaphore::new(CONVERSATIONS)),
            clients: Arc::new(Semaphore::new(CONVERSATIONS)),
            filtered: AtomicU64::new(0),
            rate_limited: AtomicU64::new(0),
            crowded_out: AtomicU64::new(0),
        };
        Relays {
            running: BTreeMap::new(),
            wanted: reconcile::Relays::default(),
            waiting: BTreeSet::new(),
            shared: Arc::new(shared),
        }
    }
}

impl Relays {
    /// What is to run from now on. Ends the others, with their conversations: their ports are free afterwards.
    pub async fn want(&mut self, wanted: &reconcile::Relays) {
        let mut over = Vec::new();
        for (key, _) in self.wanted.changed_from(wanted).chain(wanted.changed_from(&self.wanted)) {
            let other = wanted.get(key);
            if self.running.get(key).is_some_and(|r| other != Some(&r.relay)) {
                over.extend(self.running.remove(key));
            }
            // It may be another container's now, which had to stand back.
            match other {
                Some(_) if !self.running.contains_key(key) => self.waiting.insert(*key),
                _ => self.waiting.remove(key),
            };
        }
        self.wanted = wanted.clone();
        for relay in &mut over {
            relay.task.abort_all();
        }
        for mut relay in over {
            while relay.task.join_next().await.is_some() {}
        }
    }

    /// Starts what is wanted and does not run. They take their ports by themselves, as soon as these can be had. `others`: descriptors
    /// that are in use elsewhere.
    pub fn start(&mut self, others: usize) {
        let room = descriptors().saturating_sub(others + FOR_CONVERSATIONS);
        while self.running.len() < room
            && let Some(key) = self.waiting.pop_first()
        {
            let Some(relay) = self.wanted.get(&key).cloned() else { continue };
            let listens = Arc::new(AtomicBool::new(false));
            let mut task = JoinSet::new();
            task.spawn(run(key, relay.clone(), self.shared.clone(), listens.clone()));
            self.running.insert(key, Running { relay, listens, task });
        }
    }

    /// Descriptors that the relays have, or may come to need.
    pub fn descriptors(&self) -> usize {
        if self.running.is_empty() { 0 } else { self.running.len() + FOR_CONVERSATIONS }
    }

    /// Whether a publication's port is held by a relay.
    pub fn holds(&self, publication: &Publication) -> bool {
        let running = RelayKey::of(publication).and_then(|key| self.running.get(&key));
        running.is_some_and(|r| r.listens.load(Relaxed))
    }

    /// Conversations that were refused for a reason which the datapath has too.
    pub fn refused(&self, verdict: Verdict) -> u64 {
        match verdict {
            Verdict::Filtered => self.shared.filtered.load(Relaxed),
            Verdict::RateLimited => self.shared.rate_limited.load(Relaxed),
            _ => 0,
        }
    }

    /// What people should know, a line each.
    pub fn problems(&self) -> Vec<String> {
        const REMEDY: &str = "give these containers IPv6 addresses";
        let mut problems = Vec::new();
        let lost = self.shared.crowded_out.load(Relaxed);
        if lost > 0 {
            problems.push(format!(
                "{lost} conversations of IPv6 clients with containers that have IPv4 alone were refused, for {CONVERSATIONS} \
                 at once are relayed: {REMEDY}"
            ));
        }
        if !self.waiting.is_empty() {
            problems.push(format!(
                "{} published ports of containers that have IPv4 alone are not relayed to IPv6 clients, for no descriptors \
                 are left: {REMEDY}, or let the daemon open more files",
                self.waiting.len()
            ));
        }
        problems
    }
}

/// Serves one publication until it is aborted.
async fn run(key: RelayKey, relay: Relay, shared: Arc<Shared>, listens: Arc<AtomicBool>) {
    let at = SocketAddrV6::new(key.address, key.port, 0, 0);
    let room = if key.protocol == Protocol::Udp { shared.clients.clone() } else { shared.connections.clone() };
    let gate = Gate::new(relay.filter, room, shared);
    if key.protocol == Protocol::Udp {
        let socket = take(relay.patient, || udp::listen(at)).await;
        listens.store(true, Relaxed);
        udp::serve(socket, relay.to, &gate).await;
    } else {
        let listener = take(relay.patient, || tcp::listen(at)).await;
        listens.store(true, Relaxed);
        tcp::serve(listener, relay.to, &gate).await;
    }
}

/// Takes a port as soon as nobody else has it. Whoever has it serves it, as docker-proxy does, or wants it for something else.
async fn take<S>(patient: bool, listen: impl Fn() -> io::Result<S>) -> S {
    let mut pause = FIRST_PAUSE;
    let mut was_free = false;
    loop {
        match listen() {
            Ok(socket) if was_free || !patient => return socket,
            Ok(_) => {
                was_free = true;
                sleep(PATIENCE).await;
            }
            Err(_) => {
                was_free = false;
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Who may begin a conversation.
struct Gate {
    filter: Filter,
    limit: Option<Mutex<Limit>>,
    since: Instant,
    room: Arc<Semaphore>,
    shared: Arc<Shared>,
}

impl Gate {
    fn new(filter: Filter, room: Arc<Semaphore>, shared: Arc<Shared>) -> Self {
        let limit = filter.max_rate.map(|rate| Mutex::new(Limit::full(rate)));
        Gate { filter, limit, since: Instant::now(), room, shared }
    }

    /// Lets a client in that has come to the host's address `to`, as long as what is returned is kept.
    fn admit(&self, client: IpAddr, to: IpAddr) -> Option<OwnedSemaphorePermit> {
        // The host itself reaches every container anyway.
        let outside = !client.is_loopback() && client != to;
        if outside && !self.filter.permits(client) {
            self.shared.filtered.fetch_add(1, Relaxed);
            return None;
        }
        if let Some(limit) = self.limit.as_ref().filter(|_| outside) {
            let now = self.since.elapsed().as_nanos() as u64;
            if !limit.lock().unwrap_or_else(PoisonError::into_inner).take(now) {
                self.shared.rate_limited.fetch_add(1, Relaxed);
                return None;
            }
        }
        let room = self.room.clone().try_acquire_owned().ok();
        if room.is_none() {
            self.shared.crowded_out.fetch_add(1, Relaxed);
        }
        room
    }
}
