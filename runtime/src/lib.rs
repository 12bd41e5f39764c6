//! Published ports and links of containers, in eBPF.
//!
//! Dependencies point one way: `cli` -> `daemon` -> `reconcile` -> `model`, `datapath` and `engine` -> `model`.
//! `model` (the crate `runtime-model`) and `reconcile` do no I/O, and nothing but `datapath` names a map or a hook. What goes over the
//! daemon's socket is `runtime-api`'s.
//!
//! # A tour
//!
//! 1. [`engine`] asks Docker or Podman what runs, and hears what changes: a [`model::Snapshot`].
//! 2. [`host`] says what the host has: interfaces, routes, sockets, firewall rules.
//! 3. [`reconcile`] makes of both a [`reconcile::Plan`]: what the kernel is to hold. It is a pure function.
//! 4. [`datapath`] loads, attaches, pins and adopts the programs, and writes the differences of two plans into their maps.
//! 5. [`daemon`] keeps these four together, and answers the commands of [`cli`] on a Unix socket.
//!
//! What people write is read in [`model`], as Docker reads it:
//!
//! ```
//! use runtime::model::{link::parse_link, publish::parse_publish};
//!
//! let ports = parse_publish("127.0.0.1:8000-8002:80-82/udp")?;
//! assert_eq!(ports.len(), 3);
//! assert_eq!(ports[2].to_string(), "127.0.0.1:8002:82/udp");
//! assert!(parse_publish("8080:80/icmp").is_err());
//!
//! let link = parse_link("db:webdb")?;
//! assert_eq!((link.source.as_str(), link.alias.as_str()), ("db", "webdb"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![warn(rustdoc::broken_intra_doc_links, rustdoc::private_intra_doc_links, rustdoc::invalid_html_tags)]

pub mod cli;
pub mod daemon;
pub mod datapath;
pub mod engine;
mod failpoint;
pub mod host;
pub mod reconcile;
pub mod template;

pub use runtime_model as model;
