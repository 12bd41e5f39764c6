//! Build, set-up and test tasks: `cargo xtask help`.

mod apt;
mod book;
mod packages;
mod run;
mod setup;
mod vm;

use std::{
    ffi::OsString,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread::available_parallelism,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

use run::{cargo, run};
use xtask::engines::{self, Engine, Suite};

/// Build, set-up and test tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the tests and the demo need on this machine (as root); skips what is there
    Setup {
        /// Unpack this Engine too, into target/engines: 20.10, 26.1, 28.5 or podman
        #[arg(long, value_name = "NAME", default_value = "installed")]
        engine: Engine,
    },
    /// Build the kernel side; installs the pinned bpf-linker where it is missing
    BuildEbpf {
        /// Copy the object there
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Set up, build, and run all tests that the Engine has (as root)
    Test {
        /// On this Engine: 20.10, 26.1, 28.5 or podman; without, on the machine's own
        #[arg(long, value_name = "NAME", default_value = "installed")]
        engine: Engine,
        /// Passed on to `cargo test`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Set up, build, and show published ports and links at work on a Docker host made of namespaces (as root)
    Demo {
        /// On this Engine: 20.10, 26.1, 28.5 or podman; without, on the machine's own
        #[arg(long, value_name = "NAME", default_value = "installed")]
        engine: Engine,
        /// Passed on to the demo
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Set up, build, and measure against what else there is (as root): `--quick`, `--only traffic,kernel,control,crowd,apps`, `--out DIR`
    Bench {
        /// Passed on to the measurement
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Set up, build, and kill the daemon between any two of its effects, so many times (as root): `--kills 10000`
    Soak {
        /// How often
        #[arg(long, value_name = "N", default_value_t = 10_000)]
        kills: usize,
        /// Another debug build of `runtime`, of the same layout of maps: both take turns, so that each start is an upgrade or a downgrade
        #[arg(long, value_name = "PATH")]
        other: Option<PathBuf>,
        /// On this Engine: 20.10, 26.1, 28.5 or podman; without, on the machine's own
        #[arg(long, value_name = "NAME", default_value = "installed")]
        engine: Engine,
    },
    /// Build, then run `runtime up` (as root)
    Up {
        /// Passed on to `runtime up`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Boot other kernels in QEMU, and load and test everything there: `--kernel 6.1`, `--only load`, `--record`
    Vm(vm::Options),
    /// Packet cases by chance through the naive model, the host build and the kernel (as root): `--cases N`, `--seed S`, `--legs model,host`, `--help`
    Fuzz {
        /// Instead, this many changed inputs for each parser of what people and containers write
        #[arg(long, value_name = "N")]
        parsers: Option<u64>,
        /// Passed on to the fuzzer
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Build the book of docs/ into target/book/html; installs mdBook into target/tools where the machine has none
    Book,
    /// Build the documentation of the crates, with warnings denied, and run its examples
    Doc,
    /// Run the tests of the pure decision code under Miri, which finds undefined behaviour: needs a nightly toolchain that has it
    Miri,
    /// Check the formatting
    Fmt,
    /// Run clippy, with warnings denied
    Clippy,
    /// Everything that must hold before a change is taken: fmt, clippy, fuzz, all tests on Docker 28.5, what every Engine has to serve on the others, and vm
    Ci,
}

fn main() -> ExitCode {
    match Arguments::parse().task.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Task {
    fn run(self) -> Result<()> {
        let root = &root()?;
        // Before the folder changes: a path of the user's is meant from theirs.
        let task = match self {
            Self::BuildEbpf { out: Some(out) } => Self::BuildEbpf { out: Some(std::path::absolute(out)?) },
            other => other,
        };
        std::env::set_current_dir(root).with_context(|| format!("cannot enter {}", root.display()))?;
        match task {
            Self::Setup { engine } => setup::setup(root, engine),
            Self::BuildEbpf { out } => build_ebpf(root, out.as_deref()),
            Self::Test { engine, arguments } => test(root, engine, &arguments),
            Self::Demo { engine, arguments } => tool(root, "demo", engine, &arguments),
            Self::Bench { arguments } => tool(root, "bench", Engine::Installed, &arguments),
            Self::Soak { kills, other, engine } => soak(root, kills, other, engine),
            Self::Up { arguments } => up(root, &arguments),
            Self::Vm(options) => vm::vm(root, &options),
            Self::Fuzz { parsers: Some(cases), .. } => run(cargo()
                .args(["test", "--package", "parser-checks", "--test", "by_chance"])
                .env("RUNTIME_PARSER_CASES", cases.to_string())),
            Self::Fuzz { arguments, parsers: None } => fuzz(root, &arguments),
            Self::Book => book::book(root),
            Self::Doc => doc(root),
            Self::Miri => miri(),
            Self::Fmt => fmt(),
            Self::Clippy => {
                setup::install_linker(root)?;
                clippy()
            }
            Self::Ci => ci(root),
        }
    }
}

/// The folder of the workspace.
fn root() -> Result<PathBuf> {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let root = Path::new(&package).parent().context("the package lies outside of its workspace")?;
    Ok(root.to_owned())
}

fn phase(name: &str) {
    eprintln!("==> {name}");
}

fn build_ebpf(root: &Path, out: Option<&Path>) -> Result<()> {
    setup::install_linker(root)?;
    let mut object = xtask::ebpf::build(root)?;
    if let Some(out) = out {
        xtask::ebpf::copy(&object, out)?;
        object = out.to_owned();
    }
    eprintln!("built {}", object.display());
    Ok(())
}

fn test(root: &Path, engine: Engine, arguments: &[OsString]) -> Result<()> {
    phase("set-up");
    setup::setup(root, engine)?;
    phase("build");
    // The scenarios run the binaries, which `cargo test` alone does not build for another package.
    run(cargo().args(["build", "--workspace"]))?;
    run_tests(engine, arguments)
}

fn run_tests(engine: Engine, arguments: &[OsString]) -> Result<()> {
    let names_packages = arguments.iter().any(|argument| argument == "-p" || argument == "--package");
    let mut command = on(engine, cargo());
    command.args(["test", "--no-fail-fast"]);
    match engine.suite() {
        Suite::Common(files) if arguments.is_empty() => {
            phase(&format!("the demo on {engine}"));
            run(on(engine, cargo()).args(["run", "--quiet", "--package", "tests", "--bin", "demo"]))?;
            command.args(["--package", "tests"]);
            command.args(files.iter().flat_map(|file| ["--test", file]));
        }
        _ if names_packages => {}
        _ => {
            command.arg("--workspace");
        }
    }
    phase(&format!("tests on {engine}"));
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        // A scenario has an Engine and servers of its own: more at once only wait for each other.
        let threads = available_parallelism().map_or(1, |cores| cores.get().min(4));
        command.env("RUST_TEST_THREADS", threads.to_string());
    }
    run(command.args(arguments))
}

/// The same command with labs on this Engine; what the user's own environment names stays where none is asked for.
fn on(engine: Engine, mut command: Command) -> Command {
    if engine != Engine::Installed {
        command.env(engines::VARIABLE, engine.name());
    }
    command
}

/// Builds everything and runs a program of the lab.
fn tool(root: &Path, name: &str, engine: Engine, arguments: &[OsString]) -> Result<()> {
    phase("set-up");
    setup::setup(root, engine)?;
    phase("build");
    run(cargo().args(["build", "--workspace", "--release", "--bins"]))?;
    phase(name);
    let mut command = on(engine, cargo());
    let package = if name == "bench" { name } else { "tests" };
    run(command.args(["run", "--quiet", "--package", package, "--release", "--bin", name, "--"]).args(arguments))
}

/// The daemon of a debug build: no other has places to be killed at.
fn soak(root: &Path, kills: usize, other: Option<PathBuf>, engine: Engine) -> Result<()> {
    phase("set-up");
    setup::setup(root, engine)?;
    phase("build");
    run(cargo().args(["build", "--package", "runtime", "--package", "tests", "--bins"]))?;
    phase("soak");
    let mut command = on(engine, cargo());
    command.args(["run", "--quiet", "--package", "tests", "--bin", "soak", "--", &kills.to_string()]);
    run(command.args(other))
}

fn up(root: &Path, arguments: &[OsString]) -> Result<()> {
    setup::install_linker(root)?;
    let mut command = cargo();
    command.args(["run", "--quiet", "--package", "runtime", "--release", "--bin", "runtime", "--", "up"]);
    // Returns only where it fails: signals reach `runtime` itself.
    Err(command.args(arguments).exec()).context("cannot run cargo")
}

fn fuzz(root: &Path, arguments: &[OsString]) -> Result<()> {
    setup::install_linker(root)?;
    phase("fuzz");
    let mut command = cargo();
    run(command.args(["run", "--quiet", "--package", "packet-cases", "--bin", "fuzz", "--"]).args(arguments))
}

fn doc(root: &Path) -> Result<()> {
    setup::install_linker(root)?;
    phase("doc");
    run(cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    run(cargo().args(["test", "--workspace", "--doc"]))
}

/// Nightly's cargo, with Miri: rustup alone finds it.
fn nightly_miri() -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo", "miri"]).env_remove("CARGO").env_remove("LD_LIBRARY_PATH");
    command
}

fn has_miri() -> bool {
    nightly_miri().arg("--version").output().is_ok_and(|output| output.status.success())
}

fn miri() -> Result<()> {
    if !has_miri() {
        bail!(
            "this machine has no nightly toolchain with Miri: `rustup toolchain install nightly --component miri,rust-src`"
        );
    }
    phase("miri");
    run(nightly_miri().args(["test", "--package", "runtime-common"]))
}

fn fmt() -> Result<()> {
    phase("fmt");
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args(["fmt", "--manifest-path", "runtime-ebpf/Cargo.toml", "--check"]))
}

fn clippy() -> Result<()> {
    phase("clippy");
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    // Checked as for the host: clippy need not come with the compiler that builds for BPF.
    let kernel_side = ["--manifest-path", "runtime-ebpf/Cargo.toml", "--target-dir", xtask::TARGET_DIR];
    run(cargo().arg("clippy").args(kernel_side).args(["--", "-D", "warnings"]))
}

fn ci(root: &Path) -> Result<()> {
    fmt()?;
    phase("set-up");
    for engine in engines::CI {
        setup::setup(root, engine)?;
    }
    clippy()?;
    phase("miri is no part of this: `cargo xtask miri`, where there is a nightly toolchain with it");
    // As many of these as this takes anywhere, and no more where the machine is slow.
    fuzz(root, &["--cases", "200000", "--seconds", "90"].map(OsString::from))?;
    // One Engine's failure does not hide another's.
    let mut failed: Vec<_> = engines::CI
        .into_iter()
        .filter_map(|engine| {
            let begun = Instant::now();
            let tested = test(root, engine, &[]);
            eprintln!(
                "==> {engine}: {} after {} s",
                if tested.is_ok() { "ok" } else { "failed" },
                begun.elapsed().as_secs()
            );
            tested.err().map(|error| format!("{engine}: {error:#}"))
        })
        .collect();
    phase("kernels");
    failed.extend(vm::ci(root).err().map(|error| format!("other kernels: {error:#}")));
    if !failed.is_empty() {
        bail!("tests failed on {}", failed.join("; on "));
    }
    Ok(())
}
