//! What the kernel side and userspace of `runtime` share: addresses, map types, verdicts and every packet decision.
//!
//! Nothing here does I/O or allocates, so that the same code runs in the kernel, in unit tests and in tools.
//!
//! # A tour
//!
//! A packet goes through [`packet`] (its headers are read), [`decide`] (is it of a known flow, may it begin one, from which
//! source port) and [`rewrite`] (addresses, ports and checksums). [`maps`] has the keys and values of the tables that are
//! looked into, [`icmp_error`] what is said back where a packet's hops or the MTU run out. Whatever is decided is a [`Verdict`].
//!
//! ```
//! use runtime_common::{Addr, Kind, Verdict};
//!
//! // One code path for both families: IPv4 is mapped.
//! let address = Addr::from("192.0.2.1".parse::<std::net::IpAddr>()?);
//! assert_eq!(address.to_ip().to_string(), "192.0.2.1");
//!
//! // Numbers, names and kinds are those of the counters, the command line and the documents.
//! let refused = Verdict::NotLinked;
//! assert_eq!((refused as u32, refused.name(), refused.kind()), (40, "not_linked", Kind::Drop));
//! # Ok::<(), std::net::AddrParseError>(())
//! ```
#![cfg_attr(not(any(test, feature = "user")), no_std)]
#![warn(rustdoc::broken_intra_doc_links, rustdoc::private_intra_doc_links, rustdoc::invalid_html_tags)]

mod addr;
pub mod checksum;
pub mod decide;
pub mod icmp_error;
pub mod maps;
pub mod packet;
mod protocol;
pub mod rewrite;
mod verdict;

pub use addr::Addr;
pub use protocol::Protocol;
pub use verdict::{Kind, VERDICT_SLOTS, Verdict};
