//! Packet cases: worlds and packets as data, and what decides about them.
//!
//! A [`world::Case`] is run by the host build ([`host`]), the naive model ([`model`]), and, by the tests that load them, the
//! kernel's verified programs.
//!
//! # A tour
//!
//! [`fixture`] reads cases that people wrote, [`generate`] makes others by chance, [`compare`] holds what decides about them
//! against each other, and [`shrink`] makes a case small in which two of them differ.
//!
//! ```
//! use packet_cases::{compare::by_host, fixture};
//!
//! let text = "
//! case a link leads from recipient to source
//! for family v4
//! link web db 5432/tcp
//! from web: tcp web:40000 > db:5432 syn
//! => linked into db
//! ";
//! let fixture = fixture::read("example", text)?.remove(0);
//! let (outcomes, _) = by_host(&fixture.case, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
//! assert_eq!(outcomes[0].verdict, Some("linked"));
//! assert_eq!(outcomes, fixture.expected);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![warn(rustdoc::broken_intra_doc_links, rustdoc::private_intra_doc_links, rustdoc::invalid_html_tags)]
#![allow(clippy::unwrap_used, reason = "in a test, also in what helps it")]

pub mod bytes;
pub mod compare;
pub mod entries;
pub mod fixture;
pub mod generate;
pub mod host;
pub mod kernel;
pub mod model;
pub mod packet;
pub mod shrink;
pub mod text;
pub mod world;
