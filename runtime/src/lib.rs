//! Published ports and links of containers, in eBPF.
//!
//! Dependencies point one way: `cli` -> `daemon` -> `reconcile` -> `model`, `datapath` and `engine` -> `model`.
//! `model` (the crate `runtime-model`) and `reconcile` do no I/O, and nothing but `datapath` names a map or a hook. What goes over the
//! daemon's socket is `runtime-api`'s.

pub mod cli;
pub mod daemon;
pub mod datapath;
pub mod engine;
mod failpoint;
pub mod host;
pub mod reconcile;
pub mod template;

pub use runtime_model as model;
