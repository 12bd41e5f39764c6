//! `runtime up`: the daemon, in the foreground or detached.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use runtime_api::{Call, Down, Ping, Status};
use tracing_subscriber::EnvFilter;

use super::{Failure, Globals};
use crate::daemon;
use crate::datapath::{HookOptions, XdpMode};
use crate::reconcile::{Isolate, Masquerade, Netfilter, Options};

#[derive(Debug, Args)]
pub(super) struct UpArgs {
    /// Go on in the background once everything is served
    #[arg(short, long)]
    detach: bool,
    /// Which networks are isolated: all bridge networks, the default bridge and those labelled runtime.isolate=true, or none
    #[arg(long, value_enum, default_value_t, value_name = "WHICH")]
    isolate: Isolate,
    /// How XDP is used on uplinks
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    xdp: XdpMode,
    /// An interface that outside traffic comes through; may be repeated [default: found by their addresses]
    #[arg(long, value_name = "INTERFACE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    uplink: Vec<String>,
    /// Give what containers send to the outside an address of this host: where the engine would and no rule of the host
    /// does (auto), for every network of both families (on), or never (off)
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    masquerade: Masquerade,
    /// The host's firewall and published ports: packets pass it by (bypass), or it has to let a conversation's first packets
    /// through, and the others pass it by (honor)
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    netfilter: Netfilter,
    /// Attach tc programs as clsact filters even where the kernel has tcx
    #[arg(long)]
    clsact: bool,
    /// Write the drops that the kernel side tells of to the log: one per reason, CPU and 10 ms at most
    #[arg(long)]
    datapath_log: bool,
}

impl UpArgs {
    /// Whether this process is to be the daemon, and does not start it.
    pub(super) fn is_daemon(&self) -> bool {
        !self.detach
    }
}

/// `unconfined`: what the process could not give up.
pub(super) async fn run(args: UpArgs, globals: &Globals, unconfined: Vec<String>) -> Result<(), Failure> {
    if args.detach {
        return detach(globals).await;
    }
    let filter = EnvFilter::try_from_env("RUNTIME_LOG").unwrap_or_else(|_| EnvFilter::new("runtime=info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
    let engine = daemon::waiting("the engine to answer", globals.engine()).await?;
    let options = daemon::Options {
        run_dir: globals.run_dir.clone(),
        state_dir: globals.state_dir.clone(),
        bpffs: globals.bpffs.clone(),
        hooks: HookOptions { xdp: args.xdp, force_clsact: args.clsact },
        log_drops: args.datapath_log,
        reconcile: Options {
            isolate: args.isolate,
            uplinks: args.uplink,
            masquerade: args.masquerade,
            netfilter: args.netfilter,
        },
        unconfined,
    };
    let ready = || {
        // For a service manager, if there is one that asked.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        tracing::info!("up");
    };
    daemon::run(options, engine.source, ready).await?;
    Ok(())
}

/// Starts this command anew without `--detach`, in a session of its own, and waits until it serves.
async fn detach(globals: &Globals) -> Result<(), Failure> {
    std::fs::create_dir_all(&globals.run_dir).with_context(|| format!("cannot make {}", globals.run_dir.display()))?;
    let log_path = globals.run_dir.join("runtime.log");
    let log = File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    log.set_permissions(Permissions::from_mode(0o640))
        .with_context(|| format!("cannot write {}", log_path.display()))?;
    let arguments = std::env::args_os().skip(1).filter(|a| a != "--detach" && a != "-d");
    let mut command = Command::new(std::env::current_exe().context("cannot find this program's own file")?);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).current_dir("/");
    // SAFETY: setsid is async-signal-safe and touches nothing of this process.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(std::io::Error::from));
    }
    let mut child = command.spawn().context("cannot start the daemon")?;
    let client = globals.datapath();
    let deadline = tokio::time::Instant::now() + <Down as Call>::PATIENCE;
    let mut told = 0;
    loop {
        let text = std::fs::read_to_string(&log_path).unwrap_or_default();
        let waits: Vec<_> = text.lines().filter_map(|line| line.find("waiting for ").map(|at| &line[at..])).collect();
        waits.iter().skip(told).for_each(|line| eprintln!("{line}"));
        told = waits.len();
        // Another daemon may answer: it must be this one.
        if client.call(Ping).await.is_ok_and(|pong| pong.pid == child.id()) {
            for problem in client.call(Status).await?.problems {
                eprintln!("problem: {problem}");
            }
            return Ok(());
        }
        if child.try_wait().context("cannot watch the daemon")?.is_some() {
            let text = std::fs::read_to_string(&log_path).unwrap_or_default();
            let last = text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it ended without a word");
            return Err(anyhow::anyhow!("{}", last.trim_start_matches("Error: ")).into());
        }
        if tokio::time::Instant::now() > deadline {
            let _ = child.kill();
            return Err(anyhow::anyhow!(
                "the daemon does not serve after {} s: see {}",
                <Down as Call>::PATIENCE.as_secs(),
                log_path.display()
            )
            .into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
