//! Collecting conversations that are over. A full table takes a while to be read: that is done beside the daemon's loop, with
//! handles of its own to the maps.

use std::collections::{HashMap as StdHashMap, HashSet};
use std::os::fd::AsFd;
use std::time::Instant;

use aya::Pod;
use aya::maps::{Array, HashMap, IterableMap as _, Map, MapData, MapError};
use runtime_api::FlowCount;
use runtime_common::maps::{
    FLOW_COUNTED, FLOW_FIN, FLOW_REPLY, FLOW_RST, Flow, FlowAction, FlowKey, Holder, MAX_FLOWS,
};
use runtime_common::packet::{ICMP, ICMPV6, TCP};

use super::flow_ports::FlowPorts;
use super::flows::{SECOND, now};
use super::table::{read_all_entries, read_entries};
use super::{DatapathError, map_error};

/// How long a flow may be idle, in seconds: the values of Linux' conntrack for the same states.
const IDLE_TCP: u64 = 432_000;
const IDLE_TCP_FIN_WAIT: u64 = 120;
const IDLE_TCP_CLOSE_WAIT: u64 = 60;
const IDLE_TCP_LAST_ACK: u64 = 30;
const IDLE_TCP_TIME_WAIT: u64 = 120;
const IDLE_TCP_RESET: u64 = 10;
const IDLE_UDP: u64 = 120;
const IDLE_ICMP: u64 = 30;
/// Of an entry that has lost its forward direction.
const IDLE_HALF: u64 = 10;
/// With how many entries closed connections are in the way of others.
const CROWDED: usize = MAX_FLOWS / 8 * 7;

/// Who collects, with what was seen in the round before.
pub struct Collector {
    flows: HashMap<MapData, FlowKey, Flow>,
    pending: HashMap<MapData, FlowKey, Flow>,
    ports: FlowPorts,
    rules: Array<MapData, u64>,
    held: Array<MapData, u64>,
    held_by_rule: Array<MapData, u64>,
    held_by: HashMap<MapData, Holder, u64>,
    /// Generations that were in force no more.
    ended: HashSet<u64>,
    /// Slots under which there were conversations.
    slots: HashSet<u32>,
    /// By how much each count was found wrong.
    errors: StdHashMap<Counter, i64>,
}

/// A count of the kernel side's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Counter {
    All,
    Rule(u32),
    By(Holder),
}

/// Handles to the maps of a [`Collector`].
pub(super) struct Maps<'a> {
    pub flows: &'a HashMap<MapData, FlowKey, Flow>,
    pub pending: &'a HashMap<MapData, FlowKey, Flow>,
    pub flow_ports: &'a Map,
    pub rules: &'a Array<MapData, u64>,
    pub held: &'a Array<MapData, u64>,
    pub held_by_rule: &'a Array<MapData, u64>,
    pub held_by: &'a HashMap<MapData, Holder, u64>,
}

/// Conversations that are counted in the shares, as they are in the table.
#[derive(Default)]
struct Counts(StdHashMap<Counter, u64>);

impl Collector {
    pub(super) fn new(maps: &Maps<'_>) -> Result<Self, DatapathError> {
        Ok(Collector {
            flows: another_hash("FLOWS", maps.flows)?,
            pending: another_hash("PENDING", maps.pending)?,
            ports: FlowPorts::adopt(maps.flow_ports)?,
            rules: another_array("RULES", maps.rules)?,
            held: another_array("HELD", maps.held)?,
            held_by_rule: another_array("HELD_BY_RULE", maps.held_by_rule)?,
            held_by: another_hash("HELD_BY", maps.held_by)?,
            ended: HashSet::new(),
            slots: HashSet::new(),
            errors: StdHashMap::new(),
        })
    }

    /// Removes conversations that are closed, idle for too long, or whose rule was gone in the round before already (till then
    /// somebody may have to be told of their end), and counts anew what is left. What is no conversation yet makes room by itself.
    ///
    /// # Errors
    /// Where a map cannot be read or written.
    pub fn collect(&mut self) -> Result<FlowCount, DatapathError> {
        let (now, began) = (now(), Instant::now());
        // What is not read in full would say that there are no flows where there are.
        let unanswered = read_all_entries(&self.pending).map_err(|e| map_error("PENDING", &e))?;
        let mut count = FlowCount { answered: 0, pending: unanswered.len() / 2 };
        let all = read_all_entries(&self.flows).map_err(|e| map_error("FLOWS", &e))?;
        let all: StdHashMap<_, _> = all.into_iter().collect();
        self.ports.turn(began, unanswered.iter().map(|(key, _)| key).chain(all.keys()));
        let crowded = all.len() > CROWDED;
        let mut generations = StdHashMap::new();
        let (mut over, mut ended, mut counts) = (Vec::new(), HashSet::new(), Counts::default());
        let mut slots = HashSet::new();
        for (key, flow) in &all {
            let pair_key = flow.pair(key.protocol);
            let pair = all.get(&pair_key);
            // Each conversation is judged once, by its forward entry.
            if flow.state & FLOW_REPLY != 0 {
                // Where there is no room, its forward entry may be waiting for some.
                let idle = now.saturating_sub(flow.last_seen) > IDLE_HALF * SECOND;
                if pair.is_none() && idle && is_gone(&self.pending, &pair_key) {
                    over.push((key, flow));
                }
                continue;
            }
            slots.insert(flow.rule);
            let mut in_force = |slot| *generations.entry(slot).or_insert_with(|| generation(&self.rules, slot));
            let gone = ended_rule(flow, &mut in_force);
            if let Some(gone) = gone.filter(|gone| !self.ended.contains(gone)) {
                ended.insert(gone);
                continue;
            }
            // Half a conversation carries nothing: the next packet opens it anew.
            let half = pair.is_none() && is_gone(&self.pending, &pair_key) && is_gone(&self.flows, &pair_key);
            // Of closed ones the kernel side knows the last alone, and somebody may keep them from being idle.
            let in_the_way = crowded && pair.is_some_and(|pair| key.protocol == TCP && is_closed(flow, pair));
            if gone.is_none() && !half && !in_the_way && !is_over(key, flow, pair, now) {
                count.answered += 1;
                counts.add(key, flow);
            } else {
                over.push((key, flow));
                over.extend(all.get_key_value(&pair_key));
            }
        }
        self.ended = ended;
        slots.extend(&self.slots);
        // At once: the later, the more has begun and ended since the table was read.
        self.correct(&counts, &slots)?;
        self.slots = counts.slots().collect();
        for (key, seen) in over {
            // Since it was read it may have been opened anew, or have carried something.
            let stands = |f: &Flow| ended_rule(f, &mut |slot| generation(&self.rules, slot)).is_none();
            let is_used = |f: Flow| stands(&f) && f.last_seen != seen.last_seen;
            if self.flows.get(key, 0).is_ok_and(is_used) {
                continue;
            }
            match self.flows.remove(key) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(e) => return Err(map_error("FLOWS", &e)),
            }
        }
        Ok(count)
    }

    /// Puts right what the kernel side has counted: two processors lose counts to each other, and what is forgotten or collected is
    /// not counted back.
    fn correct(&mut self, counts: &Counts, slots: &HashSet<u32>) -> Result<(), DatapathError> {
        let before = std::mem::take(&mut self.errors);
        let error_of = |errors: &mut StdHashMap<_, _>, counter, counted: u64| {
            let right = counts.of(&counter);
            let error = counted.wrapping_sub(right).cast_signed();
            let sure = what_is_sure(before.get(&counter).copied().unwrap_or_default(), error, right);
            if error != sure {
                errors.insert(counter, error - sure);
            }
            (sure != 0).then(|| counted.wrapping_sub(sure.cast_unsigned()))
        };
        let counted = self.held.get(&0, 0).unwrap_or_default();
        if let Some(right) = error_of(&mut self.errors, Counter::All, counted) {
            self.held.set(0, right, 0).map_err(|e| map_error("HELD", &e))?;
        }
        for slot in slots {
            // A slot beyond the end is that of what no rule allows.
            let Ok(counted) = self.held_by_rule.get(slot, 0) else { continue };
            if let Some(right) = error_of(&mut self.errors, Counter::Rule(*slot), counted) {
                self.held_by_rule.set(*slot, right, 0).map_err(|e| map_error("HELD_BY_RULE", &e))?;
            }
        }
        for (holder, counted) in read_entries(&self.held_by) {
            let counter = Counter::By(holder);
            if counts.of(&counter) == 0 && counted.cast_signed() <= 0 {
                drop(self.held_by.remove(&holder));
            } else if let Some(right) = error_of(&mut self.errors, counter, counted) {
                self.held_by.insert(holder, right, 0).map_err(|e| map_error("HELD_BY", &e))?;
            }
        }
        Ok(())
    }
}

impl Counts {
    fn add(&mut self, key: &FlowKey, flow: &Flow) {
        if flow.state & FLOW_COUNTED == 0 {
            return;
        }
        let container = (flow.ifindex != 0).then(|| Counter::By(Holder::container(flow.ifindex)));
        let source = Counter::By(Holder::source(&key.tuple.src, flow.from_ifindex));
        for counter in [Counter::All, Counter::Rule(flow.rule), source].into_iter().chain(container) {
            *self.0.entry(counter).or_default() += 1;
        }
    }

    fn of(&self, counter: &Counter) -> u64 {
        self.0.get(counter).copied().unwrap_or_default()
    }

    /// Slots under which any are counted.
    fn slots(&self) -> impl Iterator<Item = u32> {
        self.0.keys().filter_map(|counter| if let Counter::Rule(slot) = counter { Some(*slot) } else { None })
    }
}

/// Whether there is no such entry: one that has come or moved since the table was read is there.
fn is_gone(map: &HashMap<MapData, FlowKey, Flow>, key: &FlowKey) -> bool {
    matches!(map.get(key, 0), Err(MapError::KeyNotFound))
}

/// How much of an error is none of what begins and ends while a table is being read: all of one that is larger than that may be,
/// or what was there in the round before already.
fn what_is_sure(before: i64, error: i64, right: u64) -> i64 {
    if error.unsigned_abs() > right / 16 + 16 {
        return error;
    }
    match (before > 0, error > 0) {
        (true, true) => error.min(before),
        (false, false) => error.max(before),
        _ => 0,
    }
}

/// The generation of what a flow needs and is gone; none where all of it stands.
fn ended_rule(flow: &Flow, in_force: &mut impl FnMut(u32) -> u64) -> Option<u64> {
    let (rule, client) = (flow.generation, flow.client_generation);
    if in_force(flow.rule) != rule {
        return Some(rule);
    }
    (client != 0 && in_force(flow.client_rule) != client).then_some(client)
}

/// The generation in a slot; beyond the end there is none.
fn generation(rules: &Array<MapData, u64>, slot: u32) -> u64 {
    rules.get(&slot, 0).unwrap_or_default()
}

fn is_over(key: &FlowKey, flow: &Flow, pair: Option<&Flow>, now: u64) -> bool {
    let last_seen = pair.map_or(flow.last_seen, |p| p.last_seen.max(flow.last_seen));
    let seconds = match key.protocol {
        TCP => tcp_idle(flow, pair),
        ICMP | ICMPV6 => IDLE_ICMP,
        _ => IDLE_UDP,
    };
    now.saturating_sub(last_seen) > seconds * SECOND
}

fn is_closed(flow: &Flow, pair: &Flow) -> bool {
    (flow.state | pair.state) & FLOW_RST != 0 || flow.state & pair.state & FLOW_FIN != 0
}

/// By the state that conntrack would have a connection in.
fn tcp_idle(flow: &Flow, pair: Option<&Flow>) -> u64 {
    let Some(pair) = pair else {
        return if flow.state & (FLOW_RST | FLOW_FIN) != 0 { IDLE_TCP_RESET } else { IDLE_TCP };
    };
    // Whether the other side has acknowledged everything, the FIN included.
    let acknowledged = |side: &Flow, other: &Flow| other.ack == side.end;
    match (flow.state & FLOW_FIN != 0, pair.state & FLOW_FIN != 0) {
        _ if (flow.state | pair.state) & FLOW_RST != 0 => IDLE_TCP_RESET,
        (false, false) => IDLE_TCP,
        // What a source says late reaches its recipient without conntrack as well, and the engine's proxy waits for ever.
        (true, false) | (false, true) if is_without_conntrack(flow.action) => IDLE_TCP,
        // Who has sent its FIN may still receive, for as long as the other sends.
        (true, false) if acknowledged(flow, pair) => IDLE_TCP_CLOSE_WAIT,
        (false, true) if acknowledged(pair, flow) => IDLE_TCP_CLOSE_WAIT,
        (true, true) if acknowledged(flow, pair) && acknowledged(pair, flow) => IDLE_TCP_TIME_WAIT,
        (true, true) => IDLE_TCP_LAST_ACK,
        _ => IDLE_TCP_FIN_WAIT,
    }
}

/// Whether the engine alone carries such conversations without conntrack, or needs none of what that knows.
fn is_without_conntrack(action: u8) -> bool {
    action == FlowAction::Link as u8 || action == FlowAction::FromLoopback as u8
}

fn another(name: &'static str, map: &MapData) -> Result<Map, DatapathError> {
    let failed = |e: &dyn std::error::Error| map_error(name, e);
    let fd = map.fd().as_fd().try_clone_to_owned().map_err(|e| failed(&e))?;
    let data = MapData::from_fd(fd).map_err(|e| failed(&e))?;
    Map::from_map_data(data).map_err(|e| failed(&e))
}

fn another_hash<K: Pod, V: Pod>(
    name: &'static str,
    map: &HashMap<MapData, K, V>,
) -> Result<HashMap<MapData, K, V>, DatapathError> {
    HashMap::try_from(another(name, map.map())?).map_err(|e| map_error(name, &e))
}

fn another_array(name: &'static str, map: &Array<MapData, u64>) -> Result<Array<MapData, u64>, DatapathError> {
    Array::try_from(another(name, map.map())?).map_err(|e| map_error(name, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP_KEY: FlowKey = FlowKey { protocol: TCP, ..EMPTY };
    const EMPTY: FlowKey = FlowKey {
        tuple: runtime_common::maps::Tuple {
            src: runtime_common::Addr::ANY_V6,
            dst: runtime_common::Addr::ANY_V6,
            sport: 0,
            dport: 0,
        },
        protocol: 17,
        zone: 0,
        reserved: 0,
    };

    /// One side: its bits, the number behind its last segment, and what it has acknowledged.
    fn side(state: u8, end: u32, ack: u32) -> Flow {
        Flow { state, end, ack, ..Flow::default() }
    }

    fn link(flow: Flow) -> Flow {
        Flow { action: FlowAction::Link as u8, ..flow }
    }

    #[test]
    fn a_connection_is_kept_as_long_as_conntrack_keeps_it_in_that_state() {
        let cases = [
            (side(0, 10, 20), side(0, 20, 10), 432_000),
            (side(FLOW_FIN, 10, 20), side(0, 20, 9), 120),
            (side(FLOW_FIN, 10, 20), side(0, 20, 10), 60),
            (side(0, 10, 20), side(FLOW_FIN, 20, 10), 60),
            (side(FLOW_FIN, 10, 20), side(FLOW_FIN, 21, 10), 30),
            (side(FLOW_FIN, 10, 20), side(FLOW_FIN, 20, 10), 120),
            (side(FLOW_FIN, 10, 20), side(FLOW_RST, 20, 10), 10),
            (side(0, 10, 20), side(FLOW_RST, 20, 10), 10),
            (link(side(FLOW_FIN, 10, 20)), link(side(0, 20, 10)), 432_000),
            (link(side(FLOW_FIN, 10, 20)), link(side(FLOW_FIN, 20, 10)), 120),
        ];
        for (flow, pair, seconds) in cases {
            for (flow, pair) in [(flow, pair), (pair, flow)] {
                assert!(!is_over(&TCP_KEY, &flow, Some(&pair), seconds * SECOND), "{flow:?} {pair:?}");
                assert!(is_over(&TCP_KEY, &flow, Some(&pair), (seconds + 1) * SECOND), "{flow:?} {pair:?}");
            }
        }
    }

    #[test]
    fn traffic_in_one_direction_keeps_both_alive() {
        let seen = Flow { last_seen: 60 * SECOND, ..Flow::default() };
        assert!(is_over(&EMPTY, &Flow::default(), Some(&Flow::default()), 121 * SECOND));
        assert!(!is_over(&EMPTY, &Flow::default(), Some(&seen), 121 * SECOND));
    }

    #[test]
    fn what_comes_and_goes_meanwhile_is_no_wrong_count() {
        assert_eq!([(0, 10, 0), (0, 50, 1_000), (-50, 50, 1_000), (50, -50, 1_000)].map(sure), [0; 4]);
    }

    #[test]
    fn what_stays_wrong_or_is_far_off_is_put_right() {
        assert_eq!([(3, 10, 0), (10, 3, 0), (-10, -3, 1_000)].map(sure), [3, 3, -3]);
        assert_eq!([(0, 17, 0), (0, 100, 1_000), (0, -1_000, 1_000), (5, -1, 0)].map(sure), [17, 100, -1_000, 0]);
    }

    fn sure((before, error, right): (i64, i64, u64)) -> i64 {
        what_is_sure(before, error, right)
    }
}
