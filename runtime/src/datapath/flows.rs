//! The flow table from userspace: collecting what is over, and seeding what is older than the datapath.

use std::net::SocketAddr;

use aya::maps::{HashMap, MapData, MapError};
use nix::time::{ClockId, clock_gettime};
use runtime_api::FlowCount;
use runtime_common::maps::{
    FLOW_ANSWERED, FLOW_FIN, FLOW_REPLY, FLOW_RST, Flow, FlowAction, FlowKey, MAX_WINDOW_SCALE, Tuple, Zone,
};
use runtime_common::packet::{ICMP, ICMPV6, TCP};

use super::flow_ports::FlowPorts;
use super::state::State;
use super::table::read_entries;
use super::{DatapathError, map_error};

const SECOND: u64 = 1_000_000_000;

/// How long a flow may be idle, in seconds: the values of Linux' conntrack for the same states.
const IDLE_TCP: u64 = 432_000;
const IDLE_TCP_CLOSED: u64 = 10;
const IDLE_UDP: u64 = 120;
const IDLE_ICMP: u64 = 30;

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
fn now() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)
        .map(|t| t.tv_sec() as u64 * SECOND + t.tv_nsec() as u64)
        .unwrap_or_default()
}

/// Removes answered flows whose rule is gone, that are closed, or idle for too long. Unanswered ones make room by
/// themselves. `ports` is told which there are.
pub(super) fn collect(
    flows: &mut HashMap<MapData, FlowKey, Flow>,
    pending: &HashMap<MapData, FlowKey, Flow>,
    ports: &mut FlowPorts,
    state: &State,
) -> Result<FlowCount, DatapathError> {
    let now = now();
    let unanswered = read_entries(pending);
    let mut count = FlowCount { answered: 0, pending: unanswered.len() / 2 };
    let all: std::collections::HashMap<_, _> = read_entries(flows).into_iter().collect();
    ports.turn(unanswered.iter().map(|(key, _)| key).chain(all.keys()));
    let mut over = Vec::new();
    for (key, flow) in &all {
        let pair_key = flow.pair(key.protocol);
        let pair = all.get(&pair_key);
        // Each conversation is judged once, by its forward entry.
        if flow.state & FLOW_REPLY != 0 {
            if pair.is_none() && now.saturating_sub(flow.last_seen) > IDLE_TCP_CLOSED * SECOND {
                over.push((key, flow));
            }
            continue;
        }
        // Half a conversation carries nothing: the next packet opens it anew.
        // What has come or moved since the table was read is asked for once more.
        let is_gone = |map: &HashMap<_, _, _>| matches!(map.get(&pair_key, 0), Err(MapError::KeyNotFound));
        let half = pair.is_none() && is_gone(pending) && is_gone(flows);
        if !half && state.stands(flow) && !is_over(key, flow, pair, now) {
            count.answered += 1;
        } else {
            over.push((key, flow));
            over.extend(all.get_key_value(&pair_key));
        }
    }
    for (key, seen) in over {
        // Since it was read it may have been opened anew, or have carried something.
        let is_used = |f: Flow| state.stands(&f) && f.last_seen != seen.last_seen;
        if flows.get(key, 0).is_ok_and(is_used) {
            continue;
        }
        match flows.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(e) => return Err(map_error("FLOWS", &e)),
        }
    }
    Ok(count)
}

fn is_over(key: &FlowKey, flow: &Flow, pair: Option<&Flow>, now: u64) -> bool {
    let last_seen = pair.map_or(flow.last_seen, |p| p.last_seen.max(flow.last_seen));
    let either = flow.state | pair.map_or(0, |p| p.state);
    let both = flow.state & pair.map_or(0, |p| p.state);
    let seconds = match key.protocol {
        TCP if either & FLOW_RST != 0 || both & FLOW_FIN != 0 => IDLE_TCP_CLOSED,
        // Who has sent its FIN may still receive, for as long as the other sends.
        TCP => IDLE_TCP,
        ICMP | ICMPV6 => IDLE_ICMP,
        _ => IDLE_UDP,
    };
    now.saturating_sub(last_seen) > seconds * SECOND
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

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(state: u8, last_seen: u64) -> Flow {
        Flow { state, last_seen, ..Flow::default() }
    }

    #[test]
    fn a_connection_is_over_soon_after_both_fins_or_a_reset_and_not_before() {
        let key = FlowKey { protocol: TCP, ..FlowKey::default() };
        let later = 11 * SECOND;
        assert!(is_over(&key, &flow(FLOW_FIN, 0), Some(&flow(FLOW_FIN, 0)), later));
        assert!(is_over(&key, &flow(0, 0), Some(&flow(FLOW_RST, 0)), later));
        assert!(!is_over(&key, &flow(FLOW_FIN, 0), Some(&flow(0, 0)), later));
        assert!(!is_over(&key, &flow(FLOW_FIN, 0), Some(&flow(FLOW_FIN, 5 * SECOND)), later));
    }

    #[test]
    fn traffic_in_one_direction_keeps_both_alive() {
        let key = FlowKey { protocol: 17, ..FlowKey::default() };
        assert!(is_over(&key, &flow(0, 0), Some(&flow(0, 0)), 121 * SECOND));
        assert!(!is_over(&key, &flow(0, 0), Some(&flow(0, 60 * SECOND)), 121 * SECOND));
    }
}
