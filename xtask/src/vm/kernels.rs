//! The kernels that can be booted, and where their packages come from.

use std::fmt;

/// A kernel series and the suites of Debian that have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// `6.1`: the name by which it is asked for.
    pub series: &'static str,
    /// Where to look, in this order: backports keep a series that testing has left.
    pub suites: &'static [&'static str],
    /// Whether `runtime` works on it; else it has to refuse it.
    pub works: bool,
}

/// From the oldest to the newest.
pub const KERNELS: [Kernel; 5] = [
    Kernel { series: "5.10", suites: &["bullseye"], works: false },
    Kernel { series: "6.1", suites: &["bookworm"], works: true },
    Kernel { series: "6.12", suites: &["trixie", "bookworm-backports"], works: true },
    Kernel { series: "7.2", suites: &["forky", "trixie-backports"], works: true },
    Kernel { series: "7.3", suites: &["trixie-backports", "forky"], works: true },
];

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.series)
    }
}

/// The kernel of this series.
///
/// # Errors
/// A line with all that there are.
pub fn find(series: &str) -> Result<Kernel, String> {
    let known = || KERNELS.map(|kernel| kernel.series).join(", ");
    KERNELS.into_iter().find(|kernel| kernel.series == series).ok_or_else(|| format!("it can be {}", known()))
}

/// The packages of the newest kernel of a series, out of all package names of a suite: the image for virtual machines, with
/// its modules, which newer releases have in a package of their own. `None` where the suite has no such kernel.
pub fn packages(series: &str, names: &[String]) -> Option<Vec<String>> {
    let prefixes = ["linux-binary-", "linux-image-"];
    let releases = names.iter().filter_map(|name| {
        let release = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix))?;
        let release = release.strip_suffix("-unsigned").unwrap_or(release);
        let rest = release.strip_prefix(series)?;
        (release.ends_with("-cloud-amd64") && rest.starts_with(['.', '+', '-'])).then_some(release)
    });
    let newest = releases.max_by_key(|release| numbers(release))?;
    let has = |name: &String| names.contains(name);
    let [binary, modules, base] = ["binary", "modules", "base"].map(|part| format!("linux-{part}-{newest}"));
    if has(&binary) && has(&modules) && has(&base) {
        return Some(vec![binary, modules, base]);
    }
    // The signed one of some releases is the signature alone.
    let image = format!("linux-image-{newest}");
    [format!("{image}-unsigned"), image].into_iter().find(has).map(|image| vec![image])
}

/// The series of all kernels among the package names of a suite, for people.
pub fn series(names: &[String]) -> Vec<String> {
    let mut all: Vec<String> = names
        .iter()
        .filter_map(|name| {
            let release = name.strip_prefix("linux-image-")?;
            let mut parts = release.split(['.', '-', '+']);
            let (major, minor) = (parts.next()?.parse::<u32>().ok()?, parts.next()?.parse::<u32>().ok()?);
            Some(format!("{major}.{minor}"))
        })
        .collect();
    all.sort_by_key(|series| numbers(series));
    all.dedup();
    all
}

/// All numbers in a name, for comparing versions.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_newest_kernel_of_the_series_is_taken() {
        let bookworm = names(&[
            "linux-image-6.1.0-9-cloud-amd64-unsigned",
            "linux-image-6.1.0-50-cloud-amd64",
            "linux-image-6.1.0-50-cloud-amd64-unsigned",
            "linux-image-6.1.0-50-amd64-unsigned",
            "linux-image-6.12.9+deb12-cloud-amd64-unsigned",
            "linux-image-cloud-amd64",
        ]);
        assert_eq!(packages("6.1", &bookworm), Some(names(&["linux-image-6.1.0-50-cloud-amd64-unsigned"])));
        assert_eq!(packages("7.2", &bookworm), None);
        assert_eq!(series(&bookworm), ["6.1", "6.12"]);
    }

    #[test]
    fn modules_may_be_a_package_of_their_own() {
        let forky = names(&[
            "linux-image-7.2.12+deb14-cloud-amd64",
            "linux-binary-7.2.12+deb14-cloud-amd64",
            "linux-modules-7.2.12+deb14-cloud-amd64",
            "linux-base-7.2.12+deb14-cloud-amd64",
            "linux-binary-7.2.9+deb14-cloud-amd64",
        ]);
        let three = ["binary", "modules", "base"].map(|part| format!("linux-{part}-7.2.12+deb14-cloud-amd64"));
        assert_eq!(packages("7.2", &forky), Some(three.to_vec()));
    }

    #[test]
    fn an_unknown_kernel_is_answered_by_those_that_there_are() {
        assert_eq!(find("6.12").map(|kernel| kernel.suites[0]), Ok("trixie"));
        assert_eq!(find("4.19"), Err("it can be 5.10, 6.1, 6.12, 7.2, 7.3".to_owned()));
    }
}
