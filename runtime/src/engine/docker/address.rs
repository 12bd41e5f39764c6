//! Where an Engine listens, in the words of `DOCKER_HOST`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a Docker Engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `unix:///path`: a socket of this machine.
    Unix(PathBuf),
    /// `tcp://host:port`, without TLS.
    Tcp(String),
}

/// The text is no address of an Engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid address of a Docker Engine \"{0}\": expected unix:///PATH or tcp://HOST:PORT")]
pub struct InvalidAddress(pub String);

/// The port of `tcp://HOST` alone, as in Docker's own client.
const DEFAULT_TCP_PORT: u16 = 2375;

impl Default for Address {
    fn default() -> Self {
        Address::Unix("/var/run/docker.sock".into())
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(s: &str) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress(s.to_owned());
        if let Some(path) = s.strip_prefix("unix://") {
            return if path.starts_with('/') { Ok(Address::Unix(path.into())) } else { Err(invalid()) };
        }
        let authority = s.strip_prefix("tcp://").ok_or_else(invalid)?.trim_end_matches('/');
        let with_port = match authority.rsplit_once(':') {
            // A colon inside brackets belongs to an IPv6 address.
            Some((_, port)) if !port.contains(']') => authority.to_owned(),
            _ => format!("{authority}:{DEFAULT_TCP_PORT}"),
        };
        let uri: hyper::Uri = format!("http://{with_port}").parse().map_err(|_| invalid())?;
        match (uri.host(), uri.port_u16()) {
            (Some(host), Some(_)) if !host.is_empty() && uri.path() == "/" => Ok(Address::Tcp(with_port)),
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
            Address::Tcp(host) => write!(f, "tcp://{host}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_forms_of_docker_host() {
        assert_eq!("unix:///run/x.sock".parse(), Ok(Address::Unix("/run/x.sock".into())));
        assert_eq!("tcp://192.0.2.1:2376".parse(), Ok(Address::Tcp("192.0.2.1:2376".into())));
        assert_eq!("tcp://[2001:db8::1]:2376/".parse(), Ok(Address::Tcp("[2001:db8::1]:2376".into())));
        assert_eq!("tcp://engine".parse(), Ok(Address::Tcp("engine:2375".into())));
        assert_eq!("tcp://[::1]".parse(), Ok(Address::Tcp("[::1]:2375".into())));
    }

    #[test]
    fn refuses_what_it_cannot_reach() {
        for bad in
            ["", "unix://", "unix://relative", "tcp://", "tcp://h:x", "tcp://h:1/path", "ssh://h", "/run/docker.sock"]
        {
            let error = bad.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(&format!("\"{bad}\"")), "{error}");
        }
    }
}
