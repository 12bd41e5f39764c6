//! Relays: IPv6 clients of containers that have IPv4 alone. The only words that go through the daemon, and the only
//! conversations that end with it.
//!
//! Nothing is bound to the relayed ports: the kernel side leads what comes for them to two sockets of the daemon's, which know
//! by the packets what they were for. So the engine, or anybody else, can bind them at any time; who listens there serves.

mod conversation;
mod tcp;
mod udp;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use runtime_common::maps::PublicationKey;
use runtime_common::{Protocol, Verdict};
use tokio::task::JoinSet;

use crate::datapath::{Datapath, DatapathError, RelaySockets};
use crate::host::{Listener, listeners};
use crate::model::Publication;
use crate::reconcile::{self, RelayKey};
use conversation::Shared;

/// Conversations at once, over all relays: connections, and as many clients over UDP.
const CONVERSATIONS: usize = 1024;
/// Descriptors of so many conversations.
const FOR_CONVERSATIONS: usize = 3 * CONVERSATIONS;
/// How many ports are tried for the daemon's own sockets.
const OWN_PORTS: u16 = 64;

/// The relays at work.
#[derive(Default)]
pub struct Relays {
    /// The addresses that are to be relayed, by port.
    ports: BTreeMap<(Protocol, u16), BTreeSet<Ipv6Addr>>,
    /// Who listens on the host's ports.
    others: BTreeSet<Listener>,
    /// Has both sockets; none while nothing is to be relayed.
    serving: Option<JoinSet<()>>,
    /// Whether the kernel side has been asked what a predecessor relayed.
    adopted: bool,
    shared: Arc<Shared>,
    /// Why not all that is wanted is relayed.
    trouble: Option<String>,
}

impl Relays {
    /// What is to run from now on; conversations of what is not, or has changed, end. `held`: the ports that the daemon itself
    /// holds.
    pub fn want(&mut self, wanted: &reconcile::Relays, datapath: &mut Datapath, held: impl Fn(Protocol, u16) -> bool) {
        let mut changed: BTreeSet<RelayKey> = self.shared.want(wanted);
        if !std::mem::replace(&mut self.adopted, true) {
            changed.extend(datapath.relayed().filter_map(key_of));
        }
        if changed.is_empty() && self.trouble.is_none() {
            return;
        }
        for key in &changed {
            let of_port = self.ports.entry((key.protocol, key.port)).or_default();
            match self.shared.relays(key) {
                true => of_port.insert(key.address),
                false => of_port.remove(&key.address),
            };
            if of_port.is_empty() {
                self.ports.remove(&(key.protocol, key.port));
            }
        }
        self.trouble = None;
        if let Err(e) = self.serve(datapath) {
            self.trouble = Some(e);
            changed.extend(self.all());
        }
        changed.extend(self.take_in(listeners().unwrap_or_default(), held));
        self.lead(datapath, changed);
    }

    /// Whether it matters who listens on the host's ports.
    pub fn is_needed(&self) -> bool {
        !self.ports.is_empty()
    }

    /// Stands back where somebody listens, and takes over where nobody does any longer.
    pub fn heed(&mut self, found: BTreeSet<Listener>, datapath: &mut Datapath, held: impl Fn(Protocol, u16) -> bool) {
        let changed = self.take_in(found, held);
        if !changed.is_empty() {
            self.lead(datapath, changed);
        }
    }

    /// What may have to change for those that listen now.
    fn take_in(&mut self, mut found: BTreeSet<Listener>, held: impl Fn(Protocol, u16) -> bool) -> BTreeSet<RelayKey> {
        // The daemon's own sockets hear nothing.
        found.retain(|(protocol, port, _)| !(*protocol == Protocol::Udp && held(*protocol, *port)));
        let ports: BTreeSet<_> = self.others.symmetric_difference(&found).map(|(p, port, _)| (*p, *port)).collect();
        self.others = found;
        ports.iter().flat_map(|at| self.keys(at)).collect()
    }

    fn keys(&self, at: &(Protocol, u16)) -> impl Iterator<Item = RelayKey> + use<'_> {
        let (protocol, port) = *at;
        self.ports.get(at).into_iter().flatten().map(move |a| RelayKey { protocol, address: *a, port })
    }

    fn all(&self) -> Vec<RelayKey> {
        self.ports.keys().flat_map(|at| self.keys(at)).collect()
    }

    /// Whether a port is to be relayed, and nobody else serves it.
    fn is_relayed(&self, key: &RelayKey) -> bool {
        let listens = |at: &Ipv6Addr| at == &key.address || at.is_unspecified() || key.address.is_unspecified();
        let at_port = (key.protocol, key.port, Ipv6Addr::UNSPECIFIED)..=(key.protocol, key.port, LAST);
        self.serving.is_some() && self.shared.relays(key) && !self.others.range(at_port).any(|(_, _, at)| listens(at))
    }

    /// Has the kernel lead to the daemon what is for it.
    fn lead(&mut self, datapath: &mut Datapath, changed: BTreeSet<RelayKey>) {
        let mut keys: Vec<PublicationKey> = changed.iter().map(map_key).collect();
        keys.sort_unstable();
        let relayed = |key: &PublicationKey| key_of(key).is_some_and(|key| self.is_relayed(&key));
        let result = datapath.relay(&keys, relayed);
        if let Err(e) = result {
            self.trouble.get_or_insert_with(|| e.to_string());
        }
    }

    /// Makes the daemon's sockets where they are needed.
    fn serve(&mut self, datapath: &mut Datapath) -> Result<(), String> {
        if self.ports.is_empty() {
            self.serving = None;
            return Ok(());
        }
        if self.serving.is_some() {
            return Ok(());
        }
        let failed = |e: io::Error| format!("no socket can be had for them: {e}");
        let tcp = at_a_free_port(tcp::listen).map_err(failed)?;
        let udp = at_a_free_port(udp::listen).map_err(failed)?;
        let answers = udp::answering().map_err(failed)?;
        datapath
            .lead_relayed_to(RelaySockets { tcp: tcp.as_fd(), udp: udp.as_fd() })
            .map_err(|e: DatapathError| e.to_string())?;
        let mut serving = JoinSet::new();
        serving.spawn(tcp::serve(tcp, self.shared.clone()));
        serving.spawn(udp::serve(udp, answers, self.shared.clone()));
        self.serving = Some(serving);
        Ok(())
    }

    /// Descriptors that the relays have, or may come to need.
    pub fn descriptors(&self) -> usize {
        if self.is_needed() { FOR_CONVERSATIONS } else { 0 }
    }

    /// Whether a publication is relayed.
    pub fn serves(&self, publication: &Publication) -> bool {
        RelayKey::of(publication).is_some_and(|key| self.is_relayed(&key))
    }

    /// Conversations that were refused for a reason which the datapath has too.
    pub fn refused(&self, verdict: Verdict) -> u64 {
        match verdict {
            Verdict::Filtered => self.shared.filtered.load(Relaxed),
            Verdict::RateLimited => self.shared.rate_limited.load(Relaxed),
            _ => 0,
        }
    }

    /// What people should know, a line each. `missing`: why the kernel side cannot lead anything here.
    pub fn problems(&self, missing: Option<&str>) -> Vec<String> {
        const REMEDY: &str = "give these containers IPv6 addresses";
        let mut problems = Vec::new();
        let lost = self.shared.crowded_out.load(Relaxed);
        if lost > 0 {
            problems.push(format!(
                "{lost} conversations of IPv6 clients with containers that have IPv4 alone were refused, for {CONVERSATIONS} \
                 at once are relayed: {REMEDY}"
            ));
        }
        if let Some(reason) = self.trouble.as_deref().or(missing).filter(|_| self.is_needed()) {
            problems.push(format!(
                "published ports of containers that have IPv4 alone are not relayed to IPv6 clients: {reason}; {REMEDY}"
            ));
        }
        problems
    }
}

/// The last address.
const LAST: Ipv6Addr = Ipv6Addr::from_bits(u128::MAX);

fn map_key(key: &RelayKey) -> PublicationKey {
    let protocol = key.protocol.number();
    PublicationKey { addr: key.address.into(), port: key.port.to_be(), protocol, reserved: 0 }
}

fn key_of(key: &PublicationKey) -> Option<RelayKey> {
    let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(|p| p.number() == key.protocol)?;
    Some(RelayKey { protocol, address: key.addr.0.into(), port: u16::from_be(key.port) })
}

/// Binds one of the daemon's sockets where nobody else wants to be: on loopback, at one of the last ports, which are above the
/// ephemeral range.
fn at_a_free_port<S>(listen: impl Fn(SocketAddrV6) -> io::Result<S>) -> io::Result<S> {
    let mut address = Ipv6Addr::LOCALHOST;
    let mut port = u16::MAX;
    loop {
        match listen(SocketAddrV6::new(address, port, 0, 0)) {
            Err(e) if e.kind() == ErrorKind::AddrInUse && port > u16::MAX - OWN_PORTS => port -= 1,
            // IPv6 is off on the loopback interface.
            Err(e) if e.kind() == ErrorKind::AddrNotAvailable && address.is_loopback() => {
                address = Ipv6Addr::UNSPECIFIED;
            }
            other => return other,
        }
    }
}
