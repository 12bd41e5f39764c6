//! The program that leads packets for relayed ports to the daemon's sockets, at the socket lookup of the host's network
//! namespace: nothing is bound to the ports themselves.
//!
//! It is attached when there is something to relay: every socket lookup of the namespace passes by it.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::maps::{HashMap, MapData, SockMap};
use aya::programs::links::FdLink;
use aya::programs::{ProgramError, SkLookup};
use runtime_common::maps::{MAX_PUBLICATIONS, PublicationKey, RELAY_TCP, RELAY_UDP, RELAYED_BY_DAEMON};

use super::hook::{Hook, HookStatus};
use super::load::Loader;
use super::table::{Differences, Table, check_size};
use super::{DatapathError, Operations, Pins, bpf_syscall, chain, map_error, take};

/// File name of the link's pin.
const PIN: &str = "relay_lookup-netns";

/// `BPF_SK_LOOKUP` of the kernel's `enum bpf_attach_type`.
const BPF_SK_LOOKUP: u32 = 36;

/// The network namespace that this process is in.
const NAMESPACE: &str = "/proc/self/ns/net";

/// The program with its maps.
pub(super) struct RelayLookup {
    state: State,
    relayed: Table<PublicationKey, u32>,
    sockets: SockMap<MapData>,
}

enum State {
    Loaded,
    /// With this program.
    Attached(u32),
    /// Not there, and why.
    Missing(String),
}

/// The daemon's sockets that relayed packets are for. Both are for IPv6, and bound.
#[derive(Clone, Copy)]
pub struct RelaySockets<'s> {
    /// Listens.
    pub tcp: BorrowedFd<'s>,
    /// Is not connected.
    pub udp: BorrowedFd<'s>,
}

impl RelayLookup {
    /// Loads the program, and puts it in the place of a predecessor's.
    pub fn load(loader: &Loader<'_>, ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        let relayed = HashMap::try_from(take(ebpf, "RELAYED")?).map_err(|e| map_error("RELAYED", &e))?;
        let sockets = SockMap::try_from(take(ebpf, "RELAY_SOCKETS")?).map_err(|e| map_error("RELAY_SOCKETS", &e))?;
        let mut lookup =
            RelayLookup { state: State::Loaded, relayed: Table::adopt("RELAYED", MAX_PUBLICATIONS, relayed)?, sockets };
        match loader.load(ebpf, Hook::RelayLookup) {
            Ok(()) if pin_path(loader.pins).exists() => lookup.attach(ebpf, loader.pins),
            Ok(()) => {}
            Err(reason) => lookup.state = State::Missing(reason),
        }
        Ok(lookup)
    }

    /// What packets for relayed ports are led to from now on.
    pub fn lead_to(&mut self, sockets: RelaySockets<'_>) -> Result<(), DatapathError> {
        for (slot, socket) in [(RELAY_TCP, sockets.tcp), (RELAY_UDP, sockets.udp)] {
            self.sockets.set(slot, &socket.as_raw_fd(), 0).map_err(|e| map_error("RELAY_SOCKETS", &e))?;
        }
        Ok(())
    }

    /// Relays these ports and no others; `changed` are all that may differ from what was asked for last, in order.
    pub fn relay(
        &mut self,
        ebpf: &mut Ebpf,
        pins: &Pins,
        changed: &[PublicationKey],
        is_relayed: impl Fn(&PublicationKey) -> bool,
    ) -> Result<(), DatapathError> {
        if matches!(self.state, State::Loaded) && changed.iter().any(&is_relayed) {
            self.attach(ebpf, pins);
        }
        let wanted: Vec<_> = changed.iter().filter(|k| is_relayed(k)).map(|k| (*k, RELAYED_BY_DAEMON)).collect();
        let current = changed.iter().filter_map(|k| self.relayed.holds.get_key_value(k));
        let differences = Differences::of(current, wanted.iter().map(|(k, v)| (k, v)));
        check_size("RELAYED", self.relayed.len_after(&differences), MAX_PUBLICATIONS)?;
        let mut ops = Operations::default();
        self.relayed.remove(&differences, &mut ops)?;
        self.relayed.write(differences, &mut ops, |v| *v)
    }

    /// What the map says, in order.
    pub fn relayed(&self) -> impl Iterator<Item = &PublicationKey> {
        self.relayed.holds.keys()
    }

    fn attach(&mut self, ebpf: &mut Ebpf, pins: &Pins) {
        self.state = match attach(ebpf, &pin_path(pins)) {
            Ok(program) => State::Attached(program),
            Err(reason) => State::Missing(format!("{}: {reason}", Hook::RelayLookup)),
        };
    }

    /// Attaches it anew where somebody has taken it away, and tells of that.
    pub fn put_back(&mut self, ebpf: &mut Ebpf, pins: &Pins) -> Option<String> {
        let lost = match self.status() {
            Err(reason) => reason,
            Ok(Some(_)) if !pin_path(pins).exists() => format!("{} was gone", pin_path(pins).display()),
            Ok(_) => return None,
        };
        self.attach(ebpf, pins);
        Some(lost)
    }

    /// Writes anew what somebody has deleted or changed of the relayed ports, and tells of that.
    pub fn put_back_entries(&mut self) -> Result<Option<String>, DatapathError> {
        let (_, lost) = self.relayed.put_back(|v| *v)?;
        Ok((lost > 0).then(|| format!("{lost} of the map RELAYED were gone or others")))
    }

    /// Why nothing is relayed, in one line.
    pub fn problem(&self) -> Option<&str> {
        match &self.state {
            State::Missing(reason) => Some(reason),
            _ => None,
        }
    }

    /// What the kernel says of where it is attached, or in one line that it is not where it was.
    pub fn status(&self) -> Result<Option<HookStatus>, String> {
        let State::Attached(program) = &self.state else { return Ok(None) };
        let here = || bpf_syscall::programs_at(File::open(NAMESPACE)?.as_raw_fd() as u32, BPF_SK_LOOKUP);
        match here() {
            Ok(found) if found.contains(program) => Ok(Some(HookStatus {
                interface: "network namespace".to_owned(),
                ifindex: 0,
                hook: Hook::RelayLookup,
                kind: "sk_lookup".to_owned(),
            })),
            Ok(_) => Err(format!("{} is not attached to the network namespace any more", Hook::RelayLookup)),
            Err(e) => Err(format!("what is attached to the network namespace cannot be read: {e}")),
        }
    }
}

/// Whether a pin is this program's.
pub(super) fn is_pin(path: &Path) -> bool {
    path.file_name().is_some_and(|f| f == PIN)
}

fn pin_path(pins: &Pins) -> PathBuf {
    pins.links().join(PIN)
}

/// Attaches it, or puts it into a predecessor's link; returns the program's id.
fn attach(ebpf: &mut Ebpf, path: &Path) -> Result<u32, String> {
    let p: &mut SkLookup = ebpf
        .program_mut(Hook::RelayLookup.program())
        .ok_or("not in the object")?
        .try_into()
        .map_err(|e: ProgramError| chain(&e))?;
    let program = p.fd().map_err(|e| chain(&e))?.as_fd();
    let program_id = bpf_syscall::program_id(program).map_err(|e| e.to_string())?;
    if path.exists() {
        if bpf_syscall::update_pinned_link(path, program).is_ok() {
            return Ok(program_id);
        }
        // Of a namespace that is gone.
        std::fs::remove_file(path).map_err(|e| e.to_string())?;
    }
    let namespace = File::open(NAMESPACE).map_err(|e| format!("{NAMESPACE}: {e}"))?;
    let id = p.attach(&namespace).map_err(|e| chain(&e))?;
    let link: FdLink = p.take_link(id).map_err(|e| chain(&e))?.into();
    link.pin(path).map_err(|e| chain(&e))?;
    Ok(program_id)
}
