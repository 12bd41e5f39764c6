//! A client for asynchronous programs.

use std::path::{Path, PathBuf};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::{Call, Error, SOCKET_NAME, wire};

/// The way to the daemon. Each request is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The daemon that keeps its socket in this directory.
    pub fn new(run_dir: impl AsRef<Path>) -> Self {
        Client { socket: run_dir.as_ref().join(SOCKET_NAME) }
    }

    /// Sends a request and returns what the daemon answers to it.
    ///
    /// # Errors
    /// [`Error::NotUp`] where nothing listens, [`Error::Refused`] where the daemon says no.
    pub async fn call<C: Call>(&self, call: C) -> Result<C::Reply, Error> {
        let name = || self.socket.display().to_string();
        let unreadable = |source| Error::Unreadable { socket: name(), source };
        let request = wire::request_line(&call.into()).map_err(unreadable)?;
        let mut answer = String::new();
        let exchange = timeout(C::PATIENCE, self.exchange(&request, &mut answer)).await;
        let exchange = exchange.map_err(|_| Error::TimedOut { socket: name(), patience: C::PATIENCE })?;
        if exchange.map_err(|e| Error::io(&self.socket, e, C::PATIENCE))? == 0 {
            return Err(Error::Closed { socket: name() });
        }
        Ok(wire::read_answer::<C>(&answer).map_err(unreadable)??)
    }

    async fn exchange(&self, request: &str, answer: &mut String) -> std::io::Result<usize> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        stream.write_all(request.as_bytes()).await?;
        BufReader::new(stream).read_line(answer).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;
    use crate::{BlockingClient, Ping, WaitServed};

    /// A daemon that gives one answer to one request from each kind of client, and tells what it was asked.
    async fn asked(name: &str, answer: &'static str) -> [(Result<crate::Served, Error>, String); 2] {
        let dir = std::env::temp_dir().join(format!("runtime-client-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let listener = UnixListener::bind(dir.join(SOCKET_NAME)).unwrap();
        let daemon = tokio::spawn(async move {
            let mut requests = Vec::new();
            for _ in 0..2 {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = BufReader::new(stream);
                let mut request = String::new();
                stream.read_line(&mut request).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                requests.push(request);
            }
            requests
        });
        let call = WaitServed { container: "abc".to_owned() };
        let first = Client::new(&dir).call(call.clone()).await;
        let blocking = BlockingClient::new(&dir);
        let second = tokio::task::spawn_blocking(move || blocking.call(call)).await.unwrap();
        let [one, two] = <[String; 2]>::try_from(daemon.await.unwrap()).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        [(first, one), (second, two)]
    }

    #[tokio::test]
    async fn a_line_each_way() {
        for (result, request) in asked("ok", "{\"ok\":{\"served\":true}}\n").await {
            assert!(result.unwrap().served);
            assert_eq!(request, "{\"api\":1,\"command\":\"wait_served\",\"container\":\"abc\"}\n");
        }
    }

    #[tokio::test]
    async fn a_refusal_has_the_status_of_the_daemon() {
        for (result, _) in asked("no", "{\"error\":{\"message\":\"map is full\",\"status\":2}}\n").await {
            let Err(Error::Refused(refusal)) = result else { panic!("{result:?}") };
            assert_eq!((refusal.message.as_str(), refusal.status), ("map is full", 2));
        }
    }

    #[tokio::test]
    async fn a_daemon_that_hangs_up_or_says_something_else() {
        for (result, _) in asked("eof", "").await {
            assert!(matches!(result, Err(Error::Closed { .. })), "{result:?}");
        }
        for (result, _) in asked("else", "{\"ok\":{}}\n").await {
            assert!(matches!(result, Err(Error::Unreadable { .. })), "{result:?}");
        }
    }

    #[tokio::test]
    async fn nobody_there() {
        let error = Client::new("/nonexistent").call(Ping).await.unwrap_err();
        assert_eq!(error.to_string(), "the datapath is not up: start it with \"sudo runtime up\"");
        let error = BlockingClient::new("/nonexistent").call(Ping).unwrap_err();
        assert!(matches!(error, Error::NotUp), "{error}");
    }
}
