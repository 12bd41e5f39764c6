//! Decisions about packets, on the host and with ordinary collections for maps.
#![allow(clippy::unwrap_used, reason = "in a test, also in what helps it")]

mod decide {
    mod credible;
    mod deferred;
    mod errors;
    pub mod frame;
    mod fuzz;
    mod host;
    mod masquerade;
    mod parse;
    mod policy;
    mod shares;
    mod tcp;
    pub mod world;
}
