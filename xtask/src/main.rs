//! Build, set-up and test tasks.

fn main() -> anyhow::Result<()> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or_else(|| anyhow::anyhow!("no root"))?;
    println!("{}", xtask::ebpf::build(root)?.display());
    Ok(())
}
