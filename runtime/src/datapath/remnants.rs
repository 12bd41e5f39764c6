//! Everything of this datapath that is in the kernel, whoever put it there, and removing all of it.

use std::fs;
use std::io::{Error, Result as IoResult};
use std::path::PathBuf;
use std::time::Duration;

use aya::maps::{Array, Map, MapData};
use runtime_common::maps::Config;

use super::expedited::{self, Expedited};
use super::hook::Hook;
use super::hooks::{detach_link, hook_of_pin, is_elsewhere};
use super::pins::Pins;
use super::rtnl::Rtnl;
use super::{DatapathError, chain, clsact};

/// Something of this datapath in the kernel, whoever put it there.
enum Remnant {
    /// A pinned link, or another pin that is in its place.
    Link(PathBuf),
    /// A clsact filter.
    Filter(u32, Hook),
    /// A clsact qdisc, by its mark.
    Qdisc(PathBuf, u32),
}

/// In which order attachments are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// What comes from outside goes back to the host's own rules first, so that they see conversations from the client's
    /// side, and the host's own sockets with it; see [`remove_everything`].
    Uplinks,
    /// Then the containers.
    Containers,
    /// Qdiscs after the filters in them.
    Qdiscs,
}

impl Remnant {
    /// Everything that there is.
    pub fn all(pins: &Pins) -> Result<Vec<Remnant>, DatapathError> {
        let mut found = Vec::new();
        for path in pins.entries(&pins.links())? {
            found.push(match clsact::marked(&path) {
                Some(ifindex) => Remnant::Qdisc(path, ifindex),
                None => Remnant::Link(path),
            });
        }
        let filters = Rtnl::open().and_then(|mut rtnl| clsact::all(&mut rtnl));
        let filters =
            filters.map_err(|e| DatapathError::Unsupported(format!("netlink: qdiscs cannot be read: {e}")))?;
        found.extend(filters.into_iter().map(|(ifindex, hook)| Remnant::Filter(ifindex, hook)));
        Ok(found)
    }

    /// When it is removed.
    pub fn turn(&self) -> Turn {
        let hook = match self {
            Remnant::Link(path) if is_elsewhere(path) => return Turn::Uplinks,
            Remnant::Link(path) => hook_of_pin(path).map(|(_, hook)| hook),
            Remnant::Filter(_, hook) => Some(*hook),
            Remnant::Qdisc(..) => return Turn::Qdiscs,
        };
        match hook {
            Some(Hook::UplinkIngress | Hook::UplinkTunnel | Hook::UplinkXdp) => Turn::Uplinks,
            _ => Turn::Containers,
        }
    }

    /// Removes it. When it returns, the program no longer runs there.
    pub fn remove(&self) -> IoResult<()> {
        match self {
            Remnant::Link(path) => detach_link(path),
            Remnant::Filter(ifindex, hook) => clsact::detach(&mut Rtnl::open()?, *ifindex, *hook),
            Remnant::Qdisc(mark, ifindex) => clsact::remove_qdisc(&mut Rtnl::open()?, mark, *ifindex),
        }
        .map_err(|e| Error::new(e.kind(), format!("{self}: {e}")))
    }
}

impl std::fmt::Display for Remnant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Remnant::Link(path) | Remnant::Qdisc(path, _) => path.display().fmt(f),
            Remnant::Filter(ifindex, hook) => write!(f, "filter {hook} of interface {ifindex}"),
        }
    }
}

/// How long conversations have to be seen from the client's side, between letting go of the uplinks and of the containers.
const HANDOVER: Duration = Duration::from_millis(200);

/// Removes every pin, and with the last references to them the programs, links and maps. Returns how many there were.
///
/// Works without a daemon and whatever state a dead one left; goes on after errors and returns the first.
///
/// Conversations go back to the host's own rules, which pick up what they see from the client's side first: so nothing is
/// dropped any more, then the uplinks are let go, and after a moment the containers.
pub fn remove_everything(pins: &Pins) -> Result<usize, DatapathError> {
    expedited::set_back();
    let mut first_error = None;
    let mut remnants = Remnant::all(pins)?;
    remnants.sort_by_key(Remnant::turn);
    if !remnants.is_empty()
        && pins.exist()
        && let Err(e) = stop_enforcing(pins)
    {
        first_error = Some(e);
    }
    let mut removed = 0;
    let mut note = |result: std::io::Result<()>| match result {
        Ok(()) => removed += 1,
        Err(e) => {
            first_error.get_or_insert_with(|| DatapathError::Unsupported(e.to_string()));
        }
    };
    let expedited = Expedited::for_programs(remnants.len());
    let mut before = None;
    for remnant in &remnants {
        let turn = remnant.turn();
        if before == Some(Turn::Uplinks) && turn == Turn::Containers {
            std::thread::sleep(HANDOVER);
        }
        before = Some(turn);
        note(remnant.remove());
    }
    drop(expedited);
    // Maps last: programs without them would be a datapath that drops everything.
    for path in pins.entries(&pins.root().join("maps"))? {
        note(fs::remove_file(&path).map_err(|e| Error::new(e.kind(), format!("{}: {e}", path.display()))));
    }
    for folder in [pins.links(), pins.root().join("maps"), pins.root().to_owned()] {
        let _ = fs::remove_dir(folder);
    }
    first_error.map_or(Ok(removed), Err)
}

fn stop_enforcing(pins: &Pins) -> Result<(), DatapathError> {
    let path = pins.map("CONFIG");
    let set = || {
        let mut config: Array<_, Config> = Array::try_from(Map::Array(MapData::from_pin(&path)?))?;
        let now = config.get(&0, 0)?;
        config.set(0, Config { enforce: 0, ..now }, 0)
    };
    set().map_err(|e| pins.error(&path, &chain(&e)))
}
