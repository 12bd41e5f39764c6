//! The documents: their code blocks, and running the commands in them.
//!
//! A block is tagged by the words after its fence. `sh` is run, a page's blocks in their order on the host of one lab;
//! `sh client` on the client outside; `sh not-run=REASON` is not, for one of [`REASONS`]. A block `text output` behind one that
//! was run holds lines that it must have printed, in this order; `…` stands for anything.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lab::Lab;

/// Why a block of commands is not run.
pub const REASONS: [(&str, &str); 5] = [
    ("installs", "changes the machine that it is run on"),
    ("builds", "is what CI itself runs, or a part of it"),
    ("machines", "boots machines, which takes minutes"),
    ("service", "needs a service manager"),
    ("engine", "needs an Engine or a tool that the lab does not run beside this one"),
];

/// A fenced block of a page.
#[derive(Clone, Debug)]
pub struct Block {
    /// The page, and the line of the fence.
    pub place: String,
    /// The words after the fence: the language first.
    pub tags: Vec<String>,
    /// What is in it.
    pub text: String,
}

impl Block {
    fn is(&self, tags: &[&str]) -> bool {
        self.tags == tags
    }

    /// Whether it holds commands of a shell, run or not.
    pub fn is_commands(&self) -> bool {
        self.tags.first().is_some_and(|t| t == "sh")
    }

    /// Why it is not run, where it says so.
    pub fn not_run(&self) -> Option<&str> {
        self.tags.get(1)?.strip_prefix("not-run=")
    }
}

/// The folder of the workspace.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// All pages: the documents at the root and the book's.
///
/// # Panics
/// When a folder cannot be read.
#[track_caller]
pub fn pages() -> Vec<PathBuf> {
    let root = workspace();
    let mut pages = Vec::new();
    for folder in [root.clone(), root.join("docs")] {
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        pages.extend(entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "md")));
    }
    pages.sort();
    pages
}

/// The blocks of a page, in order.
///
/// # Panics
/// When it cannot be read, or its last block does not end.
#[track_caller]
pub fn blocks(page: &Path) -> Vec<Block> {
    let text = fs::read_to_string(page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
    let name = page.strip_prefix(workspace()).unwrap_or(page).display().to_string();
    parse(&name, &text).unwrap_or_else(|place| panic!("{place}: this block does not end"))
}

/// The blocks of a page's text; the place of one that does not end.
fn parse(name: &str, text: &str) -> Result<Vec<Block>, String> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(tags), None) => {
                let tags = tags.split_whitespace().map(str::to_owned).collect();
                open = Some(Block { place: format!("{name}:{}", number + 1), tags, text: String::new() });
            }
            (Some(_), Some(block)) => blocks.push(block),
            (None, Some(mut block)) => {
                block.text.push_str(line);
                block.text.push('\n');
                open = Some(block);
            }
            (None, None) => {}
        }
    }
    open.map_or(Ok(blocks), |block| Err(block.place))
}

/// Whether the lines that are expected were printed, in this order; else the first that was not.
fn printed<'a>(expected: &'a str, output: &str) -> Result<(), &'a str> {
    let mut lines = output.lines();
    for wanted in expected.lines().map(str::trim).filter(|l| !l.is_empty() && *l != "…") {
        if !lines.any(|line| matches(wanted, line.trim())) {
            return Err(wanted);
        }
    }
    Ok(())
}

/// Whether a line is as a pattern in which `…` stands for anything; runs of blanks are one.
fn matches(pattern: &str, line: &str) -> bool {
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (pattern, line) = (squeeze(pattern), squeeze(line));
    let mut parts = pattern.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first.trim_end())) else { return false };
    let mut is_whole = true;
    for part in parts {
        is_whole = part.trim().is_empty();
        match rest.find(part.trim()) {
            Some(at) => rest = &rest[at + part.trim().len()..],
            None => return false,
        }
    }
    is_whole && pattern.contains('…') || rest.is_empty()
}

/// Runs a page's blocks on a host on which neither the daemon nor a container is left from another one, and gives how many.
///
/// # Errors
/// Where a command fails, or does not print what the page says.
pub fn run(lab: &Lab, page: &Path) -> Result<usize, String> {
    let blocks = blocks(page);
    let name = page.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let dir = lab.dir().join("docs").join(&name);
    let bin = dir.join("bin");
    for folder in [bin.clone(), dir.join("run"), dir.join("lib")] {
        fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    }
    // As on a machine of one's own: commands by their names, the daemon and the Engine at their places.
    let shims = [
        ("docker", shim(&lab.docker_command([""; 0]))),
        ("runtime", shim(&lab.plain_runtime_command())),
        ("sudo", "exec \"$@\"\n".to_owned()),
    ];
    for (program, script) in shims {
        write_program(&bin.join(program), &script);
    }
    let mut script = format!(
        "set -eu\ncd {dir}\nmkdir run/netns\nmount --rbind /run/netns run/netns\nln -s {socket} run/docker.sock\n\
         mount --rbind run /run\nmount --rbind lib /var/lib\nmount -t bpf bpf /sys/fs/bpf\nexport PATH={bin}:$PATH\n",
        dir = dir.display(),
        socket = lab.dir().join("docker.sock").display(),
        bin = bin.display(),
    );
    script.push_str(
        "trap 'runtime down >down.log 2>&1 || true; docker ps -aq | xargs -r docker rm -f >/dev/null' EXIT\n",
    );
    let mut count = 0;
    for (i, block) in blocks.iter().enumerate() {
        let place = match () {
            () if block.is(&["sh"]) => String::new(),
            () if block.is(&["sh", "client"]) => format!("nsenter --net={} ", lab.client().path().display()),
            () => continue,
        };
        count += 1;
        fs::write(dir.join(format!("{i}.sh")), &block.text).unwrap_or_else(|e| panic!("{}: {e}", block.place));
        let _ = writeln!(
            script,
            "{place}sh -eux {i}.sh >{i}.out 2>{i}.err || {{ echo {:?} >&2; tail -n 20 {i}.out {i}.err >&2; exit 1; }}",
            format!("{}: this block fails", block.place)
        );
    }
    if count == 0 {
        return Ok(0);
    }
    let done = lab.host().run(["unshare", "--mount", "sh", "-c", &script]);
    if !done.success() {
        return Err(done.stderr);
    }
    for (i, block) in blocks.iter().enumerate() {
        if !block.is(&["text", "output"]) {
            continue;
        }
        let output = i.checked_sub(1).and_then(|before| fs::read_to_string(dir.join(format!("{before}.out"))).ok());
        let output = output.unwrap_or_else(|| panic!("{}: the block before it is not run", block.place));
        if let Err(line) = printed(&block.text, &output) {
            return Err(format!("{}: `{line}` is not printed, but:\n{output}", block.place));
        }
    }
    Ok(count)
}

/// A script that runs a command with whatever arguments it is given.
fn shim(command: &Command) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|w| format!("'{}'", w.to_string_lossy())).collect();
    let mut script = String::new();
    for (name, value) in command.get_envs() {
        let name = name.to_string_lossy();
        let _ = match value {
            Some(value) => writeln!(script, "export {name}='{}'", value.to_string_lossy()),
            None => writeln!(script, "unset {name}"),
        };
    }
    if !command.get_envs().any(|(name, _)| name == "PATH") {
        // Not found by itself again.
        let _ = writeln!(script, "export PATH='{path}'");
    }
    let _ = writeln!(script, "exec {} \"$@\"", words.join(" "));
    script
}

fn write_program(path: &Path, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    let written = fs::write(path, format!("#!/bin/sh\n{script}"))
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)));
    written.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_with_their_tags() {
        let text = "words\n```sh client\none\ntwo\n```\n```text output\nthree\n```\n";
        let blocks = parse("page", text).expect("blocks");
        assert!(blocks[0].is(&["sh", "client"]) && blocks[0].text == "one\ntwo\n", "{blocks:?}");
        assert_eq!((blocks[1].place.as_str(), blocks.len()), ("page:6", 2));
        assert_eq!(parse("page", "```sh\none\n").err(), Some("page:1".to_owned()));
    }

    #[test]
    fn what_was_printed_is_compared_line_by_line() {
        let output = "a   b\nc 17 d\n172.17.0.2\tx y\n";
        assert_eq!(printed("a b\nc … d\n… x y", output), Ok(()));
        assert_eq!(printed("172.17.…", output), Ok(()));
        assert_eq!(printed("a", output), Err("a"));
        assert_eq!(printed("c 17 d\na b", output), Err("a b"));
        assert_eq!(printed("c … e", output), Err("c … e"));
    }
}
