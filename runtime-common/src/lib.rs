//! What the kernel side and userspace of `runtime` share: addresses, map types, verdicts and every packet decision.
//!
//! Nothing here does I/O or allocates, so that the same code runs in the kernel, in unit tests and in tools.
#![cfg_attr(not(any(test, feature = "user")), no_std)]

mod addr;
pub mod checksum;
pub mod decide;
pub mod maps;
pub mod packet;
mod protocol;
pub mod rewrite;
pub mod router;
mod verdict;

pub use addr::Addr;
pub use protocol::Protocol;
pub use verdict::{Kind, VERDICT_SLOTS, Verdict};
