//! Who is who in a group's lab: namespaces and addresses by name.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use anyhow::{Context, Result, bail};
use nix::net::if_::if_nametoindex;
use serde_json::Value;

use super::outcome::{NO_PORT, Question};
use crate::dial::How;
use crate::{Lab, Netns};

/// Containers as the Engine tells of them now.
pub(super) struct World<'l> {
    lab: &'l Lab,
    containers: BTreeMap<String, Value>,
}

impl<'l> World<'l> {
    pub(super) fn look(lab: &'l Lab) -> Result<Self> {
        let ids = lab.docker(["ps", "--quiet"]).ok();
        let mut containers = BTreeMap::new();
        if !ids.is_empty() {
            let text = lab.docker(["inspect", "--type=container"].into_iter().chain(ids.split_whitespace())).ok();
            let all: Vec<Value> = serde_json::from_str(&text).context("docker inspect")?;
            for container in all {
                let name = container["Name"].as_str().unwrap_or_default().trim_start_matches('/').to_owned();
                containers.insert(name, container);
            }
        }
        Ok(World { lab, containers })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.containers.keys().map(String::as_str)
    }

    fn container(&self, name: &str) -> Result<&Value> {
        self.containers.get(name).with_context(|| format!("no container {name:?} runs"))
    }

    /// The namespace of somebody.
    pub(super) fn ns(&self, who: &str) -> Result<Netns> {
        match who {
            "host" => Ok(self.lab.host().clone()),
            "client" => Ok(self.lab.client().clone()),
            "client2" => Ok(self.lab.client2().clone()),
            name => {
                let pid = self.container(name)?["State"]["Pid"].as_u64().filter(|pid| *pid != 0);
                Ok(Netns::at(format!("/proc/{}/ns/net", pid.context("it has no process")?)))
            }
        }
    }

    /// Puts addresses in the place of what stands for them.
    pub(super) fn fill(&self, text: &str) -> Result<String> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, after) = behind.split_once('}').with_context(|| format!("{text:?}: a brace is open"))?;
            filled.push_str(before);
            filled.push_str(&self.address(name).with_context(|| format!("{{{name}}}"))?.to_string());
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }

    /// `NAME[@NETWORK][/6|/fe80]`.
    fn address(&self, text: &str) -> Result<IpAddr> {
        let (text, kind) = text.split_once('/').unwrap_or((text, "4"));
        let (name, network) = text.split_once('@').map_or((text, None), |(name, network)| (name, Some(network)));
        let key = match kind {
            "4" => "IPAddress",
            "6" => "GlobalIPv6Address",
            "fe80" => return link_local(&self.ns(name)?),
            _ => bail!("no kind of address"),
        };
        let networks = self.container(name)?["NetworkSettings"]["Networks"].as_object();
        let mut found = networks.into_iter().flatten().filter(|(n, _)| network.is_none_or(|wish| wish == n.as_str()));
        let found = found.find_map(|(_, e)| e[key].as_str().and_then(|a| a.parse().ok()));
        found.context("it has no such address")
    }

    /// `WHO HOW TARGET [from ADDRESS]`.
    pub(super) fn question(&self, dial: &str) -> Result<Question> {
        let dial = self.fill(dial)?;
        let words: Vec<&str> = dial.split_whitespace().collect();
        let (who, how, target, from) = match words[..] {
            [who, how, target] => (who, how, target, None),
            [who, how, target, "from", from] => (who, how, target, Some(from)),
            _ => bail!("{dial:?}: expected WHO HOW TARGET [from ADDRESS]"),
        };
        let how = match how {
            "tcp" => Some(How::Tcp),
            "udp" => Some(How::Connected),
            "datagram" => Some(How::Unconnected),
            "ping" => None,
            _ => bail!("{dial:?}: none of tcp, udp, datagram, ping"),
        };
        let ns = self.ns(who)?;
        let to = match how {
            Some(_) => socket_address(&ns, target)?,
            None => (target.parse::<IpAddr>().with_context(|| target.to_owned())?, NO_PORT).into(),
        };
        let from = from.map(|a| a.parse().with_context(|| a.to_owned())).transpose()?;
        Ok(Question { ns, how, to, from })
    }
}

/// An address and port; a link-local one names its interface: `[fe80::1%eth0]:7`.
fn socket_address(ns: &Netns, text: &str) -> Result<SocketAddr> {
    let Some((address, behind)) = text.split_once('%') else {
        return text.parse().with_context(|| format!("{text:?} is no address and port"));
    };
    let (interface, port) = behind.split_once("]:").with_context(|| text.to_owned())?;
    let scope = ns.within(|| if_nametoindex(interface)).with_context(|| interface.to_owned())?;
    let address = address.trim_start_matches('[').parse().with_context(|| text.to_owned())?;
    Ok(SocketAddrV6::new(address, port.parse()?, 0, scope).into())
}

fn link_local(ns: &Netns) -> Result<IpAddr> {
    let text = ns.must(["ip", "-6", "-o", "address", "show", "dev", "eth0", "scope", "link"])?;
    let address = text.split_whitespace().skip_while(|w| *w != "inet6").nth(1).and_then(|a| a.split('/').next());
    address.and_then(|a| a.parse().ok()).context("its eth0 has no link-local address")
}
