//! The command line: one file a command.

pub mod datapath_client;
pub mod display;
mod down;
mod inspect;
mod link;
mod links;
pub mod output;
mod port;
mod ps;
mod publish;
mod run;
mod status;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::daemon;
use crate::datapath::Pins;
use crate::engine::docker::Address;
use crate::engine::{Connected, EngineError};
use datapath_client::DatapathClient;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// Bad input: exit status 2, and one line that quotes the offending text.
    Usage(String),
    /// The operation failed: exit status 1, and one line that names the thing and the remedy.
    Failed(anyhow::Error),
    /// The same with an exit status of its own.
    FailedWith(u8, anyhow::Error),
    /// Nothing to say: the exit status alone, such as a container's.
    Status(u8),
}

impl Failure {
    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Failed(_) => 1,
            Failure::FailedWith(status, _) | Failure::Status(status) => *status,
        }
    }

    /// The line for stderr, without a prefix.
    pub fn message(&self) -> Option<String> {
        let text = match self {
            Failure::Usage(text) => text.clone(),
            Failure::Failed(e) | Failure::FailedWith(_, e) => format!("{e:#}"),
            Failure::Status(_) => return None,
        };
        Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(e: anyhow::Error) -> Self {
        Failure::Failed(e)
    }
}

impl From<EngineError> for Failure {
    fn from(e: EngineError) -> Self {
        Failure::Failed(e.into())
    }
}

/// Published ports and links of Docker containers, in eBPF.
#[derive(Debug, Parser)]
#[command(name = "runtime", version, max_term_width = 100, subcommand_required = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// What every command knows.
#[derive(Clone, Debug, Args)]
pub struct Globals {
    /// The Docker Engine: unix:///PATH or tcp://HOST:PORT [default: unix:///var/run/docker.sock]
    #[arg(long, global = true, env = "DOCKER_HOST", value_name = "ADDRESS", hide_env_values = true)]
    pub docker_host: Option<String>,
    /// Where the daemon keeps its socket (runtime.sock) and its pid file
    #[arg(
        long,
        global = true,
        env = "RUNTIME_RUN_DIR",
        value_name = "DIRECTORY",
        default_value = "/run/runtime",
        hide_env_values = true
    )]
    pub run_dir: PathBuf,
    /// Where links and publications made on running containers are kept
    #[arg(
        long,
        global = true,
        env = "RUNTIME_STATE_DIR",
        value_name = "DIRECTORY",
        default_value = "/var/lib/runtime",
        hide_env_values = true
    )]
    pub state_dir: PathBuf,
    /// Where in a BPF file system programs, maps and links are pinned
    #[arg(
        long,
        global = true,
        env = "RUNTIME_BPFFS",
        value_name = "DIRECTORY",
        default_value = "/sys/fs/bpf/runtime",
        hide_env_values = true
    )]
    pub bpffs: PathBuf,
}

impl Globals {
    /// Connects to the Engine.
    ///
    /// # Errors
    /// Bad input for an address that is none, else what the attempt said.
    pub async fn engine(&self) -> Result<Connected, Failure> {
        let address = self.docker_host.as_deref().filter(|a| !a.is_empty());
        if let Some(address) = address {
            address.parse::<Address>().map_err(|e| Failure::Usage(e.to_string()))?;
        }
        Ok(Connected::to(address).await?)
    }

    /// The way to the daemon; nothing is sent yet.
    pub fn datapath(&self) -> DatapathClient {
        DatapathClient::new(&self.run_dir, Pins::new(&self.bpffs))
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take over the published ports and the isolation of the Engine's containers
    Up(up::UpArgs),
    /// Detach everything and leave the host as it was
    Down(down::DownArgs),
    /// Show what is attached, served and refused
    Status(status::StatusArgs),
    /// Create a container, start it, and return once its ports and links are served
    Run(Box<run::RunArgs>),
    /// List containers
    Ps(ps::PsArgs),
    /// List a container's published ports, or those of one port of it
    Port(port::PortArgs),
    /// Print what the Engine knows of containers, with live publications
    Inspect(inspect::InspectArgs),
    /// Link running containers: the recipient may reach the source, and only it
    Link(link::LinkArgs),
    /// Take a link away, and end its connections
    Unlink(link::UnlinkArgs),
    /// List links
    Links(links::LinksArgs),
    /// Publish a port of a running container
    Publish(publish::PublishArgs),
    /// Take a published port away, and end its connections
    Unpublish(publish::UnpublishArgs),
}

async fn dispatch(cli: Cli, unconfined: Vec<String>) -> Result<(), Failure> {
    let globals = cli.globals;
    match cli.command {
        Command::Up(args) => up::run(args, &globals, unconfined).await,
        Command::Down(args) => down::run(args, &globals).await,
        Command::Status(args) => status::run(args, &globals).await,
        Command::Link(args) => link::link(args, &globals).await,
        Command::Unlink(args) => link::unlink(args, &globals).await,
        Command::Links(args) => links::run(args, &globals).await,
        Command::Publish(args) => publish::publish(args, &globals).await,
        Command::Unpublish(args) => publish::unpublish(args, &globals).await,
        Command::Run(args) => run::run(*args, &globals).await,
        Command::Ps(args) => ps::run(args, &globals).await,
        Command::Port(args) => port::run(args, &globals).await,
        Command::Inspect(args) => inspect::run(args, &globals).await,
    }
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return finish(explain(&e)),
    };
    // Before there are other threads.
    let unconfined = match &cli.command {
        Command::Up(args) if args.is_daemon() => daemon::confine(),
        _ => Vec::new(),
    };
    // The daemon alone has work for more than one thread; to start them takes a command as long as its question.
    let mut builder = match cli.command {
        Command::Up(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return finish(Err(anyhow::Error::new(e).context("cannot start threads").into())),
    };
    let result = runtime.block_on(dispatch(cli, unconfined));
    // A read of the terminal may still be waiting for a key.
    runtime.shutdown_background();
    finish(result)
}

fn finish(result: Result<(), Failure>) -> ExitCode {
    let Err(failure) = result else { return ExitCode::SUCCESS };
    if let Some(message) = failure.message() {
        eprintln!("Error: {message}");
    }
    ExitCode::from(failure.status())
}

/// Help and version are printed; the rest is bad input. Clap tells of it over several lines: its first paragraph says what is
/// wrong, and quotes it.
fn explain(e: &clap::Error) -> Result<(), Failure> {
    let text = e.render().to_string();
    match e.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => output::print(&text),
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Err(Failure::Usage("no command given; `runtime --help` lists them".to_owned()))
        }
        _ => {
            let first = text.split("\n\n").next().unwrap_or_default();
            Err(Failure::Usage(first.trim_start_matches("error: ").to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(arguments: &[&str]) -> String {
        let e = Cli::try_parse_from(arguments).expect_err("taken");
        let failure = explain(&e).expect_err("taken");
        assert_eq!(failure.status(), 2);
        failure.message().expect("no message")
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn refusals_are_one_line_and_quote() {
        for (arguments, quoted) in [
            (&["runtime", "fly"][..], "'fly'"),
            (&["runtime", "ps", "--bogus"], "'--bogus'"),
            (&["runtime", "run"], "<IMAGE>"),
            (&["runtime", "port"], "<CONTAINER>"),
            (&["runtime", "run", "--restart"], "'--restart <POLICY>'"),
            (&["runtime"], "no command"),
        ] {
            let message = refusal(arguments);
            assert!(message.contains(quoted), "{message}");
            assert_eq!(message.lines().count(), 1, "{message}");
        }
    }

    #[test]
    fn global_options_stand_anywhere() {
        let cli = Cli::try_parse_from(["runtime", "ps", "--docker-host", "tcp://h:1", "--run-dir", "/x"]).unwrap();
        assert_eq!(cli.globals.docker_host.as_deref(), Some("tcp://h:1"));
        assert_eq!(cli.globals.run_dir, PathBuf::from("/x"));
    }
}
