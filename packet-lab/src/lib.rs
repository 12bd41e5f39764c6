//! The verified programs in the kernel, attached and pinned nowhere, run with single packets by its own test run
//! (`BPF_PROG_TEST_RUN`).
//!
//! [`kernel`] loads them and reads what they counted; [`world`] is a small host around them, with containers, publications and
//! links, in which packets of [`packet_builder`] are sent and what comes of them is asserted.
#![allow(clippy::unwrap_used, reason = "for tests alone")]

mod elements;
pub mod kernel;
mod reuse;
pub mod world;
