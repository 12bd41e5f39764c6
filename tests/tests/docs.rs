//! The documents: each of their commands is run or says why not, each link leads somewhere, and what is generated is up to date.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use runtime_common::Verdict;
use runtime_common::maps::LAYOUT;
use tests::docs::{REASONS, blocks, pages, run, workspace};
use tests::{Image, Lab};

/// Set to write what is generated, instead of comparing it.
const WRITE: &str = "RUNTIME_WRITE_DOCS";

#[test]
fn the_commands_of_the_documents_do_what_is_written() {
    let lab = Lab::builder("the documents").client2().images(&[Image::Nginx, Image::Postgres]).build();
    let (mut blocks, mut wrong) = (0, Vec::new());
    for page in pages() {
        match run(&lab, &page) {
            Ok(count) => blocks += count,
            Err(why) => wrong.push(why),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(blocks > 20, "{blocks}");
}

#[test]
fn every_block_is_run_or_says_why_not() {
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page");
        let mut is_open = false;
        for (before, line) in std::iter::once("").chain(text.lines()).zip(text.lines()) {
            is_open ^= line.starts_with("```");
            // A block without a fence is one without a tag; in a list, it is the item's next line.
            let is_indented = line.starts_with("    ") && before.is_empty();
            assert!(is_open || !is_indented, "{}: a block without a fence: {line}", page.display());
        }
        for block in blocks(&page) {
            let tags: Vec<_> = block.tags.iter().map(String::as_str).collect();
            let is_known = match tags[..] {
                ["sh"] | ["sh", "client"] | ["text"] | ["text", "output"] | ["mermaid"] => true,
                ["sh", why] => REASONS.iter().any(|(reason, _)| why.strip_prefix("not-run=") == Some(*reason)),
                ["ini" | "yaml" | "rust" | "toml" | "json"] => true,
                _ => false,
            };
            assert!(is_known, "{}: what a block of {tags:?} is for is not known", block.place);
            let begins = |word: &str| block.text.lines().any(|l| l.trim_start().starts_with(word));
            let hidden = ["$ ", "sudo ", "cargo ", "runtime ", "docker "].into_iter().find(|w| begins(w));
            assert!(
                block.is_commands() || tags == ["text", "output"] || hidden.is_none(),
                "{}: {hidden:?}",
                block.place
            );
        }
    }
}

/// The words after `flag` in a command line.
fn after<'a>(line: &'a str, flag: &str) -> Option<&'a str> {
    line.split_whitespace().skip_while(|w| *w != flag).nth(1)
}

#[test]
fn what_the_documents_have_cargo_do_exists() {
    let tasks = fs::read_to_string(workspace().join("xtask/src/main.rs")).expect("xtask");
    let mut seen = 0;
    for block in pages().iter().flat_map(|page| blocks(page)).filter(|b| b.not_run().is_some()) {
        for line in block.text.lines() {
            if let Some(task) = after(line, "xtask") {
                let variant: String = task.split('-').map(|w| w[..1].to_uppercase() + &w[1..]).collect();
                let declared = [" {", "(", ","].iter().any(|end| tasks.contains(&format!("    {variant}{end}")));
                assert!(declared, "{}: there is no task {task}", block.place);
                seen += 1;
            }
            let Some(file) = after(line, "--test").filter(|_| line.contains("-p tests")) else { continue };
            let path = workspace().join("tests/tests").join(file).with_extension("rs");
            let source =
                fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {}: {e}", block.place, path.display()));
            let test = line.split(" -- ").nth(1).and_then(|rest| rest.split_whitespace().next());
            let exists = test.is_none_or(|t| source.contains(&format!("fn {t}(")) || t.ends_with("::"));
            assert!(exists, "{}: {file} has no test {test:?}", block.place);
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}");
}

/// The anchor of a heading, as GitHub and mdBook make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let anchors = |page: &Path| -> BTreeSet<String> {
        let text = fs::read_to_string(page).unwrap_or_default();
        text.lines().filter_map(|l| l.strip_prefix('#')).map(|l| anchor(l.trim_start_matches('#'))).collect()
    };
    let mut in_book = BTreeSet::new();
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, part) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.with_file_name(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            assert!(part.is_empty() || anchors(&target).contains(part), "{}: no heading {link}", page.display());
            if page.ends_with("docs/SUMMARY.md") {
                in_book.insert(target.canonicalize().expect("a path"));
            }
        }
    }
    for page in pages().into_iter().filter(|p| !p.ends_with("docs/SUMMARY.md") && !p.ends_with("README.md")) {
        assert!(in_book.contains(&page.canonicalize().expect("a path")), "{} is not in the book", page.display());
    }
}

#[test]
fn the_readme_is_a_page() {
    let text = fs::read_to_string(workspace().join("README.md")).expect("README.md");
    assert!(text.lines().count() <= 150, "{} lines", text.lines().count());
}

/// The lines between `<!-- NAME: generated -->` and `<!-- NAME: end -->` of a page have to be these.
fn compare(page: &str, name: &str, table: &str) {
    let path = workspace().join("docs").join(page);
    let text = fs::read_to_string(&path).expect(page);
    let (begin, end) = (format!("<!-- {name}: generated -->\n"), format!("<!-- {name}: end -->"));
    let (head, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{page} has no mark {begin}"));
    let (old, tail) = rest.split_once(&end).unwrap_or_else(|| panic!("{page} has no mark {end}"));
    if old.trim() == table.trim() {
        return;
    }
    assert!(
        std::env::var_os(WRITE).is_some(),
        "docs/{page}: the table of {name} is not up to date: {WRITE}=1 cargo test -p tests --test docs generated"
    );
    fs::write(&path, format!("{head}{begin}\n{}\n\n{end}{tail}", table.trim())).expect(page);
}

// One test: both may write the same page.
#[test]
fn the_generated_tables_are_up_to_date() {
    verdicts();
    maps();
}

fn verdicts() {
    let mut table = "| number | verdict | what becomes of it | meaning |\n|---|---|---|---|\n".to_owned();
    for v in Verdict::ALL {
        let _ = writeln!(table, "| {} | `{}` | {} | {} |", *v as u32, v.name(), v.kind().name(), v.text());
    }
    compare("looking-inside.md", "verdicts", &table);
}

fn maps() {
    let source = fs::read_to_string(workspace().join("runtime-ebpf/src/maps.rs")).expect("the maps");
    let common = workspace().join("runtime-common/src");
    let entries = fs::read_dir(common.join("maps")).expect("the maps' types").flatten().map(|e| e.path());
    let read = |path| fs::read_to_string(path).expect("a source");
    let sizes: String = entries.chain([common.join("verdict.rs")]).map(read).collect();
    let mut table = format!("Layout {LAYOUT}.\n\n| map | kind | entries | what it holds |\n|---|---|---|---|\n");
    let mut words: Vec<&str> = Vec::new();
    for line in source.lines() {
        if let Some(text) = line.strip_prefix("/// ") {
            words.push(text);
        } else if let Some((name, rest)) = line.strip_prefix("pub static ").and_then(|l| l.split_once(": ")) {
            let (kind, rest) = rest.split_once('<').expect("its parameters");
            let parameters: Vec<_> = rest.split('>').next().unwrap_or_default().split(", ").collect();
            let size = if kind == "RingBuf" || kind == "SockMap" { parameters.last() } else { parameters.get(2) };
            let entries = match (kind, size, parameters.get(1)) {
                ("SkStorage", ..) => "one a socket".to_owned(),
                (_, Some(size), _) if kind != "Array" && kind != "PerCpuArray" => value(size, &sizes).to_string(),
                (_, _, Some(size)) => value(size, &sizes).to_string(),
                _ => panic!("{name}: no size in {line}"),
            };
            let _ = writeln!(table, "| `{name}` | {kind} | {entries} | {} |", words.join(" "));
            words.clear();
        } else if !line.starts_with("#[") {
            words.clear();
        }
    }
    compare("looking-inside.md", "maps", &table);
}

/// A size as a number: a literal, or the constant of that name, whose value is reckoned from left to right.
fn value(size: &str, constants: &str) -> usize {
    let found = constants.split(&format!("const {size}: ")).nth(1).and_then(|rest| rest.split_once("= "));
    let text = found.and_then(|(_, rest)| rest.split(';').next()).unwrap_or(size).replace('_', "");
    let mut words = text.split_whitespace();
    let number = |word: Option<&str>| word.and_then(|w| w.parse::<usize>().ok()).expect(size);
    let mut sum = number(words.next());
    while let Some(operator) = words.next() {
        let next = number(words.next());
        sum = match operator {
            "*" => sum * next,
            "/" => sum / next,
            "<<" => sum << next,
            other => panic!("{size}: {other}"),
        };
    }
    sum
}
