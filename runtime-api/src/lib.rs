//! What the daemon of `runtime` can be asked, what it answers, and clients.
//!
//! The daemon listens on the Unix socket [`SOCKET_NAME`] in its run directory, for root alone. A connection carries one request and its
//! reply, a line of JSON each; [`wire`] has their form. Every request is a type that names its reply, see [`Call`]:
//!
//! ```no_run
//! use runtime_api::{BlockingClient, Filter, Publish, Status};
//!
//! let daemon = BlockingClient::new("/run/runtime");
//! let made = daemon.call(Publish {
//!     container: "web".to_owned(),
//!     spec: "8080:80".to_owned(),
//!     filter: Filter::default(),
//! })?;
//! println!("{:?}", made.publications);
//! for problem in daemon.call(Status)?.problems {
//!     println!("{problem}");
//! }
//! # Ok::<(), runtime_api::Error>(())
//! ```
//!
//! Lines, and not HTTP: all that a client needs is a socket and a JSON parser, and whoever waits for an answer hears of the daemon's end by
//! the end of the connection.

mod blocking;
#[cfg(feature = "tokio")]
mod client;
mod error;
mod request;
mod rows;
mod status;
pub mod wire;

pub use blocking::BlockingClient;
#[cfg(feature = "tokio")]
pub use client::Client;
pub use error::{Error, Refusal};
pub use request::{
    Call, Down, Link, Links, LivePublications, Ping, Prepare, Publish, Request, Status, Unlink, Unpublish, WaitServed,
};
pub use rows::{Changed, LinkRow, LivePublication, Pong, Published, Served};
pub use runtime_model::filter::Filter;
pub use runtime_model::range::PublicationRange;
pub use status::{
    CounterRow, DropEvent, EndpointRow, FlowCount, HookRow, MasqueradedBy, Netfilter, PublicationRow, StatusReport,
};

/// The name of the daemon's socket in its run directory.
pub const SOCKET_NAME: &str = "runtime.sock";
