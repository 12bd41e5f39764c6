//! What `runtime run` asks of the Engine besides looking.

use bollard::models::{ContainerCreateBody, CreateImageInfo, ImageInspect};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, KillContainerOptionsBuilder,
    RemoveContainerOptionsBuilder, ResizeContainerTTYOptionsBuilder, StartContainerOptions,
};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http_body_util::BodyExt;
use hyper::Method;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::{DockerEngine, EngineError, http, innermost, one_line, reference, unreachable_at};

/// A connection of its own to an attached container.
pub type Connection = TokioIo<Upgraded>;

impl DockerEngine {
    /// An image of the Engine.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] where it has to be pulled first.
    pub async fn image(&self, name: &str) -> Result<ImageInspect, EngineError> {
        self.client.inspect_image(name).await.map_err(|e| self.error("image", name, e))
    }

    /// Pulls an image (`latest` where no tag or digest is given); each item tells of progress, the end of the stream of success.
    pub fn pull(&self, name: &str) -> BoxStream<'static, Result<CreateImageInfo, EngineError>> {
        // Without a tag, the Engine would take every tag there is.
        let tagged = name.contains('@') || name.rsplit('/').next().is_some_and(|last| last.contains(':'));
        let full = if tagged { name.to_owned() } else { format!("{name}:latest") };
        let options = CreateImageOptionsBuilder::default().from_image(&full).build();
        let address = self.address.clone();
        let refused = move |reason: &str| EngineError::Refused(format!("cannot pull image \"{full}\": {reason}"));
        self.client
            .create_image(Some(options), None, None)
            .map(move |step| match step {
                // A registry's refusal comes as a step of its own.
                Ok(CreateImageInfo { error_detail: Some(e), .. }) => {
                    Err(refused(&one_line(e.message.as_deref().unwrap_or_default())))
                }
                Ok(step) => Ok(step),
                Err(e) => Err(match super::explain(&address, "", "", e) {
                    EngineError::Refused(reason) => refused(&reason),
                    other => other,
                }),
            })
            .boxed()
    }

    /// Creates a container and returns its full id and the Engine's warnings.
    ///
    /// # Errors
    /// The Engine's own words where it refuses: a name in use, no such image or network.
    pub async fn create(
        &self,
        name: Option<&str>,
        body: ContainerCreateBody,
    ) -> Result<(String, Vec<String>), EngineError> {
        let mut options = CreateContainerOptionsBuilder::default();
        if let Some(name) = name {
            options = options.name(name);
        }
        let created = self.client.create_container(Some(options.build()), body).await;
        let created = created.map_err(|e| self.error("", "", e))?;
        Ok((created.id, created.warnings))
    }

    /// Starts a container; returns when its process runs.
    ///
    /// # Errors
    /// The Engine's own words where it cannot.
    pub async fn start(&self, id: &str) -> Result<(), EngineError> {
        let started = self.client.start_container(id, None::<StartContainerOptions>).await;
        started.map_err(|e| self.error("", "", e))
    }

    /// Removes a container with its anonymous volumes, running or not. One that is gone already is no error.
    ///
    /// # Errors
    /// The Engine's own words where it refuses.
    pub async fn remove(&self, id: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.client.remove_container(id, Some(options)).await.map_err(|e| self.error("container", id, e)) {
            Err(EngineError::NotFound { .. }) => Ok(()),
            // With `--rm`, the Engine does so itself.
            Err(EngineError::Refused(reason)) if reason.contains("is already in progress") => Ok(()),
            other => other,
        }
    }

    /// Sends a signal (`SIGTERM`, `TERM` or a number) to a container's first process.
    ///
    /// # Errors
    /// The Engine's own words where it refuses.
    pub async fn kill(&self, id: &str, signal: &str) -> Result<(), EngineError> {
        let options = KillContainerOptionsBuilder::default().signal(signal).build();
        self.client.kill_container(id, Some(options)).await.map_err(|e| self.error("container", id, e))
    }

    /// Tells a container's terminal its size.
    ///
    /// # Errors
    /// The Engine's own words where it refuses.
    pub async fn resize(&self, id: &str, rows: u16, columns: u16) -> Result<(), EngineError> {
        let options = ResizeContainerTTYOptionsBuilder::default().h(rows.into()).w(columns.into()).build();
        self.client.resize_container_tty(id, options).await.map_err(|e| self.error("container", id, e))
    }

    /// Attaches to a container's output, and to its input where `stdin` says so; shutting the connection down for writing is
    /// the end of that input.
    ///
    /// Bytes as they are for a container with a terminal; else the output comes in frames of an eight-byte head (stream,
    /// three zeros, length in network byte order) and that many bytes.
    ///
    /// # Errors
    /// The Engine's own words where it refuses.
    pub async fn attach(&self, id: &str, stdin: bool) -> Result<Connection, EngineError> {
        let id = reference("container", id)?;
        let stdin = u8::from(stdin);
        let path = format!("/containers/{id}/attach?stream=1&stdout=1&stderr=1&stdin={stdin}");
        http::upgrade(&self.address, &self.versioned(&path)).await.map_err(|e| self.http_error("container", id, e))
    }

    /// Begins to wait for a container's exit status under one of Docker's conditions (`next-exit`, `removed`, `not-running`).
    /// When this returns, the Engine is listening: the future that it returns misses no exit.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] for a container that is gone.
    pub async fn wait(
        &self,
        id: &str,
        condition: &str,
    ) -> Result<impl Future<Output = Result<i64, EngineError>> + Send + use<>, EngineError> {
        let path = format!("/containers/{}/wait?condition={condition}", reference("container", id)?);
        let response = http::request(&self.address, Method::POST, &self.versioned(&path)).await;
        let response = response.map_err(|e| self.http_error("container", id, e))?;
        let address = self.address.clone();
        Ok(async move {
            let body = response.into_body().collect().await.map_err(|e| unreachable_at(&address, innermost(&e)))?;
            let answer: Value = serde_json::from_slice(&body.to_bytes())
                .map_err(|e| unreachable_at(&address, format!("its answer to wait is no JSON: {e}")))?;
            if let Some(message) = answer.pointer("/Error/Message").and_then(Value::as_str).filter(|m| !m.is_empty()) {
                return Err(EngineError::Refused(one_line(message)));
            }
            answer
                .get("StatusCode")
                .and_then(Value::as_i64)
                .ok_or_else(|| unreachable_at(&address, "its answer to wait has no StatusCode".to_owned()))
        })
    }

    /// A container's `inspect`, exactly as the Engine writes it.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] where there is none.
    pub async fn inspect_raw(&self, name: &str) -> Result<Value, EngineError> {
        let path = format!("/containers/{}/json", reference("container", name)?);
        http::json(&self.address, &self.versioned(&path)).await.map_err(|e| self.http_error("container", name, e))
    }
}
