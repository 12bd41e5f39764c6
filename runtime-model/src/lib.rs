//! Containers, publications and links as plain data: no I/O.

mod container;

pub mod environment;
pub mod filter;
pub mod hosts;
pub mod link;
pub mod live;
pub mod names;
pub mod publish;
pub mod range;

pub use container::*;
