//! The engine's own proxies: processes that pass published ports on to containers.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;

/// The program's name with Docker.
const NAME: &str = "docker-proxy";

/// Where proxies of this network namespace listen, with the name of the protocol.
pub fn listening_proxies() -> HashSet<(SocketAddr, String)> {
    let own = fs::read_link("/proc/thread-self/ns/net").ok();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|e| e.path());
    let proxies = processes.filter_map(|process| {
        // Processes come and go: one that cannot be read is gone.
        let command = fs::read(process.join("cmdline")).ok()?;
        let found = parse(&String::from_utf8_lossy(&command))?;
        (fs::read_link(process.join("ns/net")).ok() == own).then_some(found)
    });
    proxies.collect()
}

/// A command line as /proc has it: `docker-proxy -proto tcp -host-ip :: -host-port 8000 ...`, a zero behind each word.
fn parse(command: &str) -> Option<(SocketAddr, String)> {
    let words: Vec<&str> = command.split('\0').collect();
    if words.first()?.rsplit('/').next()? != NAME {
        return None;
    }
    let value = |name: &str| words.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1]);
    let address = SocketAddr::new(value("-host-ip")?.parse().ok()?, value("-host-port")?.parse().ok()?);
    Some((address, value("-proto")?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxys_command_line() {
        let words = "/usr/bin/docker-proxy -proto tcp -host-ip :: -host-port 8000 -container-ip 172.17.0.2 ";
        let command = words.replace(' ', "\0");
        assert_eq!(parse(&command), Some(("[::]:8000".parse().unwrap(), "tcp".to_owned())));
        assert_eq!(parse(&format!("vi\0{command}")), None);
        assert_eq!(parse(""), None);
    }
}
