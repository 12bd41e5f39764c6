//! From what the engine and the host say to what the kernel is to hold: a pure function.

mod cache;
mod endpoint;
mod generation;
mod links;
mod masquerade;
mod options;
mod plan;
mod planner;
mod publish;
mod quota;
mod relay;
pub mod swarm;
mod uplinks;

#[cfg(test)]
mod tests;

pub use cache::Cache;
pub use endpoint::EndpointPlan;
pub use links::open_ports;
pub use masquerade::Masquerade;
pub use options::{Isolate, Netfilter, Options};
pub use plan::{HostsPlan, Plan};
pub use planner::plan;
pub use relay::{Relay, RelayKey, Relays};
