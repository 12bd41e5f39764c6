//! One client's load on a server, for a bounded time.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use socket2::SockRef;
use tests::sockets::Talk;

/// Where `peer` listens: echo, reader, writer, and what accepts and closes; echo over UDP.
pub const ECHO: u16 = 7000;
pub const SINK: u16 = 7001;
pub const SOURCE: u16 = 7002;
pub const ACCEPT: u16 = 7003;

/// Longer than it takes until a lost SYN is sent again.
const LIMIT: Duration = Duration::from_secs(3);
/// Datagrams under way at once.
const WINDOW: usize = 32;

/// Name, unit, and whether more is better; [`measure`] gives the figures in this order.
pub const MEASURES: [(&str, &str, bool); 8] = [
    ("TCP stream to the server", "bytes/s", true),
    ("TCP stream from the server", "bytes/s", true),
    ("connections", "1/s", true),
    ("connect p50", "s", false),
    ("connect p99", "s", false),
    ("request/response p50", "s", false),
    ("request/response p99", "s", false),
    ("small UDP, echoed, 32 under way", "datagrams/s", true),
];

/// Measures everything once, with the ports moved by `shift`, from the calling thread, which stays on `core`; each load lasts `time`.
pub fn measure(server: IpAddr, shift: u16, core: usize, time: Duration) -> io::Result<[f64; 8]> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &cores)?;
    let at = |port: u16| SocketAddr::from((server, port + shift));
    let (connections, connect) = connections(at(ACCEPT), time)?;
    let talk = talk(at(ECHO), time)?;
    Ok([
        upload(at(SINK), time)?,
        download(at(SOURCE), time)?,
        connections,
        quantile(&connect, 0.5),
        quantile(&connect, 0.99),
        quantile(&talk, 0.5),
        quantile(&talk, 0.99),
        datagrams(at(ECHO), time)?,
    ])
}

fn dial(server: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn rate(count: usize, start: Instant) -> f64 {
    count as f64 / start.elapsed().as_secs_f64()
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = (share * sorted.len() as f64) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

fn sorted(mut times: Vec<f64>) -> Vec<f64> {
    times.sort_unstable_by(f64::total_cmp);
    times
}

fn upload(server: SocketAddr, time: Duration) -> io::Result<f64> {
    let mut stream = dial(server)?;
    let (start, bytes, mut sent) = (Instant::now(), [0; 65536], 0);
    while start.elapsed() < time {
        sent += stream.write(&bytes)?;
    }
    Ok(rate(sent, start))
}

fn download(server: SocketAddr, time: Duration) -> io::Result<f64> {
    let mut stream = dial(server)?;
    let (start, mut bytes, mut heard) = (Instant::now(), [0; 65536], 0);
    while start.elapsed() < time {
        match stream.read(&mut bytes)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => heard += n,
        }
    }
    Ok(rate(heard, start))
}

/// Connections per second, and how long each took to stand, in seconds.
fn connections(server: SocketAddr, time: Duration) -> io::Result<(f64, Vec<f64>)> {
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < time {
        let before = Instant::now();
        let mut stream = TcpStream::connect_timeout(&server, LIMIT)?;
        times.push(before.elapsed().as_secs_f64());
        // The server's turn: without it the client would run ahead until the backlog overflows.
        stream.set_read_timeout(Some(LIMIT))?;
        let _ = stream.read(&mut [0])?;
        // Ended by RST: no port waits in TIME_WAIT, so that a long run does not use them up.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    }
    Ok((rate(times.len(), start), sorted(times)))
}

fn talk(server: SocketAddr, time: Duration) -> io::Result<Vec<f64>> {
    let mut talk = Talk::over(dial(server)?)?;
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < time {
        let before = Instant::now();
        talk.say(b"a question")?;
        times.push(before.elapsed().as_secs_f64());
    }
    Ok(sorted(times))
}

/// Answers per second.
fn datagrams(server: SocketAddr, time: Duration) -> io::Result<f64> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let (start, mut answers, mut buffer) = (Instant::now(), 0, [0; 256]);
    while start.elapsed() < time {
        for _ in 0..WINDOW {
            socket.send(b"x")?;
        }
        for _ in 0..WINDOW {
            match socket.recv(&mut buffer) {
                Ok(_) => answers += 1,
                // One was lost: the next window starts.
                Err(e) if tests::sockets::is_silence(&e) => break,
                Err(e) => return Err(e),
            }
        }
    }
    Ok(rate(answers, start))
}
