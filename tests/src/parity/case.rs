//! What a table is made of.

use std::net::SocketAddr;

use super::Outcome;
use crate::engine::EngineName;

/// What a case does with Docker alone: without, a table of cases that all fail would be in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alone {
    /// The server answers.
    Reached,
    /// It does not.
    Refused,
    /// That depends on the Engine.
    Depends,
}

/// Who dials what.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What it is about; unique in its group.
    pub name: &'static str,
    /// `WHO HOW TARGET [from ADDRESS]`.
    pub dial: &'static str,
    /// What becomes of it with Docker alone.
    pub alone: Alone,
}

/// A case that Docker alone lets through.
pub const fn case(name: &'static str, dial: &'static str) -> Case {
    Case { name, dial, alone: Alone::Reached }
}

/// A case that Docker alone does not let through.
pub const fn refused(name: &'static str, dial: &'static str) -> Case {
    Case { name, dial, alone: Alone::Refused }
}

/// A case that some Engines let through, and others do not.
pub const fn maybe(name: &'static str, dial: &'static str) -> Case {
    Case { name, dial, alone: Alone::Depends }
}

/// A moment of a group: something is changed, then these are asked.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// What is changed before; lines as in the set-up.
    pub change: &'static str,
    /// Who dials what then.
    pub cases: &'static [Case],
}

/// Cases that share a lab.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Its name in the list of differences.
    pub name: &'static str,
    /// The Engine that has what it is about; `None` for any.
    pub engine: Option<EngineName>,
    /// Arguments of dockerd.
    pub dockerd: &'static [&'static str],
    /// Arguments of `runtime up`.
    pub up: &'static [&'static str],
    /// Whether there is a second uplink, with the second client behind it.
    pub second_uplink: bool,
    /// Lines that set up host and containers.
    pub setup: &'static str,
    /// What is asked, one after the other.
    pub stages: &'static [Stage],
    /// What leads from the last stage back to the first.
    pub undo: &'static str,
}

impl Group {
    /// On any Engine with docker-proxy, as Docker comes; nothing set up, nothing asked.
    pub const NONE: Group =
        Group { name: "", engine: None, dockerd: &[], up: &[], second_uplink: false, setup: "", stages: &[], undo: "" };

    /// All of its cases.
    pub fn cases(&self) -> impl Iterator<Item = &'static Case> {
        self.stages.iter().flat_map(|stage| stage.cases)
    }
}

/// Why a case may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The network is isolated: what nobody linked or published is not reached.
    Isolation,
    /// The server sees the client's own port, and its address or that of the host on the server's network.
    ClientAddress,
    /// It was asked for, and Docker does not serve it.
    AskedFor(&'static str),
    /// A fault that is known: what has to be done.
    ToMend(&'static str),
}

impl Why {
    /// Whether the outcomes differ as this reason has it.
    pub(super) fn explains(self, alone: &Outcome, served: &Outcome) -> bool {
        match self {
            Why::Isolation => alone.is_reached() && !served.is_reached(),
            Why::ClientAddress => alone.answers_as(served) && matches!(served, Outcome::Reached { own_port: true, .. }),
            Why::AskedFor(_) => !alone.is_reached() && served.is_reached(),
            Why::ToMend(_) => true,
        }
    }
}

/// What is true of every case: docker-proxy hides the client and answers containers from whichever address suits, the datapath
/// keeps the client's address and answers from the one that was dialled.
pub(super) fn is_proxys_doing(alone: &Outcome, served: &Outcome, dialled: SocketAddr) -> bool {
    match (alone, served) {
        (Outcome::Reached { own_port, .. }, Outcome::Reached { own_port: kept, answered, .. }) => {
            !own_port && *kept && *answered == dialled
        }
        _ => false,
    }
}

/// Differences that are known.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    /// The group's name.
    pub group: &'static str,
    /// The Engine on which they agree; `None` where they do on none.
    pub except: Option<EngineName>,
    /// Why.
    pub why: Why,
    /// The cases.
    pub cases: &'static [&'static str],
}
