//! Rules of the host's firewall that were meant to filter forwarded packets: what the datapath redirects passes them by.
//!
//! Nothing is ever changed here; what the programs that list rules print is read, and no more.

mod iptables;
mod nft;

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// How long a program may take to list rules.
const PATIENCE: Duration = Duration::from_secs(5);

/// A line for each rule that redirected packets pass by: which it is, what that means, and what is there instead.
///
/// A program that is not installed, or fails, has no rules to tell of.
pub async fn passed_by() -> Vec<String> {
    let mut found = Vec::new();
    let mut by_iptables = false;
    for (program, family) in [("iptables-save", "iptables"), ("ip6tables-save", "ip6tables")] {
        if let Some(text) = output(program, &[]).await {
            by_iptables = true;
            found.extend(iptables::filters(&text).iter().map(|rule| describe(family, rule)));
        }
    }
    if let Some(text) = output("nft", &["-j", "list", "ruleset"]).await {
        found.extend(nft::filters(&text, by_iptables).iter().map(|rule| describe("nft", rule)));
    }
    found
}

fn describe(family: &str, rule: &str) -> String {
    format!(
        "{family} rule \"{rule}\" does not see packets to published ports, which are redirected past it; it has no counterpart \
         here: publish on a single address, or take away with \"runtime unpublish\" what it was to protect"
    )
}

async fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.ok()?.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
