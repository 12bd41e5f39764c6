//! `-e` and `--env-file`.

use std::path::Path;

use super::Failure;

/// The environment that the flags ask for: files first, then `-e`; of two that set one variable, the later.
///
/// `lookup` is the environment that `-e NAME` takes its value from: unset there, it is left out.
///
/// # Errors
/// Bad input, quoted.
pub(super) fn environment(
    flags: &[String],
    files: &[String],
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    for file in files {
        let unreadable = |e: &dyn std::fmt::Display| Failure::Usage(format!("invalid --env-file {file:?}: {e}"));
        let bytes = std::fs::read(Path::new(file)).map_err(|e| unreadable(&e))?;
        let text = String::from_utf8(bytes).map_err(|_| unreadable(&"it is no UTF-8 text"))?;
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim_start();
            if !line.is_empty() && !line.starts_with('#') {
                let place = format!("invalid --env-file {file:?}, line {}", number + 1);
                lines.extend(variable(line, &place, true, lookup)?);
            }
        }
    }
    for flag in flags {
        lines.extend(variable(flag, "invalid --env", false, lookup)?);
    }
    let mut merged: Vec<String> = Vec::new();
    for line in lines {
        let same = |other: &String| other.split('=').next() == line.split('=').next();
        match merged.iter().position(same) {
            Some(place) => merged[place] = line,
            None => merged.push(line),
        }
    }
    Ok(merged)
}

fn variable(
    text: &str,
    place: &str,
    strict: bool,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<String>, Failure> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    if name.is_empty() {
        return Err(Failure::Usage(format!("{place} {text:?}: no variable name")));
    }
    // Docker's rule for files; a shell's argument may hold anything.
    if strict && name.contains(char::is_whitespace) {
        return Err(Failure::Usage(format!("{place} {text:?}: variable '{name}' contains whitespaces")));
    }
    Ok(match value {
        Some(_) => Some(text.to_owned()),
        None => lookup(name).map(|value| format!("{name}={value}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(flags: &[&str], file: Option<&str>) -> Result<Vec<String>, Failure> {
        let flags: Vec<_> = flags.iter().map(|f| (*f).to_owned()).collect();
        let lookup = |name: &str| (name == "HERE").then(|| "value=here".to_owned());
        let Some(text) = file else { return environment(&flags, &[], &lookup) };
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("runtime-env-{}-{n}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let result = environment(&flags, &[path.display().to_string()], &lookup);
        std::fs::remove_file(path).unwrap();
        result
    }

    #[test]
    fn flags() {
        let env = read(&["A=1", "B=x=y z", "HERE", "MISSING", "E=", "A=2"], None).unwrap();
        assert_eq!(env, ["A=2", "B=x=y z", "HERE=value=here", "E="]);
    }

    #[test]
    fn files_come_first() {
        let file = "\u{feff}# comment\n\n  A=file \nHERE\nMISSING\nC='quoted'\r\n";
        assert_eq!(read(&["A=flag"], Some(file)).unwrap(), ["A=flag", "HERE=value=here", "C='quoted'"]);
    }

    #[test]
    fn refusals_quote() {
        for (flags, file, quoted) in [
            (&["=x"][..], None, "\"=x\""),
            (&[""], None, "\"\""),
            (&[], Some("A B=1\n"), "line 1 \"A B=1\""),
            (&[], Some("A=1\n=x\n"), "line 2 \"=x\""),
        ] {
            let failure = read(flags, file).expect_err("taken");
            assert_eq!(failure.status(), 2);
            assert!(failure.message().unwrap().contains(quoted), "{:?}", failure.message());
        }
        let failure = environment(&[], &["/nonexistent/env".into()], &|_| None).expect_err("taken");
        assert!(failure.message().unwrap().contains("\"/nonexistent/env\""));
    }
}
