//! Plain requests to the Engine's API, for what the typed client cannot give: JSON as the Engine wrote it, and the moment
//! at which a streaming answer has begun.

use bytes::Bytes;
use futures_util::TryStreamExt;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper::http::request;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::io::StreamReader;

use super::address::Address;

/// Why a plain request failed.
#[derive(Debug)]
pub(super) enum HttpError {
    /// No answer.
    Transport(String),
    /// An answer other than success, with the Engine's message.
    Status(StatusCode, String),
}

impl From<hyper::Error> for HttpError {
    fn from(e: hyper::Error) -> Self {
        HttpError::Transport(super::innermost(&e))
    }
}

/// Sends one request on a connection of its own and returns once the response's head is there.
///
/// The Engine sends the head of a streaming answer (`/events`, `/wait`) when it has begun to listen, not with the first item.
pub(super) async fn request(address: &Address, method: Method, path: &str) -> Result<Response<Incoming>, HttpError> {
    successful(open(address, Request::builder().method(method).uri(path)).await?).await
}

/// Asks for the bare connection behind a path such as `/containers/ID/attach`: both directions, until either end shuts.
pub(super) async fn upgrade(address: &Address, path: &str) -> Result<TokioIo<Upgraded>, HttpError> {
    let request = Request::post(path).header(CONNECTION, "Upgrade").header(UPGRADE, "tcp");
    let response = open(address, request).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(TokioIo::new(hyper::upgrade::on(response).await?));
    }
    successful(response).await?;
    Err(HttpError::Transport("it does not give the connection away".to_owned()))
}

async fn successful(response: Response<Incoming>) -> Result<Response<Incoming>, HttpError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.into_body().collect().await?.to_bytes();
    let message = serde_json::from_slice::<Value>(&body)
        .ok()
        .and_then(|v| v.get("message").and_then(Value::as_str).map(str::to_owned))
        .unwrap_or_else(|| String::from_utf8_lossy(&body).trim().to_owned());
    Err(HttpError::Status(status, message))
}

async fn open(address: &Address, request: request::Builder) -> Result<Response<Incoming>, HttpError> {
    let transport = |e: std::io::Error| HttpError::Transport(e.to_string());
    match address {
        Address::Unix(socket) => send(UnixStream::connect(socket).await.map_err(transport)?, request).await,
        Address::Tcp(host) => send(TcpStream::connect(host.as_str()).await.map_err(transport)?, request).await,
    }
}

async fn send<S>(stream: S, request: request::Builder) -> Result<Response<Incoming>, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the response's body, or when the response is dropped.
    tokio::spawn(connection.with_upgrades());
    let request =
        request.header(HOST, "docker").body(Empty::<Bytes>::new()).map_err(|e| HttpError::Transport(e.to_string()))?;
    Ok(sender.send_request(request).await?)
}

/// A whole JSON answer.
pub(super) async fn json(address: &Address, path: &str) -> Result<Value, HttpError> {
    let body = request(address, Method::GET, path).await?.into_body().collect().await?.to_bytes();
    serde_json::from_slice(&body).map_err(|e| HttpError::Transport(format!("its answer is no JSON: {e}")))
}

/// A body to read lines from.
pub(super) fn reader(response: Response<Incoming>) -> impl AsyncBufRead + Send + Unpin + 'static {
    StreamReader::new(response.into_body().into_data_stream().map_err(std::io::Error::other))
}
