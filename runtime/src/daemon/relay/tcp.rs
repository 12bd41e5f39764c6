//! Connections.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Gate;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;
/// How long a container may take to accept.
const CONNECT: Duration = Duration::from_secs(10);
/// After how many seconds of silence the other end is asked whether it is still there.
const KEEPALIVE: u32 = 60;
/// How long to wait where the daemon itself has no room to accept.
const BREATHER: Duration = Duration::from_millis(100);

/// Listens for IPv6 alone.
pub(super) fn listen(at: SocketAddrV6) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v6()?;
    setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    // Of an earlier daemon's connections.
    socket.set_reuseaddr(true)?;
    socket.bind(at.into())?;
    socket.listen(BACKLOG)
}

/// Serves until it is dropped, and all connections with it.
pub(super) async fn serve(listener: TcpListener, to: SocketAddrV4, gate: &Gate) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, peer)) => match client.local_addr().ok().and_then(|l| gate.admit(peer.ip(), l.ip())) {
                    Some(room) => {
                        connections.spawn(async move {
                            carry(client, to).await;
                            drop(room);
                        });
                    }
                    None => reset(&client),
                },
                Err(_) => sleep(BREATHER).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Both ends of a conversation: reset where it does not come to its own end, as when the port is unpublished.
struct Conversation {
    client: TcpStream,
    container: TcpStream,
    over: bool,
}

impl Drop for Conversation {
    fn drop(&mut self) {
        if !self.over {
            reset(&self.client);
            reset(&self.container);
        }
    }
}

/// Carries one connection to its end: an end of one direction is passed on, and the other goes on.
async fn carry(client: TcpStream, to: SocketAddrV4) {
    let Ok(Ok(container)) = timeout(CONNECT, TcpStream::connect(SocketAddr::from(to))).await else {
        return reset(&client);
    };
    let mut both = Conversation { client, container, over: false };
    for end in [&both.client, &both.container] {
        // What cannot be set is no reason not to serve.
        let _ = end.set_nodelay(true);
        let _ = setsockopt(end, sockopt::KeepAlive, &true);
        let _ = setsockopt(end, sockopt::TcpKeepIdle, &KEEPALIVE);
    }
    // An error is a reset of one end, which the other is told as well.
    both.over = copy_bidirectional(&mut both.client, &mut both.container).await.is_ok();
}

/// Has the connection end with a reset when it is closed.
fn reset(stream: &TcpStream) {
    let _ = setsockopt(stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
}
