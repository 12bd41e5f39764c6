//! Every program against single packets, by the kernel's own test run.
#![allow(clippy::unwrap_used, reason = "in a test, also in what helps it")]

#[path = "../../runtime-common/tests/forge/mod.rs"]
mod forge;
mod packets {
    mod credible;
    mod errors;
    mod fixtures;
    mod flow;
    mod gate;
    pub mod kernel;
    mod link;
    mod malformed;
    mod neighbours;
    mod outside;
    mod publish;
    mod speed;
    mod spoof;
    mod tcp;
    mod two_networks;
    pub mod world;
}
