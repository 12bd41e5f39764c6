//! Published ports and links of containers, in eBPF.
//!
//! Dependencies point one way: `cli` -> `daemon` -> `reconcile` -> `model`, `datapath` and `engine` -> `model`.
//! `model` and `reconcile` do no I/O, and nothing but `datapath` names a map or a hook.

pub mod cli;
pub mod daemon;
pub mod datapath;
pub mod engine;
mod failpoint;
pub mod host;
pub mod model;
pub mod reconcile;
pub mod template;
