//! `FLOW_PORTS`, by which the kernel side tells without a search that a packet for the host belongs to no flow: ports that have no
//! flow any more are taken out of it here.
//!
//! Each element has two bits. The kernel side sets both before a flow's key is in the tables, and searches them where either is set.
//! Here one bit is cleared everywhere, and set again for what the tables have at the next turn; meanwhile the other is complete.

use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use aya::maps::{Map, MapData};
use nix::libc;
use runtime_common::maps::{FLOW_PORT_HALVES, FlowKey, MAX_FLOW_PORTS, Zone};

use super::{DatapathError, map_error};

/// How far apart the elements of an array of bytes are.
const STRIDE: usize = 8;
const LENGTH: usize = MAX_FLOW_PORTS * STRIDE;

/// Longer than a program runs: what began before a bit was cleared is in the tables when they are read for it.
const LEAST_AGE: Duration = Duration::from_secs(1);

/// The map, shared with the kernel side.
pub(super) struct FlowPorts {
    memory: Memory,
    /// Which bit is cleared, and since when; none after a predecessor, whose doings nobody knows.
    cleared: Option<(u8, Instant)>,
}

impl FlowPorts {
    /// Takes over what a predecessor left.
    pub fn adopt(map: &Map) -> Result<Self, DatapathError> {
        let Map::Array(data) = map else {
            return Err(DatapathError::Map { map: "FLOW_PORTS", reason: "not an array".into() });
        };
        let memory = Memory::of(data).map_err(|e| map_error("FLOW_PORTS", &e))?;
        Ok(FlowPorts { memory, cleared: None })
    }

    /// Takes out ports that have had no flow since the last turn but one; `keys` are those of both tables, of which
    /// `PENDING` was read first, as flows move from there, and not before `read`.
    pub fn turn<'a>(&mut self, read: Instant, keys: impl Iterator<Item = &'a FlowKey>) {
        if self.cleared.is_some_and(|(_, since)| read.saturating_duration_since(since) < LEAST_AGE) {
            return;
        }
        let ports = self.memory.elements();
        let bits = self.cleared.map_or(FLOW_PORT_HALVES, |(bit, _)| bit);
        for key in keys.filter(|key| key.zone == Zone::Uplink as u8) {
            ports[key.port_element() as usize * STRIDE].fetch_or(bits, Ordering::SeqCst);
        }
        let next = self.cleared.map_or(1, |(bit, _)| bit ^ FLOW_PORT_HALVES);
        for port in ports.iter().step_by(STRIDE) {
            // Most have none: a look leaves them to other CPUs as well.
            if port.load(Ordering::Relaxed) & next != 0 {
                port.fetch_and(!next, Ordering::SeqCst);
            }
        }
        self.cleared = Some((next, Instant::now()));
    }
}

/// The elements of an array of bytes, as the kernel has them.
struct Memory(NonNull<AtomicU8>);

// SAFETY: shared memory that is only used atomically, whoever does it.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    fn of(map: &MapData) -> std::io::Result<Self> {
        let fd = std::os::fd::AsFd::as_fd(map.fd()).as_raw_fd();
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, wherever there is room; the kernel refuses one that is larger than the map.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), LENGTH, access, libc::MAP_SHARED, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        NonNull::new(start.cast()).map(Memory).ok_or_else(|| std::io::ErrorKind::AddrNotAvailable.into())
    }

    fn elements(&self) -> &[AtomicU8] {
        // SAFETY: mapped until this is dropped, and as long as that.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), LENGTH) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by `of` with that length, and nobody has a slice of it any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), LENGTH) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory of the same kind, of nobody else.
    fn memory() -> Memory {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, wherever there is room.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), LENGTH, access, kind, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        Memory(NonNull::new(start.cast()).unwrap())
    }

    fn key(port: u16, zone: Zone) -> FlowKey {
        let mut key = FlowKey { protocol: 6, zone: zone as u8, ..FlowKey::default() };
        key.tuple.dport = port.to_be();
        key
    }

    impl FlowPorts {
        fn bits(&self, port: u16) -> u8 {
            self.memory.elements()[key(port, Zone::Uplink).port_element() as usize * STRIDE].load(Ordering::SeqCst)
        }

        /// As the kernel side does it.
        fn begin(&self, port: u16) {
            let element = &self.memory.elements()[key(port, Zone::Uplink).port_element() as usize * STRIDE];
            element.store(FLOW_PORT_HALVES, Ordering::SeqCst);
        }

        fn turn_later(&mut self, keys: &[FlowKey]) {
            if let Some((_, since)) = &mut self.cleared {
                *since -= LEAST_AGE;
            }
            self.turn(Instant::now(), keys.iter());
        }
    }

    #[test]
    fn a_port_is_known_as_long_as_it_has_a_flow_and_for_two_turns_more() {
        let mut ports = FlowPorts { memory: memory(), cleared: None };
        ports.begin(80);
        // A predecessor's, of which it may have cleared a bit.
        let old = [key(81, Zone::Uplink), key(82, Zone::Gate)];
        for turn in 0..6 {
            if turn == 3 {
                ports.begin(83);
            }
            ports.turn_later(&old);
            assert_ne!(ports.bits(81), 0, "turn {turn}");
            assert_eq!(ports.bits(82), 0, "turn {turn}");
            assert_eq!(ports.bits(80) != 0, turn < 1, "turn {turn}");
            assert_eq!(ports.bits(83) != 0, turn == 3, "turn {turn}");
        }
        ports.turn_later(&[]);
        ports.turn_later(&[]);
        assert_eq!(ports.bits(81), 0);
    }

    #[test]
    fn a_flow_that_the_tables_did_not_show_yet_is_not_forgotten() {
        let mut ports = FlowPorts { memory: memory(), cleared: None };
        ports.turn_later(&[]);
        for _ in 0..4 {
            // It begins after the tables were read: its entry is seen at the next turn.
            ports.begin(90);
            ports.turn_later(&[]);
            assert_ne!(ports.bits(90), 0);
            ports.turn_later(&[key(90, Zone::Uplink)]);
            assert_ne!(ports.bits(90), 0);
        }
        // Twice within a moment, a program might be between its bits and its entry.
        ports.begin(91);
        ports.turn(Instant::now(), [].iter());
        assert_eq!(ports.bits(91), FLOW_PORT_HALVES);
    }
}
