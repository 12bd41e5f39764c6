//! Connections.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use runtime_common::Protocol;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::conversation::Shared;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;
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
    // Connections inherit it, and count as bound to the port that was dialled: so they keep nobody from listening there.
    socket.set_reuseaddr(true)?;
    socket.bind(at.into())?;
    socket.listen(BACKLOG)
}

/// Serves until it is dropped, and all connections with it.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, peer)) => begin(client, peer, &shared, &mut connections),
                Err(_) => sleep(BREATHER).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

fn begin(client: TcpStream, peer: SocketAddr, shared: &Shared, connections: &mut JoinSet<()>) {
    let mut both = Conversation { client, container: None, over: false };
    // Where it was dialled, not where the listener is.
    let Ok(SocketAddr::V6(here)) = both.client.local_addr() else { return };
    let Some(serving) = shared.find(Protocol::Tcp, here) else { return };
    let Some(room) = shared.admit(&serving, Protocol::Tcp, peer.ip(), (*here.ip()).into()) else { return };
    let (to, over) = (serving.to(), serving.over.clone());
    connections.spawn(async move {
        tokio::select! {
            () = both.carry(to) => {}
            () = over.cancelled() => {}
        }
        drop(room);
    });
}

/// Both ends of a conversation: reset where it does not come to its own end, as when the port is unpublished.
struct Conversation {
    client: TcpStream,
    container: Option<TcpStream>,
    over: bool,
}

impl Conversation {
    /// Carries it to its end: an end of one direction is passed on, and the other goes on.
    async fn carry(&mut self, to: SocketAddrV4) {
        let Ok(Ok(container)) = timeout(CONNECT, TcpStream::connect(SocketAddr::from(to))).await else { return };
        let container = self.container.insert(container);
        for end in [&self.client, &*container] {
            // What cannot be set is no reason not to serve.
            let _ = end.set_nodelay(true);
            let _ = setsockopt(end, sockopt::KeepAlive, &true);
            let _ = setsockopt(end, sockopt::TcpKeepIdle, &KEEPALIVE);
        }
        // An error is a reset of one end, which the other is told as well.
        self.over = copy_bidirectional(&mut self.client, container).await.is_ok();
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        if !self.over {
            for end in [Some(&self.client), self.container.as_ref()].into_iter().flatten() {
                // Closed with a reset.
                let _ = setsockopt(end, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
            }
        }
    }
}
