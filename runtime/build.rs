//! Builds the kernel side, which `datapath::object` embeds.

use std::{env, error::Error, path::Path, process::ExitCode};

/// Names a prebuilt object to embed instead, for a machine without a toolchain for BPF.
const PREBUILT: &str = "RUNTIME_EBPF_OBJECT";

fn main() -> ExitCode {
    match embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

fn embed() -> Result<(), Box<dyn Error>> {
    let manifest_dir = env::var("CARGO_MANIFEST_DIR")?;
    let root = Path::new(&manifest_dir).parent().ok_or("the package lies outside of its workspace")?;
    let embedded = Path::new(&env::var("OUT_DIR")?).join("runtime-ebpf.o");

    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={PREBUILT}");
    if let Some(object) = env::var_os(PREBUILT).filter(|path| !path.is_empty()) {
        let object = root.join(object);
        println!("cargo::rerun-if-changed={}", object.display());
        return xtask::ebpf::copy(&object, &embedded).map_err(|error| format!("{PREBUILT}: {error}").into());
    }
    for source in xtask::ebpf::sources(root) {
        println!("cargo::rerun-if-changed={}", source.display());
    }
    xtask::ebpf::copy(&xtask::ebpf::build(root)?, &embedded)?;
    Ok(())
}
