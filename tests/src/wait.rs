//! Waiting for conditions.

use std::time::{Duration, Instant};

/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks again and again until `probe` gives something; `None` when `limit` has passed.
pub fn wait_for<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within `limit`; `what` names it.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    if wait_for(limit, || condition().then_some(())).is_none() {
        panic!("not within {limit:?}: {what}");
    }
}
