//! What conversations belong to: which relay a packet was for, who may begin, and when it is over.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use runtime_common::Protocol;
use runtime_common::maps::Limit;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::CONVERSATIONS;
use crate::model::filter::Filter;
use crate::reconcile::{self, Relay, RelayKey};

/// What both sockets serve, and what has been refused.
pub(super) struct Shared {
    relays: Mutex<Table>,
    connections: Arc<Semaphore>,
    clients: Arc<Semaphore>,
    pub filtered: AtomicU64,
    pub rate_limited: AtomicU64,
    pub crowded_out: AtomicU64,
}

#[derive(Default)]
struct Table {
    wanted: reconcile::Relays,
    /// Those that anybody has spoken to.
    used: HashMap<RelayKey, Arc<Serving>>,
}

/// A relay that somebody has spoken to.
pub(super) struct Serving {
    relay: Relay,
    limit: Option<Mutex<Limit>>,
    since: Instant,
    /// Its conversations end with it.
    pub over: CancellationToken,
}

impl Serving {
    fn new(relay: Relay) -> Self {
        let limit = relay.filter.max_rate.map(|rate| Mutex::new(Limit::full(rate)));
        Serving { relay, limit, since: Instant::now(), over: CancellationToken::new() }
    }

    /// The container's address and port.
    pub fn to(&self) -> SocketAddrV4 {
        self.relay.to
    }

    fn filter(&self) -> &Filter {
        &self.relay.filter
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.over.cancel();
    }
}

impl Default for Shared {
    fn default() -> Self {
        Shared {
            relays: Mutex::default(),
            connections: Arc::new(Semaphore::new(CONVERSATIONS)),
            clients: Arc::new(Semaphore::new(CONVERSATIONS)),
            filtered: AtomicU64::new(0),
            rate_limited: AtomicU64::new(0),
            crowded_out: AtomicU64::new(0),
        }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.relays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is served from now on; ends the conversations of what has changed, and returns all that may have.
    pub fn want(&self, wanted: &reconcile::Relays) -> BTreeSet<RelayKey> {
        let mut table = self.table();
        let table = &mut *table;
        let changed = table.wanted.changed_from(wanted).chain(wanted.changed_from(&table.wanted));
        let changed: BTreeSet<RelayKey> = changed.map(|(key, _)| *key).collect();
        for key in &changed {
            if table.used.get(key).is_some_and(|used| wanted.get(key) != Some(&used.relay))
                && let Some(over) = table.used.remove(key)
            {
                over.over.cancel();
            }
        }
        table.wanted = wanted.clone();
        changed
    }

    /// Whether a port is to be relayed.
    pub fn relays(&self, key: &RelayKey) -> bool {
        self.table().wanted.get(key).is_some()
    }

    /// The relay of what came for one of the host's addresses and ports: as the kernel side finds it.
    pub fn find(&self, protocol: Protocol, to: SocketAddrV6) -> Option<Arc<Serving>> {
        let mut table = self.table();
        let table = &mut *table;
        [*to.ip(), Ipv6Addr::UNSPECIFIED].into_iter().find_map(|address| {
            let key = RelayKey { protocol, address, port: to.port() };
            let relay = table.wanted.get(&key)?;
            Some(table.used.entry(key).or_insert_with(|| Arc::new(Serving::new(relay.clone()))).clone())
        })
    }

    /// Lets a client in that has come to the host's address `to`, as long as what is returned is kept.
    pub fn admit(
        &self,
        serving: &Serving,
        protocol: Protocol,
        client: IpAddr,
        to: IpAddr,
    ) -> Option<OwnedSemaphorePermit> {
        // The host itself reaches every container anyway.
        let outside = !client.is_loopback() && client != to;
        if outside && !serving.filter().permits(client) {
            self.filtered.fetch_add(1, Relaxed);
            return None;
        }
        if let Some(limit) = serving.limit.as_ref().filter(|_| outside) {
            let now = serving.since.elapsed().as_nanos() as u64;
            if !limit.lock().unwrap_or_else(PoisonError::into_inner).take(now) {
                self.rate_limited.fetch_add(1, Relaxed);
                return None;
            }
        }
        let room = if protocol == Protocol::Udp { &self.clients } else { &self.connections };
        let room = room.clone().try_acquire_owned().ok();
        if room.is_none() {
            self.crowded_out.fetch_add(1, Relaxed);
        }
        room
    }
}
