//! The daemon's end of its API: a line of JSON each way on its Unix socket.

use std::collections::VecDeque;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use runtime_api::wire::{Answer, answer_line, read_request};
use runtime_api::{Call, Refusal, Request, SOCKET_NAME};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::Input;
use crate::host::passed_by;

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
    let text = answer_line(answer);
    let heard = async {
        writer.write_all(text.as_bytes()).await?;
        writer.shutdown().await
    };
    timeout(TO_HEAR, heard).await.unwrap_or(Ok(()))
}

async fn answer(line: &[u8], inputs: mpsc::Sender<Input>, answering: &Semaphore) -> Answer {
    let request = read_request(line)?;
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

/// What is answered to a request, as it goes over the socket.
pub(super) fn reply<C: Call>(reply: Result<C::Reply, Refusal>) -> Answer {
    serde_json::to_value(reply?).map_err(Refusal::failed)
}
