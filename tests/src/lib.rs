//! The lab: network namespaces with a real Engine in one of them, and what tests need to look at it from outside.
//!
//! ```text
//!   client 192.0.2.2 ---+
//!                       +--- switch (192.0.2.254) --- eth0 host 192.0.2.1 --- docker0, containers
//!   client2 192.0.2.3 --+                             eth1 host 198.51.100.1   (with `second_uplink`)
//! ```
//!
//! A [`Lab`] makes its own namespaces, Engine and folders under names that no other lab uses, and removes all of them when it
//! is dropped, also by a panic. What a killed run left is swept when the next lab starts. Whatever is missing on the
//! machine (root, a program, a feature of the kernel) fails the test with the remedy: nothing is skipped.
//!
//! # A scenario
//!
//! ```no_run
//! use tests::sockets::Talk;
//! use tests::{HOST, Image, Lab};
//!
//! let lab = Lab::builder("an example").images(&[Image::Echo]).build();
//! let up = lab.up(&[]);
//! lab.run("echo", &["-p", "7:7", "echo"]);
//! let stranger = lab.run("stranger", &["echo"]);
//! // From outside, through the published port: the datapath carries it.
//! lab.assert_carried(|| Talk::open(lab.client(), (HOST, 7)).expect("an answer"));
//! // Nobody else gets in, and the reason is counted.
//! let echo = lab.container("echo").at(7);
//! assert!(lab.assert_dropped("not_linked", || stranger.ns().tcp(echo)).is_err());
//! up.kill();
//! ```
#![warn(rustdoc::broken_intra_doc_links, rustdoc::private_intra_doc_links, rustdoc::invalid_html_tags)]

mod container;
pub mod crowd;
pub mod dial;
pub mod docs;
mod engine;
pub mod entries;
pub mod far;
pub mod frames;
mod images;
mod lab;
mod netns;
pub mod parity;
mod process;
mod requirements;
mod runtime;
pub mod soak;
pub mod sockets;
mod sweep;
pub mod traces;
mod wait;
mod wiring;

pub use container::Container;
pub use engine::EngineName;
pub use images::Image;
pub use lab::{Builder, CLIENT, CLIENT2, HOST, HOST2, Lab};
pub use netns::Netns;
pub use process::{Background, Done};
pub use runtime::{Counters, Up};
pub use wait::{wait_for, wait_until};
