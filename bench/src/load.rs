//! One client's load on a server, for a bounded time.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tests::sockets::{Talk, is_silence, uninterrupted};

use crate::cpu::{Busy, pin};
use crate::stats::{quantile, sorted};
use crate::suite::Measure;

/// Where `peer` listens: echo (UDP too), reader, writer, and what accepts and closes.
pub const ECHO: u16 = 7000;
pub const SINK: u16 = 7001;
pub const SOURCE: u16 = 7002;
pub const ACCEPT: u16 = 7003;
/// Where it counts datagrams.
pub const COUNT: u16 = 7004;

/// The core of every client. The servers have another.
pub const CLIENT_CORE: usize = 0;
/// The core of every server, as a word for other programs.
pub const SERVER_CORE: &str = "1";

/// Longer than it takes until a lost SYN is sent again.
const LIMIT: Duration = Duration::from_secs(3);
/// Datagrams under way at once that are sent back.
const WINDOW: usize = 32;
/// Datagrams of which the last asks for the number of all, and how many such runs are under way at once.
const RUN: usize = 64;
const RUNS: usize = 4;

/// What is asked of a server, one after the other.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    Upload,
    Download,
    Connections,
    Talk,
    Echoed,
    OneWay,
}

/// All of them, in the order of [`MEASURES`].
pub const LOADS: &[Load] = &[Load::Upload, Load::Download, Load::Connections, Load::Talk, Load::Echoed, Load::OneWay];

/// What [`LOADS`] give.
pub const MEASURES: &[Measure] = &[
    Measure::more("TCP stream to the server", "bytes/s"),
    Measure::less("CPU per byte to the server", "s"),
    Measure::more("TCP stream from the server", "bytes/s"),
    Measure::less("CPU per byte from the server", "s"),
    Measure::more("connections", "/s"),
    Measure::less("connect p50", "s"),
    Measure::less("connect p99", "s"),
    Measure::less("CPU per connection", "s"),
    Measure::less("request/response p50", "s"),
    Measure::less("request/response p99", "s"),
    Measure::more("small UDP, echoed, 32 under way", "/s"),
    Measure::less("CPU per datagram and echo", "s"),
    Measure::more("small UDP, one way", "/s"),
    Measure::less("CPU per datagram", "s"),
];

impl Load {
    /// Puts it on a server, whose ports are moved by `shift`, for `time`, from the calling thread, which stays on the
    /// client's core.
    pub fn measure(self, server: IpAddr, shift: u16, time: Duration) -> io::Result<Vec<f64>> {
        pin(CLIENT_CORE)?;
        let at = |port: u16| SocketAddr::from((server, port + shift));
        let rate_and_cpu = |cost: Cost| vec![cost.rate, cost.cpu];
        Ok(match self {
            Load::Upload => rate_and_cpu(count(|| upload(at(SINK), time))?.1),
            Load::Download => rate_and_cpu(count(|| download(at(SOURCE), time))?.1),
            Load::Connections => {
                let (times, cost) = count(|| connections(at(ACCEPT), time))?;
                let times = sorted(times);
                vec![cost.rate, quantile(&times, 0.5), quantile(&times, 0.99), cost.cpu]
            }
            Load::Talk => {
                let times = sorted(talk(at(ECHO), time)?);
                vec![quantile(&times, 0.5), quantile(&times, 0.99)]
            }
            Load::Echoed => rate_and_cpu(count(|| datagrams(at(ECHO), time))?.1),
            Load::OneWay => rate_and_cpu(count(|| one_way(at(COUNT), time))?.1),
        })
    }
}

/// Something that can be counted: bytes, connections, answers.
trait Count {
    fn count(&self) -> usize;
}

impl Count for usize {
    fn count(&self) -> usize {
        *self
    }
}

impl Count for Vec<f64> {
    fn count(&self) -> usize {
        self.len()
    }
}

/// What a load came to: how many a second, and the busy time of all cores for each.
struct Cost {
    rate: f64,
    cpu: f64,
}

fn count<T: Count>(load: impl FnOnce() -> io::Result<T>) -> io::Result<(T, Cost)> {
    let busy = Busy::start(CLIENT_CORE)?;
    let start = Instant::now();
    let result = load()?;
    let (wall, n) = (start.elapsed().as_secs_f64(), result.count() as f64);
    Ok((result, Cost { rate: n / wall, cpu: busy.seconds()? / n }))
}

fn dial(server: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn upload(server: SocketAddr, time: Duration) -> io::Result<usize> {
    let mut stream = dial(server)?;
    let (start, bytes, mut sent) = (Instant::now(), [0; 65536], 0);
    while start.elapsed() < time {
        sent += uninterrupted(|| stream.write(&bytes))?;
    }
    Ok(sent)
}

fn download(server: SocketAddr, time: Duration) -> io::Result<usize> {
    let mut stream = dial(server)?;
    let (start, mut bytes, mut heard) = (Instant::now(), [0; 65536], 0);
    while start.elapsed() < time {
        match uninterrupted(|| stream.read(&mut bytes))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => heard += n,
        }
    }
    Ok(heard)
}

/// How long each connection took to stand, in seconds.
fn connections(server: SocketAddr, time: Duration) -> io::Result<Vec<f64>> {
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < time {
        let before = Instant::now();
        let mut stream = TcpStream::connect_timeout(&server, LIMIT)?;
        times.push(before.elapsed().as_secs_f64());
        // The server's turn: without it the client would run ahead until the backlog overflows.
        stream.set_read_timeout(Some(LIMIT))?;
        let _ = uninterrupted(|| stream.read(&mut [0]))?;
        // Ended by RST: no port waits in TIME_WAIT, so that a long run does not use them up.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    }
    Ok(times)
}

/// How long each answer took, in seconds.
fn talk(server: SocketAddr, time: Duration) -> io::Result<Vec<f64>> {
    let mut talk = Talk::over(dial(server)?)?;
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < time {
        let before = Instant::now();
        talk.say(b"a question")?;
        times.push(before.elapsed().as_secs_f64());
    }
    Ok(times)
}

fn dial_udp(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    Ok(socket)
}

/// How many datagrams the server heard.
fn one_way(server: SocketAddr, time: Duration) -> io::Result<usize> {
    let socket = dial_udp(server)?;
    let (start, mut under_way) = (Instant::now(), 0);
    let (mut first, mut last, mut buffer) = (None, 0, [0; 8]);
    while start.elapsed() < time {
        for n in 1..=RUN {
            socket.send(if n == RUN { b"?" } else { b"x" })?;
        }
        under_way += 1;
        while under_way >= RUNS {
            match uninterrupted(|| socket.recv(&mut buffer)) {
                Ok(_) => {
                    last = u64::from_be_bytes(buffer);
                    first.get_or_insert(last);
                    under_way -= 1;
                }
                // The question or its answer was lost: the next run asks again.
                Err(e) if is_silence(&e) => under_way = 0,
                Err(e) => return Err(e),
            }
        }
    }
    Ok(usize::try_from(last - first.unwrap_or(last)).unwrap_or_default())
}

/// How many answers came.
fn datagrams(server: SocketAddr, time: Duration) -> io::Result<usize> {
    let socket = dial_udp(server)?;
    let (start, mut answers, mut buffer) = (Instant::now(), 0, [0; 256]);
    while start.elapsed() < time {
        for _ in 0..WINDOW {
            socket.send(b"x")?;
        }
        for _ in 0..WINDOW {
            match uninterrupted(|| socket.recv(&mut buffer)) {
                Ok(_) => answers += 1,
                // One was lost: the next window starts.
                Err(e) if is_silence(&e) => break,
                Err(e) => return Err(e),
            }
        }
    }
    Ok(answers)
}
