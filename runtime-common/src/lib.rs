//! What the kernel side and userspace of `runtime` share: addresses, map types, verdicts and every packet decision.
//!
//! Nothing here does I/O or allocates, so that the same code runs in the kernel, in unit tests and in tools.
#![cfg_attr(not(test), no_std)]

mod addr;
mod protocol;

pub use addr::Addr;
pub use protocol::Protocol;
