//! Requests, and what is answered to each.

use std::time::Duration;

use runtime_model::filter::Filter;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::rows::{Changed, LinkRow, LivePublication, Pong, Published, Served};
use crate::status::StatusReport;

/// How long the daemon may take over one request.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long over what concerns all containers at once: the kernel needs some 20 ms to attach or to detach a program.
const LONG_PATIENCE: Duration = Duration::from_secs(600);

/// A request that knows what is answered to it.
pub trait Call: Into<Request> {
    /// The answer, where the daemon does not refuse.
    type Reply: Serialize + DeserializeOwned;

    /// How long a client waits for it.
    const PATIENCE: Duration = PATIENCE;
}

/// Any request, as it goes over the socket: `{"command":"publish","container":"web","spec":"8080:80"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// [`Ping`]
    Ping,
    /// [`Status`]
    Status,
    /// [`Links`]
    Links,
    /// [`LivePublications`]
    LivePublications,
    /// [`Prepare`]
    Prepare(Prepare),
    /// [`WaitServed`]
    WaitServed(WaitServed),
    /// [`Publish`]
    Publish(Publish),
    /// [`Unpublish`]
    Unpublish(Unpublish),
    /// [`Link`]
    Link(Link),
    /// [`Unlink`]
    Unlink(Unlink),
    /// [`Down`]
    Down,
}

impl Request {
    /// Whether it changes what is published or linked, and tells nothing of the host.
    pub fn is_change(&self) -> bool {
        use Request::{Link, Publish, Unlink, Unpublish};
        matches!(self, Publish(_) | Unpublish(_) | Link(_) | Unlink(_))
    }
}

/// Whether the daemon is there.
#[derive(Clone, Copy, Debug)]
pub struct Ping;

/// Everything for people.
#[derive(Clone, Copy, Debug)]
pub struct Status;

/// All links.
#[derive(Clone, Copy, Debug)]
pub struct Links;

/// Publications made on running containers, and those taken away.
#[derive(Clone, Copy, Debug)]
pub struct LivePublications;

/// Know a created container before it starts: what it links and publishes is in force from its first packet on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prepare {
    /// Full id.
    pub container: String,
}

/// Answer when a started container is served, or has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitServed {
    /// Full id.
    pub container: String,
}

/// Publish on a running container. Answered when it is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// Name or id.
    pub container: String,
    /// As after `docker run -p`.
    pub spec: String,
    /// Who may use it.
    #[serde(default)]
    pub filter: Filter,
}

/// Take a publication away. Answered when it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unpublish {
    /// Name or id.
    pub container: String,
    /// As after `docker run -p`, or a container port.
    pub spec: String,
}

/// Link running containers. Answered when it is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Name or id.
    pub recipient: String,
    /// Name or id.
    pub source: String,
    /// Alias.
    pub alias: String,
    /// Whether to open ports that the source does not expose.
    pub all_ports: bool,
}

/// Take a link away. Answered when it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unlink {
    /// Name or id.
    pub recipient: String,
    /// Alias, or the source's name or id.
    pub target: String,
}

/// Detach everything and end. Answered when nothing is left.
#[derive(Clone, Copy, Debug)]
pub struct Down;

/// Of requests without fields.
macro_rules! plain {
    ($($call:ident -> $reply:ty),* $(,)?) => {$(
        impl From<$call> for Request {
            fn from(_: $call) -> Request {
                Request::$call
            }
        }

        impl Call for $call {
            type Reply = $reply;
        }
    )*};
}

/// Of requests with fields.
macro_rules! with_fields {
    ($($call:ident -> $reply:ty),* $(,)?) => {$(
        impl From<$call> for Request {
            fn from(call: $call) -> Request {
                Request::$call(call)
            }
        }

        impl Call for $call {
            type Reply = $reply;
        }
    )*};
}

plain! { Ping -> Pong, Status -> StatusReport, Links -> Vec<LinkRow>, LivePublications -> Vec<LivePublication> }
with_fields! {
    Prepare -> Served, WaitServed -> Served, Publish -> Published, Unpublish -> Published, Link -> Changed, Unlink -> Changed,
}

impl From<Down> for Request {
    fn from(_: Down) -> Request {
        Request::Down
    }
}

impl Call for Down {
    type Reply = ();

    const PATIENCE: Duration = LONG_PATIENCE;
}
