//! Podman behind its Docker-compatible socket.

use std::fs;

use super::{Command, Context, Engine, Result, process};

/// In place of the files under /etc/containers: everything in the lab's folder, and no systemd.
const CONFIGURATION: &str = "
[engine]
cgroup_manager = \"cgroupfs\"
events_logger = \"file\"
helper_binaries_dir = [\"/usr/lib/podman\", \"/usr/libexec/podman\"]
runtime = \"crun\"
[containers]
# Docker's own: tests ping from within.
default_capabilities = [
  \"AUDIT_WRITE\", \"CHOWN\", \"DAC_OVERRIDE\", \"FOWNER\", \"FSETID\", \"KILL\", \"MKNOD\", \"NET_BIND_SERVICE\", \"NET_RAW\",
  \"SETFCAP\", \"SETGID\", \"SETPCAP\", \"SETUID\", \"SYS_CHROOT\",
]
log_driver = \"k8s-file\"
[network]
network_backend = \"netavark\"
";

impl Engine {
    /// The `podman` command, among the lab's files.
    pub(crate) fn podman_command(&self) -> Result<Command> {
        let configuration = self.dir.join("containers.conf");
        // What dockerd is told by an argument.
        let rules = !self.args.iter().any(|arg| arg == "--iptables=false");
        let text = format!("{CONFIGURATION}firewall_driver = \"{}\"\n", if rules { "nftables" } else { "none" });
        fs::write(&configuration, text).context("Podman's configuration")?;
        let mut command = self.command("env")?;
        command
            .arg(format!("CONTAINERS_CONF={}", configuration.display()))
            .arg("PODMAN_IGNORE_CGROUPSV1_WARNING=1")
            .arg("podman")
            .arg(format!("--root={}", self.dir.join("data").display()))
            .arg(format!("--runroot={}", self.dir.join("exec").display()))
            .arg(format!("--tmpdir={}", self.dir.join("podman").display()))
            .arg(format!("--network-config-dir={}", self.dir.join("networks").display()))
            .arg("--log-level=warn");
        Ok(command)
    }

    pub(super) fn podman(&self) -> Result<Command> {
        let mut command = self.podman_command()?;
        command.args(["system", "service", "--time=0"]).arg(self.client().address());
        Ok(command)
    }

    /// By its own command: the compatible API gives each container ten seconds to end.
    pub(super) fn remove_podmans_containers(&self) -> Result<()> {
        let mut command = self.podman_command()?;
        process::must(command.args(["rm", "--all", "--force", "--volumes", "--time=0"])).map(drop)
    }
}
