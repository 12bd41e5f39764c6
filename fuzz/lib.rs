//! What the targets check: the functions that the workspace's tests call with texts by chance.
#![allow(clippy::unwrap_used, reason = "in a test, also in what helps it")]

#[path = "../runtime/tests/parsers/checks.rs"]
pub mod checks;
