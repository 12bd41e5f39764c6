//! What the commands ask of the daemon.

use std::path::Path;

use runtime_api::{Call, Client, Error, LivePublication, LivePublications};

use super::Failure;
use crate::datapath::Pins;

/// Why the daemon did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens, and what a daemon has pinned is in force.
    #[error(
        "the daemon does not run; what it served goes on without it, and follows no change: start it again with \"sudo runtime up\", \
         or take all of it away with \"sudo runtime down\""
    )]
    NotRunning,
    /// Anything else.
    #[error(transparent)]
    Api(#[from] Error),
}

impl ClientError {
    /// Whether nothing listens.
    pub fn is_absence(&self) -> bool {
        matches!(self, ClientError::NotRunning | ClientError::Api(Error::NotUp))
    }
}

impl From<ClientError> for Failure {
    fn from(e: ClientError) -> Self {
        match e {
            ClientError::Api(Error::Refused(refusal)) if refusal.status == 2 => Failure::Usage(refusal.message),
            ClientError::Api(Error::Refused(refusal)) if refusal.status > 2 => {
                Failure::FailedWith(refusal.status, refusal.into())
            }
            e => Failure::Failed(e.into()),
        }
    }
}

/// The way to the daemon.
#[derive(Clone, Debug)]
pub struct DatapathClient {
    client: Client,
    pins: Pins,
}

impl DatapathClient {
    /// The daemon that keeps its socket in this directory, and its pins there: whether anything is in force without it.
    pub fn new(run_dir: &Path, pins: Pins) -> Self {
        DatapathClient { client: Client::new(run_dir), pins }
    }

    /// Sends a request and returns what the daemon answers to it.
    ///
    /// # Errors
    /// Where nothing listens, and where the daemon says no.
    pub async fn call<C: Call>(&self, call: C) -> Result<C::Reply, ClientError> {
        self.client.call(call).await.map_err(|e| match e {
            Error::NotUp if self.pins.exist() => ClientError::NotRunning,
            e => ClientError::Api(e),
        })
    }

    /// Publications made on running containers and those taken away, for commands that only look: none where the datapath is not up.
    ///
    /// # Errors
    /// Those of [`DatapathClient::call`], save that nothing listens.
    pub async fn live_publications_if_up(&self) -> Result<Vec<LivePublication>, ClientError> {
        match self.call(LivePublications).await {
            Err(e) if e.is_absence() => Ok(Vec::new()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use runtime_api::Refusal;

    use super::*;

    #[test]
    fn a_refusal_has_the_status_of_the_daemon() {
        let failure = |refusal| Failure::from(ClientError::from(Error::Refused(refusal)));
        let told = failure(Refusal::usage("map is full"));
        assert_eq!((told.status(), told.message()), (2, Some("map is full".to_owned())));
        let told = failure(Refusal::failed("no"));
        assert_eq!((told.status(), told.message()), (1, Some("no".to_owned())));
        let told = failure(Refusal { message: "no".to_owned(), status: 125 });
        assert_eq!(told.status(), 125);
    }
}
