//! The flow table from userspace: seeding what is older than the datapath.

use std::net::SocketAddr;

use aya::maps::{HashMap, MapData, MapError};
use nix::time::{ClockId, clock_gettime};
use runtime_common::maps::{FLOW_ANSWERED, FLOW_REPLY, Flow, FlowAction, FlowKey, MAX_WINDOW_SCALE, Tuple, Zone};

use super::state::State;
use super::{DatapathError, map_error};

pub(super) const SECOND: u64 = 1_000_000_000;

/// A conversation that is older than the datapath.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The container's end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Generation of the rule that allows it: an endpoint's, or a link's.
    pub generation: u64,
    /// What is done with it.
    pub kind: SeedKind,
}

/// What a seeded conversation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeedKind {
    /// The host's stack carries it.
    Stack {
        /// The container's host-side interface.
        ifindex: u32,
    },
    /// It is over a link; `local` is the recipient.
    Link {
        /// The recipient's host-side interface and MAC address.
        recipient: (u32, [u8; 6]),
        /// The source's.
        source: (u32, [u8; 6]),
    },
}

/// Nanoseconds of the clock that the kernel side uses.
pub(super) fn now() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)
        .map(|t| t.tv_sec() as u64 * SECOND + t.tv_nsec() as u64)
        .unwrap_or_default()
}

/// Puts both directions of each seed into the table, where the kernel side has not learned it meanwhile.
pub(super) fn seed(
    flows: &mut HashMap<MapData, FlowKey, Flow>,
    state: &State,
    seeds: &[Seed],
) -> Result<(), DatapathError> {
    for seed in seeds {
        let Some(rule) = state.slot(seed.generation) else { continue };
        for (key, flow) in entries(seed, rule) {
            match flows.insert(key, flow, NOT_EXISTING) {
                Ok(()) => {}
                Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(nix::libc::EEXIST) => {}
                Err(e) => return Err(map_error("FLOWS", &e)),
            }
        }
    }
    Ok(())
}

/// `BPF_NOEXIST` of the kernel's uapi.
const NOT_EXISTING: u64 = 1;

fn entries(seed: &Seed, rule: u32) -> [(FlowKey, Flow); 2] {
    let tuple = Tuple {
        src: seed.local.ip().into(),
        dst: seed.remote.ip().into(),
        sport: seed.local.port().to_be(),
        dport: seed.remote.port().to_be(),
    };
    let base =
        Flow { generation: seed.generation, rule, last_seen: now(), window_scale: MAX_WINDOW_SCALE, ..Flow::default() };
    let (forward, reply, zone) = match seed.kind {
        SeedKind::Stack { ifindex } => (
            Flow { action: FlowAction::Stack as u8, ..base },
            Flow { action: FlowAction::Stack as u8, ifindex, ..base },
            Zone::Gate,
        ),
        SeedKind::Link { recipient, source } => (
            Flow { action: FlowAction::Link as u8, ifindex: source.0, mac: source.1, ..base },
            Flow { action: FlowAction::LinkReply as u8, ifindex: recipient.0, mac: recipient.1, ..base },
            Zone::Endpoint,
        ),
    };
    let forward = Flow { to: tuple, state: FLOW_ANSWERED, pair_zone: zone as u8, ..forward };
    let reply =
        Flow { to: tuple.reversed(), state: FLOW_ANSWERED | FLOW_REPLY, pair_zone: Zone::Endpoint as u8, ..reply };
    [
        (FlowKey::new(tuple, seed.protocol, Zone::Endpoint), forward),
        (FlowKey::new(tuple.reversed(), seed.protocol, zone), reply),
    ]
}
