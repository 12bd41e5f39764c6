//! The arguments of `run`, understood: everything that can be refused without asking anybody is refused here.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;

use bollard::models::{RestartPolicy, RestartPolicyNameEnum};

use super::{Failure, RunArgs, env};
use crate::model::Port;
use crate::model::link::{LinkRequest, parse_link};
use crate::model::names::{container_name, generate_name};
use crate::model::publish::{PublishRequest, first_duplicate, parse_expose, parse_publish};

/// Where the container is to live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NetworkMode {
    /// Docker's default bridge.
    DefaultBridge,
    /// A network of the user's own.
    Custom(String),
    /// No network, the host's, or another container's: nothing to publish or link.
    Without(String),
}

impl NetworkMode {
    fn parse(text: Option<&str>) -> Result<Self, Failure> {
        match text {
            None | Some("default" | "bridge") => Ok(NetworkMode::DefaultBridge),
            Some(text @ ("host" | "none")) => Ok(NetworkMode::Without(text.to_owned())),
            Some(text) if text.strip_prefix("container:").is_some_and(|c| !c.is_empty()) => {
                Ok(NetworkMode::Without(text.to_owned()))
            }
            Some(text) if text.is_empty() || text.contains([':', '/', '=', ',']) => Err(Failure::Usage(format!(
                "invalid --network {text:?}: expected bridge, host, none, container:NAME, or a network's name"
            ))),
            Some(text) => Ok(NetworkMode::Custom(text.to_owned())),
        }
    }

    /// As `HostConfig.NetworkMode` has it.
    pub(super) fn name(&self) -> &str {
        match self {
            NetworkMode::DefaultBridge => "default",
            NetworkMode::Custom(name) | NetworkMode::Without(name) => name,
        }
    }

    /// The name under which the Engine knows the network itself.
    pub(super) fn inspect_name(&self) -> &str {
        match self {
            NetworkMode::DefaultBridge => "bridge",
            other => other.name(),
        }
    }
}

/// A container to run.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) detach: bool,
    pub(super) rm: bool,
    pub(super) name: Option<String>,
    pub(super) publish_all: bool,
    pub(super) publications: Vec<PublishRequest>,
    pub(super) exposed: Vec<Port>,
    pub(super) links: Vec<LinkRequest>,
    pub(super) env: Vec<String>,
    pub(super) hostname: Option<String>,
    pub(super) network: NetworkMode,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) entrypoint: Option<String>,
    pub(super) interactive: bool,
    pub(super) tty: bool,
    pub(super) binds: Vec<String>,
    pub(super) volumes: Vec<String>,
    pub(super) workdir: Option<String>,
    pub(super) user: Option<String>,
    pub(super) restart: Option<RestartPolicy>,
    pub(super) image: String,
    pub(super) command: Vec<String>,
    /// For stderr, in Docker's words.
    pub(super) warnings: Vec<String>,
}

fn usage(e: impl ToString) -> Failure {
    Failure::Usage(e.to_string())
}

impl Request {
    /// Understands the arguments.
    ///
    /// # Errors
    /// Bad input, quoted.
    pub(super) fn parse(args: RunArgs) -> Result<Self, Failure> {
        let mut words = args.image_and_command.into_iter();
        let image = words.next().unwrap_or_default();
        if image.is_empty() || image.contains(char::is_whitespace) {
            return Err(Failure::Usage(format!("invalid image {image:?}: expected NAME[:TAG]")));
        }
        let name = args.name.as_deref().map(container_name).transpose().map_err(usage)?.map(str::to_owned);
        let mut publications = Vec::new();
        for spec in &args.publish {
            publications.extend(parse_publish(spec).map_err(usage)?);
        }
        if let Some(twice) = first_duplicate(&publications) {
            return Err(Failure::Usage(format!("--publish \"{twice}\" asks for a host port that was given before")));
        }
        let mut exposed = BTreeSet::new();
        for spec in &args.expose {
            exposed.extend(parse_expose(spec).map_err(usage)?);
        }
        let mut request = Request {
            detach: args.detach,
            rm: args.rm,
            name,
            publish_all: args.publish_all,
            publications,
            exposed: exposed.into_iter().collect(),
            links: links(&args.link)?,
            env: env::environment(&args.env, &args.env_file, &|name| std::env::var(name).ok())?,
            hostname: args.hostname,
            network: NetworkMode::parse(args.network.as_deref())?,
            labels: labels(&args.label)?
                .into_iter()
                .chain(args.filter.read()?.to_labels().map(|(name, value)| (name.to_owned(), value)))
                .collect(),
            entrypoint: args.entrypoint,
            interactive: args.interactive,
            tty: args.tty,
            binds: Vec::new(),
            volumes: Vec::new(),
            workdir: args.workdir,
            user: args.user,
            restart: args.restart.as_deref().map(restart).transpose()?,
            image,
            command: words.collect(),
            warnings: Vec::new(),
        };
        for volume in &args.volume {
            request.add_volume(volume)?;
        }
        request.check_together()?;
        Ok(request)
    }

    fn add_volume(&mut self, spec: &str) -> Result<(), Failure> {
        let invalid = |why: &str| Failure::Usage(format!("invalid --volume {spec:?}: {why}"));
        let parts: Vec<&str> = spec.split(':').collect();
        let (source, destination) = match parts[..] {
            [destination] => (None, destination),
            [source, destination] | [source, destination, _] => (Some(source), destination),
            _ => return Err(invalid("expected [SOURCE:]DESTINATION[:OPTIONS]")),
        };
        if parts.iter().any(|p| p.is_empty()) {
            return Err(invalid("a part of it is empty"));
        }
        if !destination.starts_with('/') {
            return Err(invalid("the destination is not an absolute path"));
        }
        match source {
            None => self.volumes.push(destination.to_owned()),
            // A path of this directory, as Docker's own client reads it; anything else is a volume's name or a whole path.
            Some(source) if source.starts_with('.') => {
                let absolute = std::path::absolute(Path::new(source)).map_err(|e| invalid(&e.to_string()))?;
                let rest = spec.get(source.len()..).unwrap_or_default();
                self.binds.push(format!("{}{rest}", absolute.display()));
            }
            Some(_) => self.binds.push(spec.to_owned()),
        }
        Ok(())
    }

    /// Flags that exclude each other.
    fn check_together(&mut self) -> Result<(), Failure> {
        let conflict = |what: &str| Err(Failure::Usage(format!("conflicting options: {what}")));
        let restarts = self.restart.as_ref().is_some_and(|r| r.name != Some(RestartPolicyNameEnum::NO));
        if self.rm && restarts {
            return conflict("--restart and --rm");
        }
        if let Some(workdir) = self.workdir.as_deref().filter(|w| !w.starts_with('/')) {
            return Err(Failure::Usage(format!(
                "the working directory '{workdir}' is invalid, it needs to be an absolute path"
            )));
        }
        let NetworkMode::Without(mode) = &self.network else { return Ok(()) };
        if !self.links.is_empty() {
            return conflict(&format!("--link and --network {mode:?}"));
        }
        let publishes = self.publish_all || !self.publications.is_empty();
        if mode.starts_with("container:") {
            if self.hostname.is_some() {
                return conflict(&format!("--hostname and --network {mode:?}"));
            }
            if publishes {
                return conflict(&format!("--publish and --network {mode:?}"));
            }
            if !self.exposed.is_empty() {
                return conflict(&format!("--expose and --network {mode:?}"));
            }
        }
        if publishes {
            self.warnings.push(format!("Published ports are discarded when using {mode} network mode"));
            self.publications.clear();
            self.publish_all = false;
        }
        Ok(())
    }

    /// Gives a recipient of links a name where it has none: a link's variables tell it.
    pub(super) fn name_recipient(&mut self, taken: &dyn Fn(&str) -> bool) {
        if self.name.is_some() || self.links.is_empty() {
            return;
        }
        // Every state of the standard library's hasher is another random one.
        let name = || generate_name(RandomState::new().build_hasher().finish());
        self.name = Some(std::iter::repeat_with(name).take(100).find(|n| !taken(n)).unwrap_or_else(name));
    }

    /// Ports that the container exposes beyond its image: `--expose`, and the published ones.
    pub(super) fn exposed_ports(&self) -> BTreeSet<Port> {
        self.exposed.iter().copied().chain(self.publications.iter().map(|p| p.container_port)).collect()
    }
}

/// Each link once; two sources cannot go by one alias.
fn links(specs: &[String]) -> Result<Vec<LinkRequest>, Failure> {
    let mut links: Vec<LinkRequest> = Vec::new();
    for spec in specs {
        let link = parse_link(spec).map_err(usage)?;
        match links.iter().find(|l| l.alias == link.alias) {
            Some(same) if *same == link => {}
            Some(other) => {
                return Err(Failure::Usage(format!("invalid --link {spec:?}: its alias is that of \"{other}\"")));
            }
            None => links.push(link),
        }
    }
    Ok(links)
}

fn labels(specs: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut labels = BTreeMap::new();
    for spec in specs {
        let (name, value) = spec.split_once('=').unwrap_or((spec, ""));
        if name.is_empty() {
            return Err(Failure::Usage(format!("invalid --label {spec:?}: it has no name")));
        }
        labels.insert(name.to_owned(), value.to_owned());
    }
    Ok(labels)
}

fn restart(text: &str) -> Result<RestartPolicy, Failure> {
    let invalid = |why: &str| Failure::Usage(format!("invalid --restart {text:?}: {why}"));
    let (name, count) = match text.split_once(':') {
        Some((name, count)) => {
            let count = count.parse::<u32>().map_err(|_| invalid("the maximum retry count is no number"))?;
            (name, Some(i64::from(count)))
        }
        None => (text, None),
    };
    let name = match name {
        "no" => RestartPolicyNameEnum::NO,
        "always" => RestartPolicyNameEnum::ALWAYS,
        "unless-stopped" => RestartPolicyNameEnum::UNLESS_STOPPED,
        "on-failure" => RestartPolicyNameEnum::ON_FAILURE,
        _ => return Err(invalid("expected no, always, unless-stopped or on-failure[:COUNT]")),
    };
    if count.is_some() && name != RestartPolicyNameEnum::ON_FAILURE {
        return Err(invalid("a maximum retry count goes with on-failure alone"));
    }
    Ok(RestartPolicy { name: Some(name), maximum_retry_count: count })
}

#[cfg(test)]
pub(super) mod tests;
