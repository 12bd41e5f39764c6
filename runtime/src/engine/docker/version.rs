//! Which version of the API is spoken with an Engine: asked, never taken from what the Engine calls itself.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

use bollard::API_DEFAULT_VERSION;
use bollard::models::SystemVersion;
use hyper::Uri;

use crate::engine::EngineError;

/// A version of the Engine's API, such as 1.41.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion(pub u16, pub u16);

impl ApiVersion {
    /// The first whose Engine (Docker 29) no longer writes link variables into a recipient's environment by default.
    pub const NO_LINK_ENVIRONMENT: ApiVersion = ApiVersion(1, 52);
    /// The oldest that tells all that is needed: Docker 20.10's.
    pub const OLDEST: ApiVersion = ApiVersion(1, 41);
    /// The newest whose answers are known.
    pub const NEWEST: ApiVersion =
        ApiVersion(API_DEFAULT_VERSION.major_version as u16, API_DEFAULT_VERSION.minor_version as u16);
}

/// The text is no version of the API: `28.5.2+dfsg4` and `5.8.6` are not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no version of an API")]
pub struct InvalidApiVersion(String);

impl FromStr for ApiVersion {
    type Err = InvalidApiVersion;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten()
        };
        let parts = s.split_once('.').and_then(|(major, minor)| Some(ApiVersion(number(major)?, number(minor)?)));
        parts.ok_or_else(|| InvalidApiVersion(s.to_owned()))
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The versions that an Engine speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) oldest: ApiVersion,
    pub(super) newest: ApiVersion,
}

impl Range {
    /// From an Engine's answer to `/version`.
    ///
    /// # Errors
    /// [`EngineError::Refused`] where it says none: whatever answers at `address` is no Engine.
    pub(super) fn of(version: &SystemVersion, address: &str) -> Result<Self, EngineError> {
        let said = version.api_version.as_deref().unwrap_or_default();
        let newest: ApiVersion = said.parse().map_err(|_| {
            EngineError::Refused(format!(
                "what answers at {address} names \"{said}\" as the version of its API: name the socket of Docker or Podman with --docker-host"
            ))
        })?;
        // Engines before 2017 do not tell the oldest.
        let oldest = version.min_api_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(newest);
        Ok(Range { oldest: oldest.min(newest), newest })
    }

    /// The version to speak: the newest that both know, or the one that `DOCKER_API_VERSION` wishes for.
    ///
    /// # Errors
    /// [`EngineError::Refused`] where there is none, and for a wish that cannot be granted.
    pub(super) fn choose(self, wish: Option<&str>, address: &str) -> Result<ApiVersion, EngineError> {
        let (oldest, newest) = (self.oldest.max(ApiVersion::OLDEST), self.newest.min(ApiVersion::NEWEST));
        if oldest > newest {
            let Range { oldest: its_oldest, newest: its_newest } = self;
            let (ours, remedy) = if its_newest < ApiVersion::OLDEST {
                (ApiVersion::OLDEST, "at least: upgrade the engine (Docker 20.10 or later)")
            } else {
                (ApiVersion::NEWEST, "at most: upgrade runtime")
            };
            return Err(EngineError::Refused(format!(
                "the engine at {address} speaks versions {its_oldest} to {its_newest} of its API, and runtime {ours} {remedy}"
            )));
        }
        let Some(wish) = wish.filter(|w| !w.is_empty()) else { return Ok(newest) };
        // As Docker's own client takes it.
        match wish.trim_start_matches('v').parse() {
            Ok(wished) if (oldest..=newest).contains(&wished) => Ok(wished),
            _ => Err(EngineError::Refused(format!(
                "DOCKER_API_VERSION is \"{wish}\", and what both runtime and the engine at {address} speak is {oldest} to {newest}: set it to one of \
                 these, or unset it"
            ))),
        }
    }
}

/// What was agreed with an Engine. Agreed anew when it comes back: it may have been replaced by another version.
#[derive(Debug)]
pub(super) struct Agreed {
    spoken: AtomicU32,
    newest: AtomicU32,
}

impl Agreed {
    pub(super) fn new(spoken: ApiVersion, range: Range) -> Self {
        Agreed { spoken: AtomicU32::new(pack(spoken)), newest: AtomicU32::new(pack(range.newest)) }
    }

    pub(super) fn set(&self, spoken: ApiVersion, range: Range) {
        self.spoken.store(pack(spoken), Ordering::Relaxed);
        self.newest.store(pack(range.newest), Ordering::Relaxed);
    }

    /// The version of each request.
    pub(super) fn spoken(&self) -> ApiVersion {
        unpack(self.spoken.load(Ordering::Relaxed))
    }

    /// The newest that the Engine has, whichever is spoken: it tells how the Engine behaves.
    pub(super) fn newest(&self) -> ApiVersion {
        unpack(self.newest.load(Ordering::Relaxed))
    }

    /// A request of the typed client, which names no version, as a request in the agreed one.
    pub(super) fn request<B>(&self, mut request: hyper::Request<B>) -> hyper::Request<B> {
        let mut parts = request.uri().clone().into_parts();
        let path = parts.path_and_query.as_ref().map_or("/", |p| p.as_str());
        if let Ok(path) = format!("/v{}{path}", self.spoken()).parse() {
            parts.path_and_query = Some(path);
            if let Ok(uri) = Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
        }
        request
    }
}

fn pack(version: ApiVersion) -> u32 {
    u32::from(version.0) << 16 | u32::from(version.1)
}

fn unpack(word: u32) -> ApiVersion {
    ApiVersion((word >> 16) as u16, word as u16)
}
