//! Every program against single packets, by the kernel's own test run.
#![allow(clippy::unwrap_used, reason = "in a test, also in what helps it")]

mod packets {
    mod credible;
    mod errors;
    mod fixtures;
    mod flow;
    mod gate;
    mod link;
    mod malformed;
    mod neighbours;
    mod outside;
    mod publish;
    mod speed;
    mod spoof;
    mod tcp;
    mod two_networks;
}
