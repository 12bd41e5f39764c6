//! Saying what a start waits for.

use std::pin::pin;
use std::time::Duration;

use tracing::info;

/// How long something may take without a word.
const SILENCE: Duration = Duration::from_secs(3);

/// Waits for something, and tells after a while that it is waited for: in the log, and to a service manager.
pub async fn waiting<T>(what: &str, wanted: impl Future<Output = T>) -> T {
    let mut wanted = pin!(wanted);
    loop {
        match tokio::time::timeout(SILENCE, wanted.as_mut()).await {
            Ok(had) => return had,
            Err(_) => {
                info!("waiting for {what}");
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Status(&format!("waiting for {what}"))]);
            }
        }
    }
}
