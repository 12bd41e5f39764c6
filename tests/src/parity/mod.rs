//! The differential test: what Docker alone lets through, and what is let through beside `runtime up`.
//!
//! A [`Group`] is data: how the host and its containers are set up, and [`Case`]s: who dials what. Everything is asked three
//! times of the same containers: with Docker alone, with the datapath, and after `runtime down`. The outcomes have to be equal:
//! reached or not, which address the server sees, which address answers. A difference must stand in a list, with its reason,
//! and must look as that reason has it.
//!
//! # Set-up
//! Lines, each a command; the first word says where:
//!
//! | line | does |
//! |---|---|
//! | `docker WORDS` | the Engine's client |
//! | `run NAME WORDS` | `docker run -d --name NAME WORDS` |
//! | `host WORDS`, `client WORDS`, `client2 WORDS` | a program of the machine in that namespace |
//! | `engine WORDS` | a program that came with the Engine, beside it: `iptables` of its own version |
//! | `in NAME WORDS` | a program of the machine in that container's network |
//! | `serve WHO tcp:ADDRESS:PORT ...` | the echo server there, outside of any container |
//!
//! The word `ECHO` stands for the image and command of an echo server on port 7, TCP and UDP, of both families.
//!
//! # Cases
//! `WHO HOW TARGET [from ADDRESS]`: WHO as above or a container's name; HOW is `tcp`, `udp` (a connected socket), `datagram` (one
//! that names its target each time) or `ping`.
//!
//! In both, `{web}` stands for the container's IPv4 address, `{web@net}` for that on a network, `{web/6}` and `{web@net/6}` for
//! those of IPv6, and `{web/fe80}` for the link-local one of its `eth0`.

mod case;
mod outcome;
mod report;
mod run;
mod script;
mod world;

pub use case::{Alone, Case, Difference, Group, Stage, Why, case, maybe, refused};
pub use outcome::Outcome;
pub use run::run;
