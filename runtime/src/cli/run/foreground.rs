//! What `run` does around a container's life: fetch its image, follow it while it runs, end as it ended.

use std::io::{IsTerminal, Write};

use bollard::models::ImageInspect;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;

use super::Failure;
use super::attach::{Attachment, Ended};
use super::request::Request;
use super::signals::Signals;
use crate::engine::EngineError;
use crate::engine::docker::DockerEngine;

/// The image, pulled where it is missing, with progress on a terminal.
pub(super) async fn image(engine: &DockerEngine, name: &str) -> Result<ImageInspect, Failure> {
    match engine.image(name).await {
        Ok(image) => return Ok(image),
        Err(EngineError::NotFound { .. }) => {}
        Err(e) => return Err(e.into()),
    }
    let mut progress = Progress::default();
    progress.line(&format!("Unable to find image '{name}' locally"));
    let mut pull = engine.pull(name);
    while let Some(step) = pull.next().await {
        let step = step.map_err(|e| {
            progress.end();
            Failure::from(e)
        })?;
        progress.step(step.id.as_deref(), step.status.as_deref().unwrap_or_default(), step.progress_detail);
    }
    progress.end();
    Ok(engine.image(name).await?)
}

/// One line on a terminal that is written over and over; nothing elsewhere.
#[derive(Default)]
struct Progress {
    open: bool,
}

impl Progress {
    fn line(&mut self, text: &str) {
        if std::io::stderr().is_terminal() {
            eprintln!("{text}");
        }
    }

    fn step(&mut self, layer: Option<&str>, status: &str, detail: Option<bollard::models::ProgressDetail>) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        let share = detail.and_then(|d| Some((d.current?, d.total.filter(|t| *t > 0)?)));
        let percent = share.map(|(current, total)| format!(" {}%", current.saturating_mul(100) / total));
        eprint!(
            "\r\x1b[K{}{status}{}",
            layer.map(|l| format!("{l}: ")).unwrap_or_default(),
            percent.unwrap_or_default()
        );
        // Only for looks: a terminal that is gone shows nothing anyway.
        let _ = std::io::stderr().flush();
        self.open = true;
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.open) {
            eprintln!();
        }
    }
}

/// A container about to start, with who listens to it.
pub(super) struct Running {
    /// Resolves to its exit status; misses no exit.
    pub(super) exit: BoxFuture<'static, Result<i64, EngineError>>,
    /// The same, where it was already asked for.
    pub(super) status: Option<Result<i64, EngineError>>,
    attachment: Option<Attachment>,
}

/// Listens before there is anything to miss.
pub(super) async fn before_start(request: &Request, engine: &DockerEngine, id: &str) -> Result<Running, Failure> {
    // In the foreground, a container that removes itself is not done before it is gone.
    let condition = if request.rm && !request.detach { "removed" } else { "next-exit" };
    let exit = engine.wait(id, condition).await?;
    let attachment = match request.detach {
        true => None,
        false => Some(Attachment::open(engine, id, request.interactive).await?),
    };
    Ok(Running { exit: Box::pin(exit), status: None, attachment })
}

/// Follows a foreground container to its end, whose status becomes that of the command.
pub(super) async fn follow(
    request: &Request,
    engine: &DockerEngine,
    id: &str,
    running: Running,
    signals: Signals,
) -> Result<(), Failure> {
    let Running { exit, status, attachment } = running;
    let Some(attachment) = attachment else { return Ok(()) };
    if attachment.copy(engine, id, request.tty, signals).await? == Ended::Detached {
        return Ok(());
    }
    let status = match status {
        Some(status) => status,
        None => exit.await,
    };
    match status? {
        0 => Ok(()),
        status => Err(Failure::Status(u8::try_from(status & 0xff).unwrap_or(1))),
    }
}
