//! Containers, publications and links as plain data: no I/O.
//!
//! What people write is read as Docker reads it:
//!
//! ```
//! use runtime_model::{link::parse_link, publish::parse_publish};
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
