//! What runs in a machine: the packet tests, and the round of scenarios that show every hook at work.

use std::borrow::Cow;

use super::Part;
use super::kernels::Kernel;

/// Tests of one file under tests/tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The file's name.
    pub file: Cow<'static, str>,
    /// The test; all of the file where there is none.
    pub test: Option<Cow<'static, str>>,
    /// Of which part.
    pub part: Part,
}

impl Set {
    const fn new(file: &'static str, test: Option<&'static str>, part: Part) -> Self {
        let test = match test {
            Some(test) => Some(Cow::Borrowed(test)),
            None => None,
        };
        Self { file: Cow::Borrowed(file), test, part }
    }

    /// A test of the user's choice: `FILE::NAME`, or `FILE` for all of it.
    pub fn named(name: &str) -> Self {
        let (file, test) = name.split_once("::").map_or((name, None), |(file, test)| (file, Some(test)));
        Self { file: file.to_owned().into(), test: test.map(|t| t.to_owned().into()), part: Part::Scenarios }
    }
}

/// In the order in which they run.
const SETS: [Set; 2] =
    [Set::new("packets", None, Part::Packets), Set::new("elsewhere", Some("from_up_to_down"), Part::Scenarios)];
/// What one kernel is enough for, and which: it has all that is needed.
const ONCE: (&str, [Set; 1]) =
    ("6.12", [Set::new("elsewhere", Some("elsewhere::uplinks::wireguard_and_netkit"), Part::Scenarios)]);
/// Where the datapath cannot work.
const REFUSAL: [Set; 1] =
    [Set::new("elsewhere", Some("elsewhere::old_kernel::is_refused_in_one_line"), Part::Scenarios)];

/// What is run on a kernel of these parts.
pub fn of(kernel: Kernel, parts: &[Part]) -> Vec<Set> {
    let sets: &[Set] = if kernel.works { &SETS } else { &REFUSAL };
    let once: &[Set] = if kernel.series == ONCE.0 { &ONCE.1 } else { &[] };
    sets.iter().chain(once).filter(|set| parts.contains(&set.part)).cloned().collect()
}

/// Left to the machine's own kernel: it wants a process started within the second that a route is remembered for, which an emulated
/// machine does not do where this one is busy.
const HASTY: &str = "packets::publish::conversations_share_their_way_out_for_a_while";

/// Times how much longer a machine without hardware help may take for what is waited for.
const PATIENCE: u32 = 6;

/// The line with which a set begins; its file follows.
pub const BEGIN: &str = "vm: begin ";

/// The script that runs these. It fails where one fails, and goes on after it.
pub fn script(sets: &[Set]) -> String {
    let mut script =
        format!("export RUNTIME_EBPF_OBJECT=/lab/object RUNTIME_LAB_PATIENCE={PATIENCE} RUST_BACKTRACE=0\nfailed=0\n");
    for set in sets {
        let test = set.test.as_ref().map(|test| format!("--exact {test}")).unwrap_or_default();
        // What a test tells of its steps says at once where it is.
        script += &format!(
            "echo '{BEGIN}{0}'\n./target/debug/deps/{0} --test-threads=2 --nocapture --skip {HASTY} {test} 2>&1 || failed=1\n",
            set.file
        );
    }
    script + "exit $failed\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_named_after_its_file() {
        let set = Set::named("elsewhere::swarm::a_service_is_reached");
        assert_eq!((set.file.as_ref(), set.test.as_deref()), ("elsewhere", Some("swarm::a_service_is_reached")));
        assert_eq!(Set::named("packets").test, None);
    }
}
