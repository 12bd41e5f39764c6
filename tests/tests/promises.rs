//! Every promise of SECURITY.md names tests that exist.

use std::path::Path;

/// The tests that a text names: `file::function`, the file below this folder and without its ending.
fn named(text: &str) -> Vec<(&str, &str)> {
    let tables = text.lines().filter(|line| line.starts_with('|'));
    let quoted = tables.flat_map(|line| line.split('`').skip(1).step_by(2));
    quoted.filter_map(|words| words.split_once("::")).collect()
}

#[test]
fn every_promise_has_its_tests() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(here.join("../SECURITY.md")).expect("SECURITY.md");
    let all = named(&text);
    assert!(all.len() > 40, "{}", all.len());
    for (file, function) in all {
        let path = here.join("tests").join(file).with_extension("rs");
        let source = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let is_test = source.split("#[test]").skip(1).any(|rest| {
            let first = rest.split("fn ").nth(1).unwrap_or_default();
            first.strip_prefix(function).is_some_and(|rest| rest.starts_with('('))
        });
        assert!(is_test, "{file} has no test {function}");
    }
    // A row without a test is no promise.
    let promises = text.split("## What is promised").nth(1).and_then(|t| t.split("## What is not").next());
    for row in promises.expect("the promises").lines().filter(|l| l.starts_with("| ") && !l.starts_with("| promise")) {
        assert!(!named(row).is_empty(), "no test: {row}");
    }
}
