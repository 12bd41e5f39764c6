//! The programs that list the host's firewall rules: what they print, or why they do not.

use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::process::Command;

/// How long a program may take to list rules.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the kernel tells of the tables that iptables has made without nf_tables.
const LEGACY: [(&str, &str); 2] =
    [("iptables-save", "/proc/net/ip_tables_names"), ("ip6tables-save", "/proc/net/ip6_tables_names")];

/// What programs say of the host's rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// What each of them has printed, by its name.
    pub printed: Vec<(&'static str, String)>,
    /// A line for each that should have said something and did not, with the remedy.
    pub failed: Vec<String>,
}

impl Listing {
    /// What a program has printed, if it could.
    pub fn of(&self, program: &str) -> Option<&str> {
        self.printed.iter().find(|(name, _)| *name == program).map(|(_, text)| text.as_str())
    }
}

/// Runs each of these programs, given with its arguments.
pub async fn list(commands: &[&[&'static str]]) -> Listing {
    let mut listing = Listing::default();
    let mut missing = Vec::new();
    for words in commands {
        let Some((program, arguments)) = words.split_first() else { continue };
        // Without IPv6, ip6tables has nothing to say and fails.
        if program.starts_with("ip6tables") && !Path::new("/proc/net/if_inet6").exists() {
            continue;
        }
        match output(program, arguments).await {
            Ok(Some(text)) => listing.printed.push((*program, text)),
            Ok(None) => missing.push(*program),
            Err(reason) => listing.failed.push(reason),
        }
    }
    listing
        .failed
        .extend(lacking(&missing, |names| std::fs::read_to_string(names).is_ok_and(|text| !text.trim().is_empty())));
    listing
}

/// What is not known for want of programs. `has_tables` tells whether one of the kernel's lists of tables names any.
fn lacking(missing: &[&str], has_tables: impl Fn(&str) -> bool) -> Vec<String> {
    let unread = LEGACY.iter().filter(|(program, names)| missing.contains(program) && has_tables(names));
    let unread = unread.map(|(program, _)| format!("{program} is not in PATH, but the kernel has tables of iptables"));
    let none = ["iptables-save", "nft"].iter().all(|program| missing.contains(program));
    unread.chain(none.then(|| "neither iptables-save nor nft is in PATH".to_owned())).collect()
}

/// What a program prints; nothing where it is not installed.
async fn output(program: &str, arguments: &[&str]) -> Result<Option<String>, String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(PATIENCE, command.output()).await {
        Err(_) => Err(format!("{program} does not end within {} s", PATIENCE.as_secs())),
        Ok(Err(e)) if e.kind() == ErrorKind::NotFound => Ok(None),
        Ok(Err(e)) => Err(format!("{program} cannot be run: {e}")),
        Ok(Ok(output)) => outcome(program, &output),
    }
}

fn outcome(program: &str, output: &Output) -> Result<Option<String>, String> {
    if output.status.success() {
        return Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    if let Some(signal) = output.status.signal() {
        let signal = Signal::try_from(signal).map_or_else(|_| signal.to_string(), |s| s.to_string());
        return Err(format!(
            "{program} crashed ({signal}): rules must be listed by a version no older than the one that made them; put that first in PATH"
        ));
    }
    let words = String::from_utf8_lossy(&output.stderr);
    // A kernel without nf_tables has no such rules.
    const LACKING: [&str; 2] =
        ["cache initialization failed: Invalid argument", "Failed to initialize nft: Protocol not supported"];
    if LACKING.iter().any(|lacking| words.contains(lacking)) {
        return Ok(Some(String::new()));
    }
    let reason = words.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or("it gives no reason");
    Err(format!("{program} failed ({}): {reason}", output.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_fails_is_told_apart_from_what_is_not_there() {
        assert_eq!(output("echo", &["-n", "rules"]).await, Ok(Some("rules".to_owned())));
        assert_eq!(output("no-such-program-here", &[]).await, Ok(None));
        let crash = output("sh", &["-c", "kill -SEGV $$"]).await.unwrap_err();
        assert!(crash.starts_with("sh crashed (SIGSEGV)"), "{crash}");
        let failure = output("sh", &["-c", "echo; echo 'no right' >&2; echo more >&2; exit 3"]).await.unwrap_err();
        assert_eq!(failure, "sh failed (exit status: 3): no right");
        let lacking = "echo 'netlink: Error: cache initialization failed: Invalid argument' >&2; exit 1";
        assert_eq!(output("sh", &["-c", lacking]).await, Ok(Some(String::new())));
    }

    #[test]
    fn programs_that_are_not_there_are_missed_where_there_is_something_to_read() {
        assert_eq!(lacking(&["iptables-save", "ip6tables-save"], |_| false).len(), 0);
        assert_eq!(lacking(&["nft", "iptables-legacy-save"], |_| true).len(), 0);
        let legacy = lacking(&["iptables-save"], |names| names.ends_with("/ip_tables_names"));
        assert_eq!(legacy, ["iptables-save is not in PATH, but the kernel has tables of iptables"]);
        assert_eq!(lacking(&["iptables-save", "nft"], |_| false), ["neither iptables-save nor nft is in PATH"]);
    }
}
