//! Packet cases: worlds and packets as data, and what decides about them.
//!
//! A [`world::Case`] is run by the host build ([`host`]), the naive model ([`model`]), and, by the tests that load them, the
//! kernel's verified programs.
#![allow(clippy::unwrap_used, reason = "in a test, also in what helps it")]

pub mod compare;
pub mod entries;
pub mod fixture;
pub mod generate;
#[path = "../../tests/tests/packets/kernel.rs"]
pub mod harness;
pub mod host;
pub mod kernel;
pub mod model;
pub mod packet;
pub mod shrink;
pub mod text;
pub mod world;
