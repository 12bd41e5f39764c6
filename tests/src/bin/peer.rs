//! An echo server that says which address it sees: `peer tcp:ADDRESS:PORT udp:ADDRESS:PORT ...`.
//!
//! For measurements, `sink:`, `source:` and `accept:` serve TCP too: the first reads, the second writes, the third closes.
//! `bounce:` and `count:` serve UDP: the first sends each datagram back, the second says how many it has heard to those that
//! ask by a `?`.
//!
//! Over TCP it first sends the line `peer ADDRESS:PORT` and then what it hears; over UDP each answer is that line and the words.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use anyhow::{Context, Result, bail};

fn main() -> Result<()> {
    let mut servers = Vec::new();
    for word in std::env::args().skip(1) {
        let (protocol, address) =
            word.split_once(':').with_context(|| format!("{word:?}: expected tcp:ADDRESS:PORT"))?;
        let address: SocketAddr = address.parse().with_context(|| format!("{word:?}: no address and port"))?;
        servers.push(match protocol {
            "tcp" => {
                let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {word}"))?;
                thread::spawn(move || tcp(&listener))
            }
            "udp" | "bounce" | "count" => {
                let socket = UdpSocket::bind(address).with_context(|| format!("cannot listen on {word}"))?;
                let work = match protocol {
                    "udp" => udp,
                    "bounce" => bounce,
                    _ => count,
                };
                thread::spawn(move || work(&socket))
            }
            "sink" | "source" | "accept" => {
                let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {word}"))?;
                let work = match protocol {
                    "sink" => sink,
                    "source" => source,
                    _ => close,
                };
                thread::spawn(move || one_way(&listener, work))
            }
            _ => bail!("{word:?}: none of tcp, udp, sink, source, accept, bounce, count"),
        });
    }
    if servers.is_empty() {
        bail!("usage: peer tcp:ADDRESS:PORT udp:ADDRESS:PORT ...");
    }
    println!("ready");
    for server in servers {
        if let Ok(end) = server.join() {
            end?;
        }
    }
    Ok(())
}

fn tcp(listener: &TcpListener) -> io::Result<()> {
    loop {
        let (stream, peer) = listener.accept()?;
        // A client that goes away ends its own conversation alone.
        thread::spawn(move || echo(stream, peer));
    }
}

fn echo(mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(format!("peer {peer}\n").as_bytes())?;
    let mut buffer = vec![0; 65536];
    loop {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..n])?;
    }
}

/// Serves one connection after the other, without a thread for each.
fn one_way(listener: &TcpListener, work: fn(TcpStream) -> io::Result<()>) -> io::Result<()> {
    loop {
        // One that was aborted before or during its turn is no reason to stop.
        let _ = listener.accept().and_then(|(stream, _)| work(stream));
    }
}

fn sink(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 65536];
    while stream.read(&mut buffer)? != 0 {}
    Ok(())
}

fn source(mut stream: TcpStream) -> io::Result<()> {
    let buffer = vec![0; 65536];
    loop {
        stream.write_all(&buffer)?;
    }
}

fn close(_: TcpStream) -> io::Result<()> {
    Ok(())
}

fn udp(socket: &UdpSocket) -> io::Result<()> {
    let mut buffer = vec![0; 65536];
    loop {
        // An ICMP error about an earlier answer comes back as an error here, and is no reason to stop.
        let Ok((n, peer)) = socket.recv_from(&mut buffer) else { continue };
        let answer = [format!("peer {peer}\n").as_bytes(), &buffer[..n]].concat();
        let _ = socket.send_to(&answer, peer);
    }
}

fn bounce(socket: &UdpSocket) -> io::Result<()> {
    let mut buffer = [0; 2048];
    loop {
        let Ok((n, peer)) = socket.recv_from(&mut buffer) else { continue };
        let _ = socket.send_to(&buffer[..n], peer);
    }
}

fn count(socket: &UdpSocket) -> io::Result<()> {
    let (mut buffer, mut heard) = ([0; 2048], 0u64);
    loop {
        let Ok((n, peer)) = socket.recv_from(&mut buffer) else { continue };
        heard += 1;
        if buffer[..n].starts_with(b"?") {
            let _ = socket.send_to(&heard.to_be_bytes(), peer);
        }
    }
}
