//! The `runtime` command.

fn main() -> std::process::ExitCode {
    runtime::cli::main()
}
