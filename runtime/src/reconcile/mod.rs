//! From what the engine and the host say to what the kernel is to hold: a pure function.

mod generation;
mod plan;

#[cfg(test)]
mod tests;

pub use plan::{EndpointPlan, HostsPlan, Isolate, Options, Plan, open_ports, plan};
