//! What the commands ask of the daemon: a line of JSON on its socket, a line of JSON back.
//!
//! A request is `{"command":"wait_served","container":"ID"}`; the answer `{"ok":...}`, or
//! `{"error":{"message":"...","status":1}}` with the exit status that the command is to end with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::Failure;
use crate::datapath::Pins;
use crate::model::Publication;

/// The name of the daemon's socket in its run directory.
pub const SOCKET_NAME: &str = "runtime.sock";

/// How long the daemon may take over one request.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long over what concerns all containers at once: the kernel needs some 20 ms to attach or to detach a program.
pub(super) const LONG_PATIENCE: Duration = Duration::from_secs(600);

/// Why the daemon did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// Nothing listens.
    #[error("the datapath is not up: start it with \"sudo runtime up\"")]
    NotUp,
    /// Nothing listens, and what a daemon has pinned is in force.
    #[error(
        "the daemon does not run; what it served goes on without it, and follows no change: start it again with \"sudo runtime up\", \
         or take all of it away with \"sudo runtime down\""
    )]
    NotRunning,
    /// It listens, and the conversation failed.
    #[error("the daemon at {socket} does not answer: {reason}")]
    NoAnswer {
        /// Its socket.
        socket: String,
        /// What went wrong.
        reason: String,
    },
    /// It refused; its own words.
    #[error("{message}")]
    Refused {
        /// One line.
        message: String,
        /// The exit status for the command.
        status: u8,
    },
}

impl From<DatapathError> for Failure {
    fn from(e: DatapathError) -> Self {
        match e {
            DatapathError::Refused { message, status: 2 } => Failure::Usage(message),
            DatapathError::Refused { status, .. } if status > 2 => Failure::FailedWith(status, e.into()),
            e => Failure::Failed(e.into()),
        }
    }
}

/// A publication together with whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LivePublication {
    /// The container's full id.
    pub container: String,
    /// What was published on it while it ran, or taken away.
    pub publication: Publication,
    /// Taken away: the engine lists it still, and nobody serves it.
    #[serde(default)]
    pub closed: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Ok(Value),
    Error(Refusal),
}

#[derive(Deserialize)]
struct Refusal {
    message: String,
    #[serde(default = "failed")]
    status: u8,
}

fn failed() -> u8 {
    1
}

/// The way to the daemon. Each request is a connection of its own.
#[derive(Clone, Debug)]
pub struct DatapathClient {
    socket: PathBuf,
    pins: Option<Pins>,
}

impl DatapathClient {
    /// The daemon that keeps its socket in this directory.
    pub fn new(run_dir: &Path) -> Self {
        DatapathClient { socket: run_dir.join(SOCKET_NAME), pins: None }
    }

    /// Where its pins are: whether anything is in force without it.
    #[must_use]
    pub fn with_pins(self, pins: Pins) -> Self {
        DatapathClient { pins: Some(pins), ..self }
    }

    fn no_answer(&self, reason: impl ToString) -> DatapathError {
        DatapathError::NoAnswer { socket: self.socket.display().to_string(), reason: reason.to_string() }
    }

    /// Sends one request and returns what the daemon answers to it.
    ///
    /// # Errors
    /// [`DatapathError::NotUp`] where nothing listens, [`DatapathError::Refused`] where the daemon says no.
    pub async fn request(&self, request: &Value) -> Result<Value, DatapathError> {
        self.request_within(PATIENCE, request).await
    }

    /// Takes the datapath away, and the daemon with it.
    ///
    /// # Errors
    /// Those of [`DatapathClient::request`].
    pub async fn down(&self) -> Result<(), DatapathError> {
        self.request_within(LONG_PATIENCE, &json!({"command": "down"})).await.map(drop)
    }

    async fn request_within(&self, patience: Duration, request: &Value) -> Result<Value, DatapathError> {
        match tokio::time::timeout(patience, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.no_answer(format!("nothing within {} s", patience.as_secs()))),
        }
    }

    async fn exchange(&self, request: &Value) -> Result<Value, DatapathError> {
        use std::io::ErrorKind::{ConnectionRefused, NotFound};
        let mut stream = match UnixStream::connect(&self.socket).await {
            Ok(stream) => stream,
            // A killed daemon leaves its socket behind.
            Err(e) if matches!(e.kind(), NotFound | ConnectionRefused) => {
                let in_force = self.pins.as_ref().is_some_and(Pins::exist);
                return Err(if in_force { DatapathError::NotRunning } else { DatapathError::NotUp });
            }
            Err(e) => return Err(self.no_answer(e)),
        };
        let line = format!("{request}\n");
        stream.write_all(line.as_bytes()).await.map_err(|e| self.no_answer(e))?;
        let mut answer = String::new();
        let read = BufReader::new(stream).read_line(&mut answer).await.map_err(|e| self.no_answer(e))?;
        if read == 0 {
            return Err(self.no_answer("it closed the connection"));
        }
        match serde_json::from_str(&answer) {
            Ok(Answer::Ok(value)) => Ok(value),
            Ok(Answer::Error(Refusal { message, status })) => Err(DatapathError::Refused { message, status }),
            Err(e) => Err(self.no_answer(format!("its answer cannot be read: {e}"))),
        }
    }

    /// Succeeds when the datapath is up.
    ///
    /// # Errors
    /// Those of [`DatapathClient::request`].
    pub async fn ensure_up(&self) -> Result<(), DatapathError> {
        self.request(&json!({"command": "ping"})).await.map(drop)
    }

    /// Hands a created container over before it starts: what it links and publishes is known from its first packet on.
    ///
    /// # Errors
    /// Those of [`DatapathClient::request`].
    pub async fn prepare(&self, container: &str) -> Result<(), DatapathError> {
        self.request(&json!({"command": "prepare", "container": container})).await.map(drop)
    }

    /// Returns once the datapath serves a started container.
    ///
    /// # Errors
    /// Those of [`DatapathClient::request`].
    pub async fn wait_served(&self, container: &str) -> Result<(), DatapathError> {
        self.request(&json!({"command": "wait_served", "container": container})).await.map(drop)
    }

    /// The publications that were made on running containers, and those that were taken away from them.
    ///
    /// # Errors
    /// Those of [`DatapathClient::request`].
    pub async fn live_publications(&self) -> Result<Vec<LivePublication>, DatapathError> {
        let answer = self.request(&json!({"command": "live_publications"})).await?;
        serde_json::from_value(answer).map_err(|e| self.no_answer(format!("its answer cannot be read: {e}")))
    }

    /// The same for commands that only look: none where the datapath is not up.
    ///
    /// # Errors
    /// Those of [`DatapathClient::request`], save that nothing listens.
    pub async fn live_publications_if_up(&self) -> Result<Vec<LivePublication>, DatapathError> {
        match self.live_publications().await {
            Err(DatapathError::NotUp | DatapathError::NotRunning) => Ok(Vec::new()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    /// A daemon that gives one answer to one request, and tells what it was asked.
    async fn asked(name: &str, answer: &'static str) -> (Result<Value, DatapathError>, String) {
        let dir = std::env::temp_dir().join(format!("runtime-client-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let client = DatapathClient::new(&dir);
        let listener = UnixListener::bind(&client.socket).unwrap();
        let daemon = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut request = String::new();
            stream.read_line(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            request
        });
        let result = client.request(&json!({"command": "wait_served", "container": "abc"})).await;
        let request = daemon.await.unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        (result, request)
    }

    #[tokio::test]
    async fn a_line_each_way() {
        let (result, request) = asked("ok", "{\"ok\":{\"served\":true}}\n").await;
        assert_eq!(result.unwrap(), json!({"served": true}));
        assert_eq!(request, "{\"command\":\"wait_served\",\"container\":\"abc\"}\n");
    }

    #[tokio::test]
    async fn a_refusal_has_the_status_of_the_daemon() {
        let (result, _) = asked("no", "{\"error\":{\"message\":\"map is full\",\"status\":2}}\n").await;
        let failure = Failure::from(result.unwrap_err());
        assert_eq!((failure.status(), failure.message()), (2, Some("map is full".to_owned())));
        let (result, _) = asked("plain", "{\"error\":{\"message\":\"no\"}}\n").await;
        assert_eq!(Failure::from(result.unwrap_err()).status(), 1);
    }

    #[tokio::test]
    async fn a_daemon_that_hangs_up() {
        let (result, _) = asked("eof", "").await;
        assert!(matches!(result, Err(DatapathError::NoAnswer { .. })), "{result:?}");
    }

    #[tokio::test]
    async fn nobody_there() {
        let error = DatapathClient::new(Path::new("/nonexistent")).ensure_up().await.unwrap_err();
        assert_eq!(error.to_string(), "the datapath is not up: start it with \"sudo runtime up\"");
    }
}
