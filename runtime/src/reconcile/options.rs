//! What the user asked of the whole.

use serde::{Deserialize, Serialize};

use super::masquerade::Masquerade;

/// The label that isolates a network.
pub const ISOLATE_LABEL: &str = "runtime.isolate";

/// Which networks are isolated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Isolate {
    /// Every bridge network.
    All,
    /// The engine's default bridge, and networks labelled `runtime.isolate=true`.
    #[default]
    Default,
    /// None: publications are served, and containers talk as the engine lets them.
    None,
}

/// What the host's firewall has to say of conversations with published ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Netfilter {
    /// Nothing: packets are redirected past it.
    #[default]
    Bypass,
    /// Whether they may begin: the first packets go through the host's stack.
    Honor,
}

impl From<Netfilter> for runtime_api::Netfilter {
    fn from(mode: Netfilter) -> Self {
        match mode {
            Netfilter::Bypass => runtime_api::Netfilter::Bypass,
            Netfilter::Honor => runtime_api::Netfilter::Honor,
        }
    }
}

/// What the user asked of the whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Which networks are isolated.
    pub isolate: Isolate,
    /// Names of uplinks; empty to find them.
    pub uplinks: Vec<String>,
    /// Who gives containers' own conversations with the outside an address of the host's.
    pub masquerade: Masquerade,
    /// What the host's firewall decides.
    pub netfilter: Netfilter,
}
