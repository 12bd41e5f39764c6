//! What runs in a machine: the packet tests, and the round of scenarios that show every hook at work.

use super::Part;
use super::kernels::Kernel;

/// Tests of one file under tests/tests.
pub struct Set {
    /// The file's name.
    pub file: &'static str,
    /// The test; all of the file where there is none.
    pub test: Option<&'static str>,
    /// Of which part.
    pub part: Part,
}

/// In the order in which they run.
const SETS: [Set; 2] = [
    Set { file: "packets", test: None, part: Part::Packets },
    Set { file: "elsewhere", test: Some("from_up_to_down"), part: Part::Scenarios },
];
/// Where the datapath cannot work.
const REFUSAL: [Set; 1] =
    [Set { file: "elsewhere", test: Some("an_old_kernel_is_refused_in_one_line"), part: Part::Scenarios }];

/// What is run on a kernel of these parts.
pub fn of(kernel: Kernel, parts: &[Part]) -> Vec<&'static Set> {
    let sets: &'static [Set] = if kernel.works { &SETS } else { &REFUSAL };
    sets.iter().filter(|set| parts.contains(&set.part)).collect()
}

/// Times how much longer a machine without hardware help may take for what is waited for.
const PATIENCE: u32 = 6;

/// The line with which a set begins; its file follows.
pub const BEGIN: &str = "vm: begin ";

/// The script that runs these. It fails where one fails, and goes on after it.
pub fn script(sets: &[&Set]) -> String {
    let mut script =
        format!("export RUNTIME_EBPF_OBJECT=/lab/object RUNTIME_LAB_PATIENCE={PATIENCE} RUST_BACKTRACE=0\nfailed=0\n");
    for set in sets {
        let test = set.test.map(|test| format!("--exact {test}")).unwrap_or_default();
        // What a test tells of its steps says how long each took here.
        script += &format!(
            "echo '{BEGIN}{0}'\n./target/debug/deps/{0} --test-threads=2 --show-output {test} 2>&1 || failed=1\n",
            set.file
        );
    }
    script + "exit $failed\n"
}
