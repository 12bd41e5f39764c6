//! Waiting for conditions.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The variable that says how many times longer everything may take: on a machine that is emulated.
const PATIENCE: &str = "RUNTIME_LAB_PATIENCE";

/// How long something may take here that takes at most `limit` on an ordinary machine.
pub fn patient(limit: Duration) -> Duration {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    let factor = || {
        let Some(text) = std::env::var_os(PATIENCE) else { return 1 };
        let factor = text.to_str().and_then(|text| text.parse().ok()).filter(|factor| *factor > 0);
        factor.unwrap_or_else(|| panic!("{PATIENCE} is {text:?}: it is to be a whole number from 1 on"))
    };
    limit * *FACTOR.get_or_init(factor)
}

/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks again and again until `probe` gives something; `None` when `limit` has passed (see `patient`).
pub fn wait_for<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + patient(limit);
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
