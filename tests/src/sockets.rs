//! Clients for the servers in the lab, with real sockets.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::Netns;
use crate::process::Background;
use crate::runtime::beside;
use crate::wait::{patient, wait_for};

/// How long a client waits for a connection or an answer: far longer than the lab needs, short enough to fail by.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Goes on with what was interrupted: a process that is stopped and goes on, a signal that nobody handles even, ends a wait of
/// a socket with a timeout (signal(7)), and says nothing of the other end.
pub fn uninterrupted<T>(mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match operation() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// A UDP socket that is bound to an address and port. One that was closed a moment ago may still have it: a child of another
/// test holds all of the process's descriptors until it runs its own program.
pub fn bind_udp(to: impl Into<SocketAddr>) -> io::Result<UdpSocket> {
    let to = to.into();
    let bound = wait_for(PATIENCE, || match UdpSocket::bind(to) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => None,
        outcome => Some(outcome),
    });
    bound.unwrap_or_else(|| UdpSocket::bind(to))
}

pub(crate) fn connect(from: Option<SocketAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(from) = from {
        socket.set_reuse_address(true)?;
        socket.bind(&SockAddr::from(from))?;
    }
    socket.connect_timeout(&SockAddr::from(to), PATIENCE)?;
    // Who was let in is waited for longer on a slow machine; whether nobody is, shows as soon there.
    let patience = patient(PATIENCE);
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(stream)
}

/// A conversation over TCP with the echo server of [`crate::Image::Echo`].
#[derive(Debug)]
pub struct Talk {
    stream: BufReader<TcpStream>,
    seen: SocketAddr,
    ours: SocketAddr,
}

impl Talk {
    /// Connects, and hears which address the server sees.
    pub fn open(ns: &Netns, to: impl Into<SocketAddr>) -> io::Result<Talk> {
        Talk::over(ns.tcp(to)?)
    }

    /// As [`Talk::open`], but waits until the server is up.
    ///
    /// # Panics
    /// When it does not answer within ten seconds.
    #[track_caller]
    pub fn when_up(ns: &Netns, to: impl Into<SocketAddr>) -> Talk {
        let to = to.into();
        let mut last = None;
        let talk = wait_for(Duration::from_secs(10), || Talk::open(ns, to).map_err(|e| last = Some(e)).ok());
        match talk {
            Some(talk) => talk,
            None => panic!("no echo server answers at {to}: {last:?}"),
        }
    }

    /// Over a connection that stands.
    pub fn over(stream: TcpStream) -> io::Result<Talk> {
        let ours = stream.local_addr()?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let seen = line.strip_prefix("peer ").and_then(|a| a.trim().parse().ok());
        let seen = seen.ok_or_else(|| io::Error::other(format!("no echo server: it says {line:?}")))?;
        Ok(Talk { stream, seen, ours })
    }

    /// The address and port of the client as the server sees them.
    pub fn seen(&self) -> SocketAddr {
        self.seen
    }

    /// The client's own address and port.
    pub fn ours(&self) -> SocketAddr {
        self.ours
    }

    /// Says something and hears it back.
    pub fn say(&mut self, words: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(words)?;
        let mut heard = vec![0; words.len()];
        self.stream.read_exact(&mut heard)?;
        if heard != words {
            return Err(io::Error::other("the echo differs from what was said"));
        }
        Ok(())
    }

    /// Waits, saying nothing, until the other end ends the conversation: `Ok` by a FIN, an error by a RST, by an abort of this
    /// end, or (see [`is_silence`]) not within a second.
    pub fn hear_the_end(&mut self) -> io::Result<()> {
        match uninterrupted(|| self.stream.read(&mut [0]))? {
            0 => Ok(()),
            _ => Err(io::Error::other("the other end says something instead")),
        }
    }

    /// Says that nothing more will be said.
    pub fn finish_saying(&self) -> io::Result<()> {
        self.stream.get_ref().shutdown(std::net::Shutdown::Write)
    }

    /// Sends `bytes` bytes of a pattern while it reads them back, and compares; `progress` hears how many came back so far.
    pub fn transfer(&mut self, bytes: usize, mut progress: impl FnMut(usize)) -> io::Result<()> {
        let pattern = |at: usize| (at.wrapping_mul(31) >> 3) as u8;
        let mut writer = self.stream.get_ref().try_clone()?;
        std::thread::scope(|scope| {
            let sender = scope.spawn(move || -> io::Result<()> {
                let mut sent = 0;
                while sent < bytes {
                    let next = (sent + 16384).min(bytes);
                    writer.write_all(&(sent..next).map(pattern).collect::<Vec<u8>>())?;
                    sent = next;
                }
                Ok(())
            });
            let mut buffer = vec![0; 16384];
            let mut heard = 0;
            let outcome = loop {
                if heard == bytes {
                    break Ok(());
                }
                match uninterrupted(|| self.stream.read(&mut buffer)) {
                    Ok(0) => break Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(n) => {
                        if let Some(i) = (0..n).find(|i| buffer[*i] != pattern(heard + i)) {
                            break Err(io::Error::other(format!("byte {} differs", heard + i)));
                        }
                        heard += n;
                        progress(heard);
                    }
                    Err(e) => break Err(e),
                }
            };
            if outcome.is_err() {
                // The sender may be waiting for room that never comes.
                let _ = self.stream.get_ref().shutdown(std::net::Shutdown::Both);
            }
            let sent = sender.join().unwrap_or_else(|_| Err(io::Error::other("the sender panicked")));
            outcome.and(sent)
        })
    }
}

/// The answer of a UDP echo server: which address it sees, and whether the words came back whole.
pub fn ask(socket: &UdpSocket, words: &[u8]) -> io::Result<SocketAddr> {
    socket.send(words)?;
    let mut buffer = vec![0; 65536];
    // An answer to an earlier question may still be under way.
    loop {
        let n = uninterrupted(|| socket.recv(&mut buffer))?;
        let (head, tail) = buffer[..n].split_at(buffer[..n].iter().position(|b| *b == b'\n').unwrap_or(n));
        let seen = std::str::from_utf8(head).ok().and_then(|h| h.strip_prefix("peer ")).and_then(|a| a.parse().ok());
        if tail.get(1..) == Some(words) {
            return seen.ok_or_else(|| io::Error::other("the echo server names no peer"));
        }
    }
}

/// Asks the UDP echo server at `to` from a new socket; gives the address it sees and the socket's own port.
pub fn ask_once(ns: &Netns, to: impl Into<SocketAddr>, words: &[u8]) -> io::Result<(SocketAddr, u16)> {
    let socket = ns.udp(to)?;
    let seen = ask(&socket, words)?;
    Ok((seen, socket.local_addr()?.port()))
}

/// As [`ask_once`], but waits until the server is up.
///
/// # Panics
/// When it does not answer within ten seconds.
#[track_caller]
pub fn ask_when_up(ns: &Netns, to: impl Into<SocketAddr>, words: &[u8]) -> (SocketAddr, u16) {
    let to = to.into();
    match wait_for(Duration::from_secs(10), || ask_once(ns, to, words).ok()) {
        Some(answer) => answer,
        None => panic!("no UDP echo server answers at {to}"),
    }
}

/// The body of the page `/` of an HTTP server.
pub fn http_get(ns: &Netns, to: impl Into<SocketAddr>) -> io::Result<String> {
    let to = to.into();
    let mut stream = ns.tcp(to)?;
    write!(stream, "GET / HTTP/1.0\r\nHost: {}\r\n\r\n", to.ip())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((_, body)) => Ok(body.to_owned()),
        None => Err(io::Error::other(format!("no HTTP answer: {answer:?}"))),
    }
}

/// Starts the echo server in a namespace, outside of any container; `addresses` as for its command line.
#[track_caller]
pub fn serve(ns: &Netns, log: &Path, addresses: &[&str]) -> Background {
    match beside("peer", "cargo build -p tests --bins") {
        Ok(peer) => ns.spawn(log, std::iter::once(peer.as_os_str()).chain(addresses.iter().map(OsStr::new))),
        Err(e) => panic!("{e:#}"),
    }
}

/// Whether something was refused by silence (a drop), and not by an answer such as RST.
pub fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

/// Sends one echo request; whether the reply comes within a second.
pub fn pings(ns: &Netns, to: impl Into<IpAddr>) -> bool {
    ns.run(["ping", "-n", "-c", "1", "-W", "1", &to.into().to_string()]).success()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_interrupted_goes_on_and_what_fails_fails() {
        use io::ErrorKind::{ConnectionReset, Interrupted};
        let mut outcomes = [Err(Interrupted), Err(Interrupted), Ok(7), Err(ConnectionReset)].into_iter();
        let mut operation = || outcomes.next().expect("not asked again").map_err(io::Error::from);
        assert_eq!(uninterrupted(&mut operation).expect("it went on"), 7);
        assert_eq!(uninterrupted(&mut operation).expect_err("it failed").kind(), ConnectionReset);
    }
}
