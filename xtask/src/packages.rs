//! What the tests and the demo need of the distribution, and the packages that bring it. No I/O but for looking.

use std::path::Path;

/// How to see that something is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// A program on the PATH or where the system's own lie.
    Program(&'static str),
    /// A file.
    File(&'static str),
    /// A file under some folder of another: PostgreSQL's servers lie beside each other by version.
    Below(&'static str, &'static str),
    /// A package, where its file alone does not tell.
    Package(&'static str),
}

/// One thing that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// What shows that it is there.
    pub sign: Sign,
    /// The package that brings it; where releases name it differently, the first that the archive has.
    pub packages: &'static [&'static str],
}

const fn need(sign: Sign, packages: &'static [&'static str]) -> Need {
    Need { sign, packages }
}

/// Everything but the toolchain for BPF.
pub const NEEDS: [Need; 17] = [
    need(Sign::Program("gcc"), &["gcc"]),
    need(Sign::File("/usr/include/stdio.h"), &["libc6-dev"]),
    need(Sign::Program("pkg-config"), &["pkg-config", "pkgconf"]),
    need(Sign::Program("dockerd"), &["docker.io"]),
    need(Sign::Program("docker"), &["docker-cli", "docker.io"]),
    need(Sign::Program("iptables"), &["iptables"]),
    need(Sign::Program("ip"), &["iproute2"]),
    // The containers' root file system: it must run without libraries.
    need(Sign::Package("busybox-static"), &["busybox-static"]),
    need(Sign::Program("bpftool"), &["bpftool", "linux-tools-generic"]),
    need(Sign::Program("ethtool"), &["ethtool"]),
    need(Sign::Program("sysctl"), &["procps"]),
    need(Sign::Program("ping"), &["iputils-ping"]),
    need(Sign::Program("modprobe"), &["kmod"]),
    need(Sign::Program("nginx"), &["nginx-light", "nginx"]),
    need(Sign::Below("/usr/lib/postgresql", "bin/postgres"), &["postgresql"]),
    // For measurements alone: a rival, and what asks nginx.
    need(Sign::Program("nft"), &["nftables"]),
    need(Sign::Program("wrk"), &["wrk"]),
];

/// Packages that hold a compiler with its source, in the order in which they are tried: the one that Debian keeps new
/// for its browsers, then the release's own.
pub const TOOLCHAINS: [[&str; 3]; 2] = [["rustc-web", "cargo-web", "rust-web-src"], ["rustc", "cargo", "rust-src"]];

/// Those of the needs whose sign `is_there` does not see.
pub fn missing(needs: &[Need], is_there: impl Fn(Sign) -> bool) -> Vec<Need> {
    needs.iter().filter(|need| !is_there(need.sign)).copied().collect()
}

/// The packages to install for these needs, each once.
///
/// # Errors
/// A line that names a need for which the archive has no package.
pub fn resolve(needs: &[Need], is_in_archive: impl Fn(&str) -> bool) -> Result<Vec<&'static str>, String> {
    let mut chosen = Vec::new();
    for need in needs {
        let package = need.packages.iter().find(|package| is_in_archive(package)).ok_or_else(|| {
            format!("apt knows no package {}: check /etc/apt/sources.list", need.packages.join(" or "))
        })?;
        if !chosen.contains(package) {
            chosen.push(*package);
        }
    }
    Ok(chosen)
}

/// The first set of toolchain packages that is new enough: 1.`oldest` or later.
pub fn toolchain_packages(
    oldest: u32,
    candidate: impl Fn(&str) -> Option<String>,
) -> Option<&'static [&'static str; 3]> {
    TOOLCHAINS.iter().find(|[compiler, others @ ..]| {
        let minor = candidate(compiler).and_then(|version| version.split('.').nth(1)?.parse::<u32>().ok());
        minor.is_some_and(|minor| minor >= oldest) && others.iter().all(|other| candidate(other).is_some())
    })
}

/// The version that apt would install, out of `apt-cache policy PACKAGE`.
pub fn parse_candidate(policy: &str) -> Option<String> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

/// Looks for a file named `file` in the folders of the PATH, and in those of the system's programs.
pub fn is_program(file: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(Into::into);
    std::env::split_paths(&path).chain(system).any(|folder| folder.join(file).is_file())
}

/// Looks for `file` under any folder of `folder`.
pub fn is_below(folder: &str, file: &str) -> bool {
    Path::new(folder).read_dir().is_ok_and(|entries| entries.flatten().any(|entry| entry.path().join(file).is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_installed_and_each_package_once() {
        let absent = [Sign::Program("dockerd"), Sign::Program("docker"), Sign::Program("nginx")];
        let missing = missing(&NEEDS, |sign| !absent.contains(&sign));
        assert_eq!(missing.len(), 3);
        // Bookworm: docker.io brings the client too.
        let packages = resolve(&missing, |package| package != "docker-cli");
        assert_eq!(packages, Ok(vec!["docker.io", "nginx-light"]));
        // Later releases split the client off, and have one nginx.
        let packages = resolve(&missing, |package| package != "nginx-light");
        assert_eq!(packages, Ok(vec!["docker.io", "docker-cli", "nginx"]));
    }

    #[test]
    fn nothing_is_missing_where_everything_is_there() {
        assert_eq!(missing(&NEEDS, |_| true), []);
    }

    #[test]
    fn an_archive_without_a_package_is_named() {
        let error = resolve(&NEEDS, |package| package != "ethtool").expect_err("one lacks");
        assert!(error.contains("ethtool"), "{error}");
    }

    #[test]
    fn the_newest_compiler_of_the_archive_is_taken() {
        let bookworm = |package: &str| match package {
            "rustc" | "cargo" | "rust-src" => Some("1.63.0+dfsg1-2".to_owned()),
            _ => Some("1.96.0+dfsg1-1~deb12u2".to_owned()),
        };
        assert_eq!(toolchain_packages(95, bookworm), Some(&TOOLCHAINS[0]));
        let later = |package: &str| (!package.contains("web")).then(|| "1.97.1+dfsg1-1".to_owned());
        assert_eq!(toolchain_packages(95, later), Some(&TOOLCHAINS[1]));
        assert_eq!(toolchain_packages(95, |_| Some("1.85.0+dfsg3-1".to_owned())), None);
        let sourceless = |package: &str| (!package.ends_with("src")).then(|| "1.97.0".to_owned());
        assert_eq!(toolchain_packages(95, sourceless), None);
    }

    #[test]
    fn candidates_are_read() {
        let policy = "bpftool:\n  Installed: (none)\n  Candidate: 7.1.0+6.1.192-2\n  Version table:\n";
        assert_eq!(parse_candidate(policy).as_deref(), Some("7.1.0+6.1.192-2"));
        assert_eq!(parse_candidate("docker-cli:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(parse_candidate(""), None);
    }
}
