//! The book: `docs/` and the documents at the root, as mdBook's pages side by side.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use xtask::TOOLS_DIR;

use crate::packages;
use crate::run::{cargo, run};

/// The version that `cargo xtask book` installs where there is none.
const VERSION: &str = "0.4.52";
/// What book.toml calls its source.
const PAGES: &str = "target/book/src";

/// Builds the book into `target/book/html`; installs mdBook into the workspace where the machine has none.
pub fn book(root: &Path) -> Result<()> {
    write_pages(root)?;
    let own = root.join(TOOLS_DIR).join("bin/mdbook");
    if !own.is_file() && !packages::is_program("mdbook") {
        eprintln!("book: installing mdbook {VERSION} into {TOOLS_DIR}");
        let arguments = ["install", "--locked", "--no-default-features", "--features", "search", "mdbook", "--version"];
        run(cargo().args(arguments).arg(VERSION).arg("--root").arg(root.join(TOOLS_DIR)))?;
    }
    run(Command::new(if own.is_file() { own.as_os_str() } else { "mdbook".as_ref() }).arg("build").arg(root))?;
    eprintln!("built target/book/html/index.html");
    Ok(())
}

/// Copies the pages into one folder, with links that fit there.
fn write_pages(root: &Path) -> Result<()> {
    let pages = root.join(PAGES);
    if pages.exists() {
        fs::remove_dir_all(&pages).with_context(|| format!("cannot remove {}", pages.display()))?;
    }
    fs::create_dir_all(&pages).with_context(|| format!("cannot make {}", pages.display()))?;
    for folder in [root.to_owned(), root.join("docs")] {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            let (Some(name), true) = (path.file_name(), path.extension().is_some_and(|e| e == "md")) else { continue };
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let to = pages.join(name);
            fs::write(&to, beside(&text)).with_context(|| format!("cannot write {}", to.display()))?;
        }
    }
    Ok(())
}

/// The text of a page whose links lead to its neighbours in one folder.
fn beside(text: &str) -> String {
    text.replace("](docs/SUMMARY.md)", "](introduction.md)").replace("](docs/", "](").replace("](../", "](")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_between_the_root_and_docs_lead_beside() {
        let text = "[a](docs/limits.md#x) [b](../SECURITY.md) [c](docs/SUMMARY.md) [d](https://docs/x)";
        assert_eq!(beside(text), "[a](limits.md#x) [b](SECURITY.md) [c](introduction.md) [d](https://docs/x)");
    }
}
