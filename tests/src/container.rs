//! A container of the lab, asked for anew each time: addresses and namespaces change with every start.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::engine::Client;
use crate::netns::Netns;
use crate::process::Done;

/// A container by its name or id.
#[derive(Clone, Debug)]
pub struct Container {
    client: Client,
    name: String,
}

impl Container {
    pub(crate) fn new(client: Client, name: &str) -> Self {
        Container { client, name: name.to_owned() }
    }

    /// Its name as it was asked for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What `docker inspect --format TEMPLATE` prints.
    ///
    /// # Panics
    /// When there is no such container.
    #[track_caller]
    pub fn inspect(&self, template: &str) -> String {
        self.docker(["inspect", "--type=container", "--format", template, &self.name]).ok()
    }

    /// The full id.
    #[track_caller]
    pub fn id(&self) -> String {
        self.inspect("{{.Id}}")
    }

    /// Its IPv4 address on the Engine's default network.
    ///
    /// # Panics
    /// When it has none, as while it does not run.
    #[track_caller]
    pub fn ip(&self) -> Ipv4Addr {
        self.ip_on(self.client.default_network())
    }

    /// Its IPv4 address on a network.
    #[track_caller]
    pub fn ip_on(&self, network: &str) -> Ipv4Addr {
        self.address(&format!("{{{{(index .NetworkSettings.Networks {network:?}).IPAddress}}}}"))
    }

    /// Its global IPv6 address on the Engine's default network.
    #[track_caller]
    pub fn ip6(&self) -> Ipv6Addr {
        self.ip6_on(self.client.default_network())
    }

    /// Its global IPv6 address on a network.
    #[track_caller]
    pub fn ip6_on(&self, network: &str) -> Ipv6Addr {
        self.address(&format!("{{{{(index .NetworkSettings.Networks {network:?}).GlobalIPv6Address}}}}"))
    }

    #[track_caller]
    fn address<T: std::str::FromStr>(&self, template: &str) -> T {
        let text = self.inspect(template);
        match text.parse() {
            Ok(address) => address,
            Err(_) => panic!("container {} has no such address: {template} gives {text:?}", self.name),
        }
    }

    /// A socket address at its IPv4 address.
    #[track_caller]
    pub fn at(&self, port: u16) -> SocketAddr {
        (self.ip(), port).into()
    }

    /// The process id of its first process as the machine sees it.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        match self.inspect("{{.State.Pid}}").parse() {
            Ok(pid) if pid != 0 => pid,
            _ => panic!("container {} does not run", self.name),
        }
    }

    /// Its network namespace.
    #[track_caller]
    pub fn ns(&self) -> Netns {
        Netns::at(format!("/proc/{}/ns/net", self.pid()))
    }

    /// Runs a program in it, with its hosts file and environment.
    #[track_caller]
    pub fn exec(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Done {
        let mut all: Vec<std::ffi::OsString> = vec!["exec".into(), (&self.name).into()];
        all.extend(words.into_iter().map(|w| w.as_ref().to_owned()));
        self.docker(all)
    }

    /// Its log so far.
    #[track_caller]
    pub fn logs(&self) -> String {
        let done = self.docker(["logs", &self.name]);
        format!("{}{}", done.stdout, done.stderr)
    }

    #[track_caller]
    fn docker(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Done {
        match self.client.run(words) {
            Ok(done) => done,
            Err(e) => panic!("{e:#}"),
        }
    }
}
