//! The daemon's API: a line of JSON each way on its Unix socket.

use std::collections::VecDeque;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::Input;
use crate::cli::datapath_client::SOCKET_NAME;
use crate::datapath::{DropEvent, FlowCount, HookStatus};
use crate::host::passed_by;
use crate::model::Publication;
use crate::model::filter::Filter;
use crate::reconcile::{MasqueradedBy, Netfilter};

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Whether the daemon is there.
    Ping,
    /// Everything for people: a [`Status`].
    Status,
    /// All links: a list of [`LinkRow`].
    Links,
    /// Publications made on running containers, and those taken away.
    LivePublications,
    /// Know a created container before it starts.
    Prepare {
        /// Full id.
        container: String,
    },
    /// Answer when a started container is served, or has ended.
    WaitServed {
        /// Full id.
        container: String,
    },
    /// Publish on a running container.
    Publish {
        /// Name or id.
        container: String,
        /// As after `-p`.
        spec: String,
        /// Who may use it.
        #[serde(default)]
        filter: Filter,
    },
    /// Take a publication away.
    Unpublish {
        /// Name or id.
        container: String,
        /// As after `-p`, or a container port.
        spec: String,
    },
    /// Link running containers.
    Link {
        /// Name or id.
        recipient: String,
        /// Name or id.
        source: String,
        /// Alias.
        alias: String,
        /// Whether to open ports that the source does not expose.
        all_ports: bool,
    },
    /// Take a link away.
    Unlink {
        /// Name or id.
        recipient: String,
        /// Alias, or the source's name or id.
        target: String,
    },
    /// Detach everything and end.
    Down,
}

impl Request {
    /// Whether it changes what is published or linked, and tells nothing of the host.
    pub(super) fn is_change(&self) -> bool {
        use Request::{Link, Publish, Unlink, Unpublish};
        matches!(self, Publish { .. } | Unpublish { .. } | Link { .. } | Unlink { .. })
    }
}

/// A refusal: one line, and the exit status for the command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// One line.
    pub message: String,
    /// 1: it failed. 2: bad input.
    pub status: u8,
}

impl Refusal {
    /// The operation failed.
    pub fn failed(message: impl ToString) -> Self {
        Refusal { message: message.to_string(), status: 1 }
    }

    /// The input was bad.
    pub fn usage(message: impl ToString) -> Self {
        Refusal { message: message.to_string(), status: 2 }
    }
}

/// What is answered.
pub type Answer = Result<Value, Refusal>;

/// A link as listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRow {
    /// The recipient's name.
    pub recipient: String,
    /// The source's name.
    pub source: String,
    /// The alias.
    pub alias: String,
    /// Open ports, such as `5432/tcp`; `all` where all are.
    pub ports: Vec<String>,
    /// The source's address on the network that they share; none while one of them does not run.
    pub address: Option<String>,
    /// `engine` or `live`.
    pub origin: String,
    /// Whether the link is in force: both run and share a network.
    pub active: bool,
    /// The variables of the link.
    pub environment: Vec<String>,
}

/// A publication as listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicationRow {
    /// The container's name.
    pub container: String,
    /// Where it is published and what.
    #[serde(flatten)]
    pub publication: Publication,
    /// Who may use it, such as `allow-from=192.0.2.0/24`; empty for everybody.
    pub filter: String,
    /// `engine` or `live`.
    pub origin: String,
    /// `served`, `relayed` (to a container without an address of that family), `by the engine` (its own proxy serves it),
    /// `closed` (taken away), or `not served`.
    pub state: String,
}

/// A container as listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRow {
    /// The container's name.
    pub container: String,
    /// The network's name.
    pub network: String,
    /// Host-side interface.
    pub interface: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Whether the network is isolated.
    pub isolated: bool,
}

/// A counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterRow {
    /// Name of the verdict.
    pub verdict: String,
    /// `forward`, `pass` or `drop`.
    pub kind: String,
    /// Packets.
    pub packets: u64,
    /// What it means.
    pub text: String,
}

/// Everything that `runtime status` shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// The engine's name and version.
    pub engine: String,
    /// Whether the engine answers; while not, its last known state is served.
    pub engine_connected: bool,
    /// The kernel's release.
    pub kernel: String,
    /// How tc programs are attached: `tcx` or `clsact`.
    pub attachment: String,
    /// Which networks are isolated.
    pub isolate: String,
    /// Whether drops are carried out.
    pub enforcing: bool,
    /// What is attached.
    pub hooks: Vec<HookStatus>,
    /// Containers that are served.
    pub endpoints: Vec<EndpointRow>,
    /// Published ports.
    pub publications: Vec<PublicationRow>,
    /// Links.
    pub links: Vec<LinkRow>,
    /// Who gives what containers send to the outside an address of the host's, by network.
    pub masquerade: std::collections::BTreeMap<String, MasqueradedBy>,
    /// What the host's firewall decides about conversations with published ports.
    pub netfilter: Netfilter,
    /// Conversations.
    pub flows: FlowCount,
    /// Packets by verdict.
    pub counters: Vec<CounterRow>,
    /// The last drops that the kernel told of, oldest first.
    pub drops: Vec<DropEvent>,
    /// What is wrong or cannot be served, a line each.
    pub problems: Vec<String>,
}

/// The socket's file, removed when dropped.
pub struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Listens on the socket of a run directory, for root alone.
pub(super) fn listen(run_dir: &Path, inputs: mpsc::Sender<Input>) -> anyhow::Result<Socket> {
    let path = run_dir.join(SOCKET_NAME);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("cannot replace {}", path.display()));
        }
        // The lock says that no other daemon uses it.
        _ => {}
    }
    let listener = UnixListener::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    tokio::spawn(accept(listener, inputs));
    Ok(Socket(path))
}

/// The longest request in bytes.
const LONGEST: u64 = 64 * 1024;
/// How many connections may be about to ask: of more, the one goes that has waited longest for its own request.
const ASKING: usize = 128;
/// How many requests may wait for their answers.
const ANSWERING: usize = 256;
/// How long a client may take over its request, and over hearing the answer.
const TO_ASK: Duration = Duration::from_secs(5);
const TO_HEAR: Duration = Duration::from_secs(30);
/// How long an answer is waited for: longer than any client waits.
const TO_ANSWER: Duration = Duration::from_secs(900);
/// How much of a request that cannot be understood is quoted, in characters.
const QUOTED: usize = 200;

async fn accept(listener: UnixListener, inputs: mpsc::Sender<Input>) {
    let answering = Arc::new(Semaphore::new(ANSWERING));
    let mut asking: VecDeque<(Arc<AtomicBool>, AbortHandle)> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: others will be closed.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let has_asked = Arc::new(AtomicBool::new(false));
        let (inputs, answering, asked) = (inputs.clone(), Arc::clone(&answering), Arc::clone(&has_asked));
        let conversation = tokio::spawn(async move {
            // A client that hangs up needs no answer.
            let _ = converse(stream, inputs, &asked, &answering).await;
        });
        asking.retain(|(asked, task)| !asked.load(Ordering::Relaxed) && !task.is_finished());
        asking.push_back((has_asked, conversation.abort_handle()));
        if asking.len() > ASKING
            && let Some((_, oldest)) = asking.pop_front()
        {
            oldest.abort();
        }
    }
}

async fn converse(
    stream: UnixStream,
    inputs: mpsc::Sender<Input>,
    asked: &AtomicBool,
    answering: &Semaphore,
) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = Vec::new();
    let read = timeout(TO_ASK, BufReader::new(reader.take(LONGEST)).read_until(b'\n', &mut line)).await;
    asked.store(true, Ordering::Relaxed);
    let answer = match read {
        Ok(read) => {
            read?;
            answer(&line, inputs, answering).await
        }
        Err(_) => Err(Refusal::failed(format!("no request came within {} s", TO_ASK.as_secs()))),
    };
    let text = match answer {
        Ok(value) => json!({"ok": value}),
        Err(refusal) => json!({"error": refusal}),
    };
    let heard = async {
        writer.write_all(format!("{text}\n").as_bytes()).await?;
        writer.shutdown().await
    };
    timeout(TO_HEAR, heard).await.unwrap_or(Ok(()))
}

async fn answer(line: &[u8], inputs: mpsc::Sender<Input>, answering: &Semaphore) -> Answer {
    let request = serde_json::from_slice::<Request>(line).map_err(|e| {
        let text = String::from_utf8_lossy(line);
        let quoted: String = text.trim_end().chars().take(QUOTED).collect();
        Refusal::usage(format!("the daemon does not understand {quoted:?}: {e}"))
    })?;
    let Ok(_turn) = answering.try_acquire() else {
        return Err(Refusal::failed(format!("{ANSWERING} requests wait for their answers already: try again later")));
    };
    if request == Request::Status {
        // Rules come and go without a word; whoever looks is told of those of now.
        let _ = inputs.send(Input::Firewall(passed_by().await)).await;
    }
    let (tx, rx) = oneshot::channel();
    let ending = || Refusal::failed("the daemon is ending");
    inputs.send(Input::Request(request, tx)).await.map_err(|_| ending())?;
    match timeout(TO_ANSWER, rx).await {
        Ok(answer) => answer.unwrap_or_else(|_| Err(ending())),
        Err(_) => Err(Refusal::failed(format!("no answer within {} s", TO_ANSWER.as_secs()))),
    }
}
