//! `runtime run`: Docker's `run`, which returns only when the datapath serves the container.

mod attach;
mod conflict;
mod create;
mod env;
mod foreground;
mod plan;
mod request;
mod signals;

use std::collections::BTreeMap;
use std::io::IsTerminal;

use clap::{ArgAction, Args};
use runtime_api::{LivePublications, Ping, Prepare, WaitServed};

use super::datapath_client::DatapathClient;
use super::output::{self, Format};
use super::publish::FilterArgs;
use super::{Failure, Globals};
use crate::engine::docker::DockerEngine;
use crate::engine::docker::own_name;
use crate::engine::{Connected, EngineError, LinksBy};
use request::Request;
use signals::Signals;

/// Docker's flags.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct RunArgs {
    /// Run in the background and print the container's id
    #[arg(short, long)]
    detach: bool,
    /// Remove the container when it exits
    #[arg(long)]
    rm: bool,
    /// The container's name
    #[arg(long)]
    name: Option<String>,
    /// Publish all exposed ports to random host ports
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Publish container ports to the host: [ADDRESS:][HOST:]CONTAINER[/PROTOCOL], or ranges of them
    #[arg(short, long, value_name = "PORTS")]
    publish: Vec<String>,
    /// Expose a port or a range of ports
    #[arg(long, value_name = "PORTS")]
    expose: Vec<String>,
    /// Link to another container: SOURCE[:ALIAS]
    #[arg(long, value_name = "LINK")]
    link: Vec<String>,
    /// Set an environment variable; NAME alone takes its value from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<String>,
    /// The host name inside the container
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// The network to connect to
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    network: Option<String>,
    /// Set a label
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// Run this in place of the image's entry point; an empty one resets it
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Keep the container's input open, and attach to it
    #[arg(short, long)]
    interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    tty: bool,
    /// Mount a volume: [SOURCE:]DESTINATION[:OPTIONS]
    #[arg(short, long, value_name = "VOLUME")]
    volume: Vec<String>,
    /// The working directory inside the container
    #[arg(short, long, value_name = "DIRECTORY")]
    workdir: Option<String>,
    /// The user inside the container: NAME|UID[:GROUP|GID]
    #[arg(short, long)]
    user: Option<String>,
    /// What to do when it exits: no, always, unless-stopped, on-failure[:COUNT]
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Print what would be published and linked, and create nothing
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: json, table, or a Go template
    #[arg(long, requires = "dry_run")]
    format: Option<String>,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// The image, and the command to run in it
    #[arg(required = true, trailing_var_arg = true, num_args = 1.., value_names = ["IMAGE", "COMMAND"])]
    image_and_command: Vec<String>,
}

pub(super) async fn run(args: RunArgs, globals: &Globals) -> Result<(), Failure> {
    let (dry_run, format) = (args.dry_run, Format::parse(args.format.as_deref())?);
    let request = Request::parse(args)?;
    if dry_run {
        return print_plan(request, &format, globals).await;
    }
    if request.interactive && request.tty && !request.detach && !std::io::stdin().is_terminal() {
        // Docker's words.
        return Err(Failure::Failed(anyhow::anyhow!("the input device is not a TTY")));
    }
    let engine = globals.engine().await?;
    let datapath = globals.datapath();
    datapath.call(Ping).await?;
    let request = check(request, &engine, &datapath).await?;
    for warning in &request.warnings {
        eprintln!("WARNING: {warning}");
    }
    start(&request, &engine, &datapath).await
}

async fn print_plan(mut request: Request, format: &Format, globals: &Globals) -> Result<(), Failure> {
    request.name_recipient(&|_| false);
    let request = &request;
    let context = if request.links.is_empty() && !request.publish_all {
        plan::Context::default()
    } else {
        let engine = globals.engine().await.map_err(|e| plan::needs_engine(request, e))?;
        context(request, &engine).await?
    };
    let plan = plan::plan(request, &context)?;
    match format {
        Format::Json => output::print_json(&plan.json()),
        Format::Table => output::print(&plan.table()),
        Format::Template(template) | Format::TemplateTable(template) => {
            output::print(&(output::render(template, &plan.json())? + "\n"))
        }
    }
}

/// What the Engine knows that a plan needs.
async fn context(request: &Request, engine: &Connected) -> Result<plan::Context, Failure> {
    let mut context = plan::Context::default();
    if request.publish_all {
        let image = engine.control.image(&request.image).await.map_err(|e| match e {
            EngineError::NotFound { kind, name } => {
                anyhow::anyhow!("no such {kind} {name:?} to take exposed ports from: pull it first")
            }
            e => e.into(),
        })?;
        context.image_ports = create::image_ports(&image);
    }
    if !request.links.is_empty() {
        let network = engine.source.network(request.network.inspect_name()).await?;
        for link in &request.links {
            let source = match engine.source.container(&link.source).await {
                Ok(source) => source,
                Err(EngineError::NotFound { .. }) => return Err(plan::no_source(link)),
                Err(e) => return Err(e.into()),
            };
            context.sources.insert(link.source.clone(), source);
        }
        context.network = Some(network);
    }
    Ok(context)
}

/// Everything that can be known beforehand to fail, fails here: nothing exists yet that would have to be removed.
async fn check(mut request: Request, engine: &Connected, datapath: &DatapathClient) -> Result<Request, Failure> {
    let listed = engine.control.list(true, &BTreeMap::new()).await?;
    if let Some(name) = &request.name
        && let Some(holder) = listed.iter().find(|c| own_name(c) == Some(name.as_str()))
    {
        return Err(Failure::Failed(anyhow::anyhow!(
            "Conflict. The container name \"/{name}\" is already in use by container \"{}\". You have to remove (or rename) \
             that container to be able to reuse that name.",
            holder.id.as_deref().unwrap_or_default()
        )));
    }
    request.name_recipient(&|name| listed.iter().any(|c| own_name(c) == Some(name)));
    // Before the image: a pull takes long.
    let live = datapath.call(LivePublications).await?;
    let held = conflict::held(&listed, &live);
    if !engine.chooses_from_ranges() {
        conflict::choose(&mut request.publications, &held, &conflict::is_free);
    }
    conflict::check(&request.publications, &held)?;
    let links = if request.links.is_empty() { None } else { Some(context(&request, engine).await) };
    let image = foreground::image(&engine.control, &request.image).await?;
    if let Some(context) = links {
        let context = context?;
        let plan = plan::plan(&request, &context)?;
        let by = engine.links_by();
        if by == LinksBy::Label {
            create::put_links_into_label(&mut request, &plan);
        }
        if by == LinksBy::Label || !create::engine_writes_link_variables(&request, engine.control.api_version()) {
            request.env = create::with_link_variables(&request, &image, plan);
        }
    }
    Ok(request)
}

async fn start(request: &Request, engine: &Connected, datapath: &DatapathClient) -> Result<(), Failure> {
    // From here on a signal must not leave the container behind.
    let mut signals = Signals::listen()?;
    let (id, warnings) = create::create(request, &engine.control).await?;
    for warning in warnings {
        eprintln!("WARNING: {warning}");
    }
    let started = tokio::select! {
        started = serve(request, engine, datapath, &id) => started,
        signal = signals.next_fatal() => {
            let status = u8::try_from(128 + signal.number).unwrap_or(1);
            Err(Failure::FailedWith(status, anyhow::anyhow!("stopped by {} before the container was served", signal.name)))
        }
    };
    let running = match started {
        Ok(running) => running,
        Err(failure) => return Err(undo(&engine.control, &id, failure).await),
    };
    if request.detach {
        return output::print(&format!("{id}\n"));
    }
    foreground::follow(request, &engine.control, &id, running, signals).await
}

/// From created to served.
async fn serve(
    request: &Request,
    engine: &Connected,
    datapath: &DatapathClient,
    id: &str,
) -> Result<foreground::Running, Failure> {
    datapath.call(Prepare { container: id.to_owned() }).await?;
    if engine.make_network_ahead(id).await.map_err(create::start_failure)? {
        // Served before its first packet.
        datapath.call(WaitServed { container: id.to_owned() }).await?;
    }
    let mut running = foreground::before_start(request, &engine.control, id).await?;
    engine.control.start(id).await.map_err(create::start_failure)?;
    tokio::select! {
        served = datapath.call(WaitServed { container: id.to_owned() }) => match served {
            Ok(_) => {}
            // A command may be done before it is served.
            Err(e) => match engine.source.container(id).await {
                Ok(container) if container.running => return Err(e.into()),
                Ok(_) | Err(EngineError::NotFound { .. }) => {}
                Err(_) => return Err(e.into()),
            },
        },
        status = &mut running.exit => running.status = Some(status),
    }
    Ok(running)
}

/// Nothing half-made stays.
async fn undo(engine: &DockerEngine, id: &str, failure: Failure) -> Failure {
    let Err(e) = engine.remove(id).await else { return failure };
    let short: String = id.chars().take(12).collect();
    let message = failure.message().unwrap_or_default();
    let message = format!("{message}; and the container {short} could not be removed: {e}");
    Failure::FailedWith(failure.status(), anyhow::anyhow!(message))
}
