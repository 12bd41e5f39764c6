//! From what the engine and the host say to what the kernel is to hold: a pure function.

mod cache;
mod generation;
mod links;
mod masquerade;
mod plan;
mod publish;
mod quota;
mod relay;
pub mod swarm;
mod uplinks;

#[cfg(test)]
mod tests;

pub use cache::Cache;
pub use links::open_ports;
pub use masquerade::Masquerade;
pub use plan::{EndpointPlan, HostsPlan, Isolate, Netfilter, Options, Plan, plan};
pub use relay::{Relay, RelayKey, Relays};
